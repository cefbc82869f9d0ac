"""Where an import takes mail from: another IMAP server, or a Maildir++ tree on this host. Neither is trusted.

Blocking: used in a thread.
"""

import hashlib
import imaplib
import os
import re
import ssl
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import compat32
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind

HEADERS: Final = ("message-id", "date", "subject", "from")
KEPT_FLAGS: Final = frozenset({"\\Seen", "\\Answered", "\\Flagged", "\\Draft", "\\Deleted"})
MAILDIR_FLAGS: Final = {
    "S": "\\Seen",
    "R": "\\Answered",
    "F": "\\Flagged",
    "D": "\\Draft",
    "T": "\\Deleted",
}
MAX_ANSWER: Final = 256 * 1024 * 1024  # octets of one: a message, a page of headers, all folders
LINE_OCTETS: Final = 200  # what imaplib keeps of a line beside its octets
MAX_FOLDERS: Final = 10_000
MAX_MESSAGES: Final = 10_000_000  # of one folder
MAX_HEADERS: Final = 1024 * 1024  # octets that are looked at, of all header fields
MAX_FLAGS: Final = 100
PAGE_MESSAGES: Final = 500  # asked for at once
ROW: Final = re.compile(rb"UID ([0-9]{1,10})\b")
SIZE: Final = re.compile(rb"RFC822\.SIZE ([0-9]{1,18})\b")
_KEYWORD: Final = re.compile(rb'[^(){ %*"\\\]\x00-\x20\x7f-\xff]{1,255}')  # RFC 3501 §9
_FLAGS: Final = re.compile(rb"FLAGS \(([^()]*+)\)")
_DATE: Final = re.compile(rb'INTERNALDATE "([^"]*)"')
_LIST: Final = re.compile(rb'\(([^)]*)\) ("(?:[^"\\]|\\.)"|NIL) (.*)', re.DOTALL)

Key = str


@dataclass(frozen=True, slots=True)
class Found:
    """A message of a source: how it is known, its flags, and how its octets and date are had."""

    key: Key
    flags: frozenset[str]
    uid: str


class Source(Protocol):
    """Where mail comes from. Blocking; used in a thread."""

    def folders(self) -> list[tuple[str, ...]]:
        """The levels of each folder's name; INBOX is `("INBOX",)`."""
        ...

    def messages(self, folder: tuple[str, ...]) -> Iterator[Found]: ...

    def take(self, folder: tuple[str, ...], found: Found) -> tuple[bytes, datetime]:
        """Octets with CRLF line ends, and the date of arrival."""
        ...

    def close(self) -> None: ...


def key_of(headers: bytes, size: int) -> Key:
    """Known again whatever server keeps it: servers do not alter headers or size."""
    message = message_from_bytes(headers[:MAX_HEADERS], policy=compat32)
    values = [" ".join(str(message.get(name, "")).split()) for name in HEADERS]
    return hashlib.sha256("\0".join([*values, str(size)]).encode("utf-8", "replace")).hexdigest()


class _Bounded(imaplib.IMAP4):
    """imaplib takes whatever a server sends; this takes so many octets for one command, and no more."""

    left = MAX_ANSWER

    def _command(self, name: str, *args: Any) -> Any:
        self.left = MAX_ANSWER
        return super()._command(name, *args)  # type: ignore[misc] # typeshed leaves it out

    def read(self, size: int) -> bytes:
        self._take(size)
        return super().read(size)

    def readline(self) -> bytes:
        line = super().readline()
        self._take(len(line) + LINE_OCTETS)
        return line

    def _take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise self.abort(f"it sends more than {MAX_ANSWER} octets for one command")


class _BoundedTls(_Bounded, imaplib.IMAP4_SSL):
    """Likewise, over TLS from the beginning."""


