"""Mail from outside: from any IMAP server, or from a Maildir++ tree, into a user's mailboxes here. Differences only.

A message is known again by its Message-ID, date, subject and size, so an import can be run as often as wanted: what is
here already stays, its flags follow the source. Flags, keywords and dates come along.
"""

import asyncio
import hashlib
import imaplib
import mailbox
import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import compat32
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.name import inbox_of
from murder.operate.reach import Reach
from murder.wire.imap.date import format_date_time
from murder.wire.token import string

HEADERS: Final = ("message-id", "date", "subject", "from")
KEPT_FLAGS: Final = frozenset({"\\Seen", "\\Answered", "\\Flagged", "\\Draft", "\\Deleted"})
MAILDIR_FLAGS: Final = {
    "S": "\\Seen",
    "R": "\\Answered",
    "F": "\\Flagged",
    "D": "\\Draft",
    "T": "\\Deleted",
}
_ROW: Final = re.compile(rb"UID (\d+)")
_SIZE: Final = re.compile(rb"RFC822\.SIZE (\d+)")
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


@dataclass(slots=True)
class Brought:
    """How far an import is."""

    folders: int = 0
    messages: int = 0
    octets: int = 0
    flags: int = 0
    present: int = 0


def key_of(headers: bytes, size: int) -> Key:
    """Known again whatever server keeps it: servers do not alter headers or size."""
    message = message_from_bytes(headers, policy=compat32)
    values = [" ".join(str(message.get(name, "")).split()) for name in HEADERS]
    return hashlib.sha256("\0".join([*values, str(size)]).encode("utf-8", "replace")).hexdigest()


class ImapSource:
    """Another IMAP server, as one of its users."""

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
                self._client: imaplib.IMAP4 = imaplib.IMAP4_SSL(
                    host, port, ssl_context=context, timeout=60
                )
            else:
                self._client = imaplib.IMAP4(host, port, timeout=60)
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
        self._names: dict[tuple[str, ...], str] = {}
        self._selected: tuple[str, ...] | None = None

    def folders(self) -> list[tuple[str, ...]]:
        for row in self._client.list()[1]:
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
        return sorted(self._names)

    def _select(self, folder: tuple[str, ...]) -> None:
        if self._selected != folder:
            quoted = '"' + self._names[folder].replace("\\", "\\\\").replace('"', '\\"') + '"'
            answer = self._client.select(quoted, readonly=True)
            if answer[0] != "OK":
                raise Refusal(Code.UNAVAILABLE, f"{'/'.join(folder)}: {answer[1]!r}")
            self._selected = folder

    def messages(self, folder: tuple[str, ...]) -> Iterator[Found]:
        self._select(folder)
        words = "(UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE SUBJECT FROM)])"
        for row in self._client.uid("FETCH", "1:*", words)[1]:
            if isinstance(row, tuple):
                uid, size = _ROW.search(row[0]), _SIZE.search(row[0])
                if uid and size:
                    flags = _flags(row[0])
                    yield Found(key_of(row[1], int(size.group(1))), flags, uid.group(1).decode())

    def take(self, folder: tuple[str, ...], found: Found) -> tuple[bytes, datetime]:
        self._select(folder)
        for row in self._client.uid("FETCH", found.uid, "(INTERNALDATE BODY.PEEK[])")[1]:
            if isinstance(row, tuple):
                date = _DATE.search(row[0])
                return row[1], _moment(date.group(1).decode()) if date else datetime.now(UTC)
        raise Refusal(Code.EXPUNGE_ISSUED, "It has gone meanwhile")

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


def _flags(octets: bytes) -> frozenset[str]:
    match = _FLAGS.search(octets)
    words = match.group(1).decode("ascii", "replace").split() if match else []
    return frozenset(word for word in words if word in KEPT_FLAGS or not word.startswith("\\"))


class MaildirSource:
    """A Maildir++ tree on this host."""

    def __init__(self, path: Path) -> None:
        if not (path / "cur").is_dir():
            raise Refusal(Code.NONEXISTENT, f"{path} is no Maildir: it has no cur/")
        self._path = path

    def folders(self) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = [("INBOX",)]
        for child in sorted(self._path.iterdir()):
            if child.name.startswith(".") and (child / "cur").is_dir():
                found.append(("INBOX", *child.name[1:].split(".")))
        return found

    def _open(self, folder: tuple[str, ...]) -> "mailbox.Maildir":
        path = self._path / ("." + ".".join(folder[1:])) if folder[1:] else self._path
        return mailbox.Maildir(path, create=False)

    def messages(self, folder: tuple[str, ...]) -> Iterator[Found]:
        box = self._open(folder)
        for key in box.iterkeys():
            octets = _with_crlf(box.get_bytes(key))
            flags = frozenset(
                MAILDIR_FLAGS[one]
                for one in box.get_message(key).get_flags()
                if one in MAILDIR_FLAGS
            )
            yield Found(key_of(octets.partition(b"\r\n\r\n")[0], len(octets)), flags, str(key))

    def take(self, folder: tuple[str, ...], found: Found) -> tuple[bytes, datetime]:
        box = self._open(folder)
        try:
            octets, stamp = (
                _with_crlf(box.get_bytes(found.uid)),
                box.get_message(found.uid).get_date(),
            )
        except KeyError:
            raise Refusal(Code.EXPUNGE_ISSUED, "It has gone meanwhile") from None
        return octets, datetime.fromtimestamp(stamp, UTC)

    def close(self) -> None:
        pass


