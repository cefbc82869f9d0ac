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
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.flag import is_keyword
from murder.model.message import Uid
from murder.wire.imap.mail.fetched import Fetched, parse_fetch_response
from murder.wire.imap.mailboxes.list import ListEntry, parse_list_response
from murder.wire.token import Scanner

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
MAX_KEYWORD: Final = 255  # octets
NO_MAIL_IN: Final = frozenset({"\\noselect", "\\nonexistent"})

Key = str
Parsed = TypeVar("Parsed")


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

    def take(self, folder: tuple[str, ...], message: Found) -> tuple[bytes, datetime]:
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
        for octets in _responses(self._ask(self._client.list)):
            entry = self._parsed(octets, _listed)
            if any(word.lower() in NO_MAIL_IN for word in entry.attributes):
                continue
            name = entry.name.decode("ascii", "replace")
            separator = (entry.separator or b"").decode("ascii", "replace")
            levels = tuple(name.split(separator)) if separator else (name,)
            if levels[0].upper() == "INBOX":
                levels = ("INBOX", *levels[1:])
            self._names[levels] = name
            if len(self._names) > MAX_FOLDERS:
                raise Refusal(Code.LIMIT, f"{self._where} has more than {MAX_FOLDERS} folders")
        return sorted(self._names)

    def _select(self, folder: tuple[str, ...]) -> None:
        if self._selected != folder:
            quoted = '"' + self._names[folder].replace("\\", "\\\\").replace('"', '\\"') + '"'
            answer = self._ask(self._client.select, quoted, readonly=True)
            count = answer[-1] if answer and isinstance(answer[-1], bytes) else b""
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
            answer = self._ask(self._client.fetch, f"{first}:{last}", words)
            for octets in islice(_responses(answer), 4 * PAGE_MESSAGES):
                message = self._parsed(octets, _fetched)
                if known := known_message(message):
                    key, uid = known
                    yield Found(key, flags_of(message), str(uid))

    def take(self, folder: tuple[str, ...], listed: Found) -> tuple[bytes, datetime]:
        self._select(folder)
        answer = self._ask(self._client.uid, "FETCH", listed.uid, "(INTERNALDATE BODY.PEEK[])")
        for octets in _responses(answer):
            message = self._parsed(octets, _fetched)
            text = message.sections.get(b"BODY[]")
            if text is not None:
                return text, message.internal_date or datetime.now(UTC)
        raise Refusal(Code.EXPUNGE_ISSUED, "It was removed meanwhile")

    def _parsed(self, octets: bytes, parse: Callable[[bytes], Parsed]) -> Parsed:
        """Raises UpstreamFailure."""
        try:
            return parse(octets)
        except BadSyntax as error:
            text = f"its answer is not valid: {error}"
            raise UpstreamFailure(UpstreamKind.PROTOCOL, self._where, text) from error

    def close(self) -> None:
        try:
            self._client.logout()
        except (OSError, imaplib.IMAP4.error):
            pass


def _responses(rows: Sequence[Any]) -> Iterator[bytes]:
    """Untagged responses, each put together from what imaplib makes of it: pairs of a line and the literal that it ends
    with, then the last line."""
    held: list[bytes] = []
    for row in rows:
        if isinstance(row, tuple):
            held += (row[0], b"\r\n", row[1])
        elif isinstance(row, bytes):
            yield b"".join((*held, row))
            held = []


def _fetched(row: bytes) -> Fetched:
    """A FETCH response of which imaplib has taken the word away. Raises BadSyntax."""
    number, _, items = row.partition(b" ")
    message = parse_fetch_response(b"* %b FETCH %b" % (number, items))
    if message is None:
        raise BadSyntax("a number was expected")
    return message


def _listed(row: bytes) -> ListEntry:
    """A LIST response, likewise."""
    return parse_list_response(Scanner(b" " + row))


def known_message(message: Fetched) -> tuple[Key, Uid] | None:
    """A message's key, and its UID; None where the answer is about something else (its flags, say)."""
    headers = next(
        (octets for name, octets in message.sections.items() if name.startswith(b"BODY[HEADER")),
        None,
    )
    if headers is None or message.uid is None or message.size is None:
        return None
    return key_of(headers, message.size), message.uid


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


def flags_of(message: Fetched) -> frozenset[str]:
    """Those that a message here may have, and no more of them than it may have."""
    kept = [
        flag
        for flag in sorted(message.flags or ())
        if flag in KEPT_FLAGS or (is_keyword(flag) and len(flag) <= MAX_KEYWORD)
    ]
    return frozenset(kept[:MAX_FLAGS])


class MaildirSource:
    """A Maildir++ tree on this host. Whoever owns it may have put anything there: links are not followed, and what is no
    plain file is no message."""

    def __init__(self, path: Path) -> None:
        if not (path / "cur").is_dir():
            raise Refusal(Code.NONEXISTENT, f"{path} is no Maildir: it has no cur/")
        self._path = path

    def folders(self) -> list[tuple[str, ...]]:
        folders: list[tuple[str, ...]] = [("INBOX",)]
        for child in sorted(self._path.iterdir()):
            is_folder = child.name.startswith(".") and not child.is_symlink()
            if is_folder and (child / "cur").is_dir() and not (child / "cur").is_symlink():
                folders.append(("INBOX", *child.name[1:].split(".")))
        return folders

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
                    flags = frozenset(
                        MAILDIR_FLAGS[letter] for letter in letters if letter in MAILDIR_FLAGS
                    )
                    key = key_of(read[0].partition(b"\r\n\r\n")[0], len(read[0]))
                    yield Found(key, flags, f"{place}/{name}")

    def take(self, folder: tuple[str, ...], message: Found) -> tuple[bytes, datetime]:
        place, _, name = message.uid.partition("/")
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