class ImapSource:
    """Another IMAP server, as one of its users. It may be anybody's: what it says is bounded, and checked."""

    def __init__(
        self,
        host: str,
        port: int,
        user: str,
        password: str,
        *,
        tls: str,
        context: ssl.SSLContext,
        proxy: str = "",
    ) -> None:
        """`tls`: `implicit`, `starttls`, `none`. With `proxy`, the password is that of this administrator, who acts for
        the user (SASL PLAIN). Raises Refusal, UpstreamFailure."""
        where = f"{host}:{port}"
        try:
            if tls == "implicit":
                self._client: imaplib.IMAP4 = _BoundedTls(
                    host, port, ssl_context=context, timeout=60
                )
            else:
                self._client = _Bounded(host, port, timeout=60)
                if tls == "starttls":
                    self._client.starttls(context)
            if proxy:
                secret = f"{user}\0{proxy}\0{password}".encode()
                self._client.authenticate("PLAIN", lambda _: secret)
            else:
                self._client.login(user, password)
        except imaplib.IMAP4.error as error:
            raise Refusal(Code.AUTHENTICATION_FAILED, f"{where}: {_said(error)}") from error
        except ssl.SSLCertVerificationError as error:
            text = f"its certificate is not trusted: {error.verify_message} (--ca FILE, or --no-verify)"
            raise UpstreamFailure(UpstreamKind.TLS, where, text) from error
        except OSError as error:
            kind = UpstreamKind.TLS if isinstance(error, ssl.SSLError) else UpstreamKind.CONNECT
            raise UpstreamFailure(kind, where, error.strerror or str(error)) from error
        self._where = where
        self._names: dict[tuple[str, ...], str] = {}
        self._selected: tuple[str, ...] | None = None
        self._exists = 0

    def _ask(self, what: Callable[..., Any], *words: str, **options: Any) -> list[Any]:
        """The data of an answer that is OK. Raises Refusal, UpstreamFailure."""
        try:
            word, data = what(*words, **options)
        except imaplib.IMAP4.abort as error:
            raise UpstreamFailure(UpstreamKind.PROTOCOL, self._where, _said(error)) from error
        except imaplib.IMAP4.error as error:
            raise Refusal(Code.UNAVAILABLE, f"{self._where}: {_said(error)}") from error
        except OSError as error:
            text = error.strerror or str(error)
            raise UpstreamFailure(UpstreamKind.LOST, self._where, text) from error
        except (ValueError, IndexError, AttributeError, RecursionError) as error:
            text = f"its answer is not valid: {error}"
            raise UpstreamFailure(UpstreamKind.PROTOCOL, self._where, text) from error
        if word != "OK":
            raise Refusal(Code.UNAVAILABLE, f"{self._where}: {data!r:.200}")
        return list(data or ())

    def folders(self) -> list[tuple[str, ...]]:
        for row in self._ask(self._client.list):
            octets = b"".join(row) if isinstance(row, tuple) else row or b""
            match = _LIST.match(octets)
            if match is None or b"\\noselect" in match.group(1).lower():
                continue
            raw = re.sub(rb"^\{\d+\}", b"", match.group(3)).strip(b'"').replace(b'\\"', b'"')
            separator = match.group(2).strip(b'"').replace(b"\\\\", b"\\").decode()
            name = raw.decode("ascii", "replace")
            levels = tuple(name.split(separator)) if separator != "NIL" else (name,)
            if levels[0].upper() == "INBOX":
                levels = ("INBOX", *levels[1:])
            self._names[levels] = name
            if len(self._names) > MAX_FOLDERS:
                raise Refusal(Code.LIMIT, f"{self._where} has more than {MAX_FOLDERS} folders")
        return sorted(self._names)

    def _select(self, folder: tuple[str, ...]) -> None:
        if self._selected != folder:
            quoted = '"' + self._names[folder].replace("\\", "\\\\").replace('"', '\\"') + '"'
            told = self._ask(self._client.select, quoted, readonly=True)
            count = told[-1] if told and isinstance(told[-1], bytes) else b""
            if not count.isdigit() or len(count) > 10 or int(count) > MAX_MESSAGES:
                text = f"it says that {'/'.join(folder)!r:.100} has {count[:40]!r} messages"
                raise UpstreamFailure(UpstreamKind.PROTOCOL, self._where, text)
            self._selected, self._exists = folder, int(count)

    def messages(self, folder: tuple[str, ...]) -> Iterator[Found]:
        self._select(folder)
        words = "(UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE SUBJECT FROM)])"
        exists = self._exists
        for first in range(1, exists + 1, PAGE_MESSAGES):
            self._select(folder)
            last = min(first + PAGE_MESSAGES - 1, exists)
            for row in self._ask(self._client.fetch, f"{first}:{last}", words)[: 4 * PAGE_MESSAGES]:
                if isinstance(row, tuple):
                    uid, size = ROW.search(row[0]), SIZE.search(row[0])
                    if uid and size:
                        key = key_of(row[1], int(size.group(1)))
                        yield Found(key, flags_in(row[0]), uid.group(1).decode())

    def take(self, folder: tuple[str, ...], found: Found) -> tuple[bytes, datetime]:
        self._select(folder)
        for row in self._ask(self._client.uid, "FETCH", found.uid, "(INTERNALDATE BODY.PEEK[])"):
            if isinstance(row, tuple):
                date = _DATE.search(row[0])
                return row[1], _moment(date.group(1).decode()) if date else datetime.now(UTC)
        raise Refusal(Code.EXPUNGE_ISSUED, "It was removed meanwhile")

    def close(self) -> None:
        try:
            self._client.logout()
        except (OSError, imaplib.IMAP4.error):
            pass


def _said(error: imaplib.IMAP4.error) -> str:
    """The server's words; imaplib shows its octets as Python does."""
    words = error.args[0] if error.args else ""
    return words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)