def _with_crlf(octets: bytes) -> bytes:
    return re.sub(rb"\r?\n", b"\r\n", octets)


# --- bringing


class Import:
    """Into one user's mailboxes; `tell` hears how far it is."""

    def __init__(
        self, reach: Reach, user: str, source: Source, tell: Callable[[Brought], None]
    ) -> None:
        self._reach = reach
        self._user = user
        self._source = source
        self._tell = tell
        self._server = ""
        self.brought = Brought()

    async def run(self) -> Brought:
        """Raises Refusal, UpstreamFailure: what was brought until then stays, and the next run goes on."""
        if self._reach.credential.password is not None:
            raise Refusal(
                Code.NO_PERMISSION,
                "An administrator's password cannot put mail into users' mailboxes: use an operator's certificate",
            )
        self._server = (await self._reach.find(inbox_of(self._user))).server
        for folder in await asyncio.to_thread(self._source.folders):
            await self._folder(folder)
            self.brought.folders += 1
            self._tell(self.brought)
        return self.brought

    async def _ask(self, command: bytes, untagged: Callable[[bytes], None] | None = None) -> None:
        await self._reach.ask(self._server, command, user=self._user, untagged=untagged)

    async def _folder(self, folder: tuple[str, ...]) -> None:
        name = self._name(folder)
        if folder != ("INBOX",):
            try:
                await self._ask(b"CREATE " + name)
            except Refusal as refusal:
                if refusal.code is not Code.ALREADY_EXISTS:
                    raise
        here = await self._present(name)
        there = await asyncio.to_thread(lambda: list(self._source.messages(folder)))
        for found in there:
            present = here.get(found.key)
            if present is None:
                await self._bring(name, folder, found)
            else:
                self.brought.present += 1
                await self._follow(name, present, found)
            self._tell(self.brought)

    def _name(self, folder: tuple[str, ...]) -> bytes:
        """The folder as this murder calls it: below INBOX, or beside it in the alternative namespace."""
        namespace = self._reach.namespace
        levels = folder if folder == ("INBOX",) else tuple(one for one in folder if one != "INBOX")
        levels = tuple(
            namespace.inward(level.encode("ascii", "replace")).decode() for level in levels
        )
        joined = namespace.separator.join(level.encode() for level in levels)
        return string(joined if folder == ("INBOX",) else namespace.personal_prefix + joined)

    async def _present(self, name: bytes) -> Mapping[Key, tuple[bytes, frozenset[str]]]:
        """What is here already: its UID and flags by key."""
        found: dict[Key, tuple[bytes, frozenset[str]]] = {}

        def take(line: bytes) -> None:
            uid, size = _ROW.search(line), _SIZE.search(line)
            head, mark, rest = line.partition(b"}\r\n")
            if line.startswith(b"* ") and uid and size and mark:
                length = int(head.rpartition(b"{")[2].rstrip(b"+"))
                key = key_of(rest[:length], int(size.group(1)))
                found[key] = (uid.group(1), _flags(line))

        await self._ask(b"SELECT " + name)
        words = b"(UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE SUBJECT FROM)])"
        await self._ask(b"UID FETCH 1:* " + words, untagged=take)
        return found

    async def _bring(self, name: bytes, folder: tuple[str, ...], found: Found) -> None:
        try:
            octets, date = await asyncio.to_thread(self._source.take, folder, found)
        except Refusal as refusal:
            if refusal.code is Code.EXPUNGE_ISSUED:
                return
            raise
        flags = " ".join(sorted(found.flags)).encode()
        head = b"APPEND %s (%s) %s {%d+}\r\n" % (name, flags, format_date_time(date), len(octets))
        await self._ask(head + octets)
        self.brought.messages += 1
        self.brought.octets += len(octets)

    async def _follow(
        self, name: bytes, present: tuple[bytes, frozenset[str]], found: Found
    ) -> None:
        uid, flags = present
        more = found.flags - flags
        if more:
            words = " ".join(sorted(more)).encode()
            await self._ask(b"UID STORE %s +FLAGS.SILENT (%s)" % (uid, words))
            self.brought.flags += 1


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
