"""CATENATE at a frontend (RFC 4469): URLs of messages on other backends than the target become texts on the way.

What the target can read itself passes as the client wrote it, and so does what nobody can: the target then says what is
wrong with it.
"""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from murder.api.disk import disk_error
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.model.name import MailboxName
from murder.model.query.fetch import Section
from murder.model.url import ImapUrl
from murder.net.outgoing.relay import ImapUpstream
from murder.net.turns import Turn, aside_if
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import execute, refusal_of
from murder.serve.arguments import LONG_OCTETS
from murder.wire.fragment import Literal
from murder.wire.imap.mail.append import (
    AppendForm,
    parse_append_end,
    parse_append_head,
    parse_catenate_part,
    take_literal,
)
from murder.wire.imap.mail.fetch import format_section
from murder.wire.imap.mail.fetched import parse_fetch_response
from murder.wire.token import Scanner, client_astring
from murder.wire.url import format_url, parse_url

PIECE_OCTETS: Final = 512 * 1024
IN_MEMORY: Final = 1024 * 1024  # of one text; beyond it waits in a file
WORD: Final = b"CATENATE"
ANSWER: Final = b"* URLFETCH "


class Texts:
    """The arguments of one APPEND behind its mailbox, segment by segment. `refusal`: what we found wrong with a URL that
    was passed on; it says more than the target's answer."""

    def __init__(self, dialogue: FrontendImap, server: str) -> None:
        self._dialogue = dialogue
        self._server = server
        self._form: AppendForm | None = None  # of the message we are behind the octets of
        self._in_parts = False  # within CATENATE (…)
        self.refusal: Refusal | None = None
        self.written: dict[bytes, bytes] = {}  # what the client wrote, by what the target reads

    def passed(self) -> None:
        """A segment without CATENATE has passed unread: behind it, a literal streams."""
        self._form = AppendForm.LITERAL

    async def through(self, segment: bytes, start: int) -> AsyncIterator[bytes]:
        """`segment` from `start` on: up to the end of the command or to a literal that streams. Raises UpstreamFailure."""
        scanner, copied = Scanner(segment, start), start
        try:
            turn = Turn()
            urls = await aside_if(len(segment) > LONG_OCTETS, self._urls, scanner)
            for begin, end, raw_url in urls:
                if turn.is_over:
                    await turn.rest()
                url = self._foreign(raw_url)
                if url is None:
                    continue
                if isinstance(url, bytes):
                    self.written[url] = raw_url
                    yield segment[copied:begin] + b"URL " + client_astring(url)
                    copied = end
                    continue
                async with self._text(raw_url, url) as text:
                    if text is not None:
                        size = text.seek(0, 2)
                        yield segment[copied:begin] + b"TEXT {%d+}\r\n" % size
                        copied = end
                        text.seek(0)
                        while octets := text.read(PIECE_OCTETS):
                            yield octets
        except BadSyntax:
            pass  # the target says what is wrong
        yield segment[copied:]

    def _urls(self, scanner: Scanner) -> list[tuple[int, int, bytes]]:
        """Where URLs stand in this segment: from `URL` to behind it, and itself. Raises BadSyntax."""
        urls: list[tuple[int, int, bytes]] = []
        first = False
        while True:
            if not self._in_parts:
                if self._form is not None and not parse_append_end(scanner, self._form):
                    return urls
                head = parse_append_head(scanner)
                self._form = head.form
                if head.literal is None:
                    self._in_parts = first = True
                elif scanner.at == len(scanner.octets):
                    return urls
                else:
                    take_literal(scanner, head.literal)
                continue
            begin = scanner.at + (0 if first else 1)
            part = parse_catenate_part(scanner, first)
            first = False
            if part is None:
                self._in_parts = False
            elif isinstance(part, bytes):
                urls.append((begin, scanner.at, part))
            elif scanner.at == len(scanner.octets) and part.size:
                return urls
            else:
                take_literal(scanner, part)

    def _foreign(self, raw_url: bytes) -> ImapUrl | bytes | None:
        """The URL where another backend has what it names; octets where the target has it, but under another URL; else
        None."""
        dialogue = self._dialogue
        try:
            url = parse_url(raw_url)
            if url.server is not None and not self._is_ours(url.server.host):
                return None
            if url.access is not None:
                return url if self._is_elsewhere(url) else None
            relative = replace(url, server=None)
            selected = dialogue.selected
            if url.mailbox is None:
                if selected is None:
                    return None
                if selected.server == self._server:
                    return self._readable(url)
                return relative
            name = dialogue.namespace.internal(url.mailbox, dialogue.user.user)
        except (BadSyntax, Refusal):
            return None
        entry = dialogue.frontend.locator.known(name)
        if entry is None or entry.server == self._server:
            return self._readable(url)
        return relative

    def _readable(self, url: ImapUrl) -> bytes | None:
        """Of what the target has itself: the URL that it understands, if it is not this one."""
        if url.server is None or url.server.host.lower() == self._server.lower():
            return None
        return format_url(replace(url, server=None))

    def _is_elsewhere(self, url: ImapUrl) -> bool:
        """Of a URL that whoever has it may use (RFC 4467): whether its user's mailbox is on another backend."""
        if url.mailbox is None or url.server is None or not url.server.user:
            return False
        frontend = self._dialogue.frontend
        entry = frontend.locator.known(frontend.namespace.internal(url.mailbox, url.server.user))
        return entry is not None and entry.server != self._server

    def _is_ours(self, host: str) -> bool:
        frontend = self._dialogue.frontend
        return host == frontend.server_name or host in frontend.mailboxes.count_by_server()

    @asynccontextmanager
    async def _text(self, raw_url: bytes, url: ImapUrl) -> AsyncIterator[IO[bytes] | None]:
        """The octets; None where there are none to be had."""
        text: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)
        try:
            try:
                if url.access is None:
                    await fetch_text(self._dialogue, url, text)
                else:
                    await _fetch_by_url(self._dialogue, url, raw_url, text)
                with _on_disk():
                    text.flush()
            except (Refusal, UpstreamFailure) as error:
                why = error.text if isinstance(error, Refusal) else str(error)
                self.refusal = Refusal(Code.BAD_URL, why, raw_url.decode("ascii", "replace"))
                yield None
                return
            yield text
        finally:
            with suppress(OSError):  # it writes what has found no room once more
                text.close()