def trusting(authorities: Sequence[Path], verify: bool) -> ssl.SSLContext:
    """Whose certificates are taken: the system's authorities and these; anybody's without `verify`. Raises Refusal."""
    context = ssl.create_default_context()
    for file in authorities:
        try:
            context.load_verify_locations(file)
        except OSError as error:
            raise Refusal(Code.CANNOT, f"{file}: {error.strerror or error}") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _moment(text: str) -> datetime:
    """An INTERNALDATE with its zone; now, where it is none."""
    try:
        return datetime.strptime(text.strip(), "%d-%b-%Y %H:%M:%S %z")
    except ValueError:
        return datetime.now(UTC)


def flags_in(octets: bytes) -> frozenset[str]:
    match = _FLAGS.search(octets)
    words = match.group(1).split()[:MAX_FLAGS] if match else []
    return frozenset(
        word.decode("ascii")
        for word in words
        if _KEYWORD.fullmatch(word) or word.decode("latin-1") in KEPT_FLAGS
    )


class MaildirSource:
    """A Maildir++ tree on this host. Whoever owns it may have put anything there: links are not followed, and what is no
    plain file is no message."""

    def __init__(self, path: Path) -> None:
        if not (path / "cur").is_dir():
            raise Refusal(Code.NONEXISTENT, f"{path} is no Maildir: it has no cur/")
        self._path = path

    def folders(self) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = [("INBOX",)]
        for child in sorted(self._path.iterdir()):
            is_folder = child.name.startswith(".") and not child.is_symlink()
            if is_folder and (child / "cur").is_dir() and not (child / "cur").is_symlink():
                found.append(("INBOX", *child.name[1:].split(".")))
        return found

    def _open(self, folder: tuple[str, ...], *below: str) -> int:
        """The descriptor of a folder. Raises OSError where a link stands in its way."""
        steps = ["." + ".".join(folder[1:])] if folder[1:] else []
        at = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        for step in (*steps, *below):
            try:
                inner = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            finally:
                os.close(at)
            at = inner
        return at

    def _read(self, folder: tuple[str, ...], place: str, name: str) -> tuple[bytes, float] | None:
        """The octets and the time of a plain file; None for what is none, or has gone."""
        try:
            at = self._open(folder, place)
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                descriptor = os.open(name, flags, dir_fd=at)
            finally:
                os.close(at)
        except OSError:
            return None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return None
        with os.fdopen(descriptor, "rb") as file:
            return _with_crlf(file.read()), status.st_mtime

    def messages(self, folder: tuple[str, ...]) -> Iterator[Found]:
        for place in ("new", "cur"):
            try:
                at = self._open(folder, place)
            except OSError:
                continue
            try:
                names = sorted(os.listdir(at))
            finally:
                os.close(at)
            for name in names:
                read = None if name.startswith(".") else self._read(folder, place, name)
                if read is not None:
                    letters = name.partition(":2,")[2]
                    flags = frozenset(MAILDIR_FLAGS[one] for one in letters if one in MAILDIR_FLAGS)
                    key = key_of(read[0].partition(b"\r\n\r\n")[0], len(read[0]))
                    yield Found(key, flags, f"{place}/{name}")

    def take(self, folder: tuple[str, ...], found: Found) -> tuple[bytes, datetime]:
        place, _, name = found.uid.partition("/")
        read = self._read(folder, place, name)
        if read is None:
            raise Refusal(Code.EXPUNGE_ISSUED, "It was removed meanwhile")
        return read[0], datetime.fromtimestamp(read[1], UTC)

    def close(self) -> None:
        pass


def _with_crlf(octets: bytes) -> bytes:
    return re.sub(rb"\r?\n", b"\r\n", octets)


def source_of(
    url: str, password: Callable[[str], str], context: ssl.SSLContext, proxy: str = ""
) -> Source:
    """`maildir:PATH`, `imap://user@host[:port]` (STARTTLS), `imaps://…`, `imap+insecure://…`. Raises Refusal,
    UpstreamFailure."""
    if url.startswith("maildir:"):
        return MaildirSource(Path(url.removeprefix("maildir:")))
    parts: Any = urlsplit(url)
    forms = {"imap": ("starttls", 143), "imaps": ("implicit", 993), "imap+insecure": ("none", 143)}
    if parts.scheme not in forms or not parts.hostname or not parts.username:
        raise Refusal(
            Code.CANNOT, f"{url}: expected imaps://USER@HOST, imap://USER@HOST or maildir:PATH"
        )
    tls, port = forms[parts.scheme]
    user = unquote(parts.username)
    asked = f"{proxy or user} at {parts.hostname}"
    secret = unquote(parts.password) if parts.password else password(asked)
    return ImapSource(
        parts.hostname,
        parts.port or port,
        user,
        secret,
        tls=tls,
        context=context,
        proxy=proxy,
    )