@contextmanager
def _on_disk() -> Iterator[None]:
    """Raises Refusal where the disk takes no more."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, Path(tempfile.gettempdir())) from error


async def _fetch_by_url(
    dialogue: FrontendImap, url: ImapUrl, raw_url: bytes, text: IO[bytes]
) -> None:
    """What URLFETCH gives for it. Raises Refusal, UpstreamFailure."""
    assert url.server is not None and url.mailbox is not None, "who asks has looked"
    name = dialogue.namespace.internal(url.mailbox, url.server.user or "")
    entry = await dialogue.frontend.locator.find_by_token(name)  # its token gives the right
    upstream = await dialogue.upstream(entry.server)
    most = dialogue.frontend.config.max_message_bytes
    has_text = False
    problem: Refusal | None = None

    def take(response: bytes) -> bool:
        """What is not told in a literal, and what stands behind one."""
        nonlocal has_text
        if response == b"\r\n":
            return True
        if response[:11].upper() != ANSWER:
            return False
        scanner = Scanner(response, len(ANSWER))
        scanner.astring()
        scanner.space()
        octets = scanner.nstring()
        if octets is not None:
            keep(octets)
            has_text = True
        return True

    def keep(octets: bytes) -> None:
        """A full disk is told at the end: from here it would end the backend's connection, and what is selected there."""
        nonlocal problem
        if problem is None:
            try:
                with _on_disk():
                    text.write(octets)
            except Refusal as refusal:
                problem = refusal

    def into(literal: Literal) -> Callable[[bytes], object] | None:
        nonlocal has_text
        head = literal.head
        if head[:11].upper() != ANSWER or head[len(ANSWER) :].startswith(b"{%d" % literal.size):
            return None  # the URL itself
        if has_text or literal.size > most:
            raise BadSyntax(f"an answer to one URL of more than {most} octets")
        has_text = True
        return keep

    octets = b"URLFETCH " + client_astring(raw_url)
    reply = await execute(dialogue, upstream, octets, take, into)
    if problem is not None:
        raise problem
    if not reply.is_ok or not has_text:
        raise Refusal(Code.CANNOT, "The URL yields no data")


async def fetch_text(dialogue: FrontendImap, url: ImapUrl, text: IO[bytes]) -> None:
    """What a URL names, from the backend that has it. Raises Refusal, UpstreamFailure."""
    if url.uid is None:
        raise Refusal(Code.CANNOT, "The URL names no message")
    if url.mailbox is not None:
        name = dialogue.namespace.internal(url.mailbox, dialogue.user.user)
    else:
        assert dialogue.selected is not None, "who asks has looked"
        name = dialogue.selected.name
    entry = await dialogue.find(name)
    async with dialogue.spare_upstream(entry.server) as upstream:
        await _examine(dialogue, upstream, entry.name, url)
        try:
            await _fetch(upstream, url, text, dialogue.frontend.config.max_message_bytes)
        finally:
            if not upstream.is_lost:
                await upstream.execute(b"UNSELECT")


async def _examine(
    dialogue: FrontendImap, upstream: ImapUpstream, name: MailboxName, url: ImapUrl
) -> None:
    reply = await upstream.execute(b"EXAMINE " + client_astring(dialogue.external(name)))
    if not reply.is_ok:
        raise refusal_of(reply)
    validity = b"[UIDVALIDITY %d]" % (url.uid_validity or 0)
    if url.uid_validity is not None and not any(validity in line for line in reply.untagged):
        await upstream.execute(b"UNSELECT")
        raise Refusal(Code.NONEXISTENT, "The URL is of an earlier mailbox of this name")


async def _fetch(upstream: ImapUpstream, url: ImapUrl, text: IO[bytes], most_octets: int) -> None:
    section = format_section(url.section or Section())
    offset, most = url.partial or (0, None)
    while most is None or most > 0:
        asked = PIECE_OCTETS if most is None else min(PIECE_OCTETS, most)
        octets = await _piece(upstream, url, section, offset, asked)
        with _on_disk():
            text.write(octets)
        offset += len(octets)
        if most is not None:
            most -= len(octets)
        if len(octets) < asked:
            return
        if text.tell() > most_octets:
            raise Refusal(Code.LIMIT, f"The URL yields more than {most_octets} octets")


async def _piece(
    upstream: ImapUpstream, url: ImapUrl, section: bytes, offset: int, asked: int
) -> bytes:
    texts: list[bytes | None] = []

    def take(response: bytes) -> None:
        fetched = parse_fetch_response(response)
        if fetched is not None and fetched.uid == url.uid and fetched.sections:
            texts.extend(fetched.sections.values())

    item = b"BODY.PEEK[%s]<%d.%d>" % (section, offset, asked)
    reply = await upstream.execute(b"UID FETCH %d (UID %s)" % (url.uid or 0, item), untagged=take)
    if not reply.is_ok:
        raise refusal_of(reply)
    if not texts:
        raise Refusal(Code.NONEXISTENT, "There is no such message")
    if texts[0] is None:
        raise Refusal(Code.NONEXISTENT, f"Message {url.uid} has no such section")
    return texts[0]
