"""APPEND and REPLACE of any size: a small one is relayed whole, a large one streams to its backend as it comes in.

Memory is bounded by the connections' own limits: octets are taken from the client only as fast as the backend takes them.
RFC 3501 §6.3.11, RFC 3502, RFC 4469, RFC 8508.
"""

from collections.abc import AsyncIterator

from murder.errors import Code, Misuse, Refusal
from murder.model.entry import MailboxEntry
from murder.net.outgoing.exchange import Reply
from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import all_passing, as_it_came, refusal_of, under_tag
from murder.roles.frontend.imap.mail.catenate import WORD, Texts
from murder.roles.frontend.imap.mail.claim import CLAIMS, remove_claimed
from murder.roles.frontend.imap.mail.copy import check_may_remove
from murder.roles.frontend.imap.mail.crossing import (
    Removal,
    Source,
    remove,
    remove_exactly,
    take_back,
)
from murder.roles.frontend.imap.mail.target import find_target, has_moved
from murder.roles.frontend.imap.patience import MAIL_AT_HAND_S, Patience
from murder.roles.frontend.imap.selected import Selected
from murder.serve.client import Running
from murder.session.imap_client import non_synchronising
from murder.session.imap_server import CommandRest
from murder.wire.fragment import Chunk, Literal
from murder.wire.imap.command import Command
from murder.wire.imap.mail.append import parse_append_mailbox, parse_replace_target
from murder.wire.imap.mail.copy import REMOVES, parse_appenduid
from murder.wire.imap.response import status_line
from murder.wire.token import Scanner, client_astring


def run_append(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 3501 §6.3.11, 3502, 4469: to the mailbox's backend, its literals as they come."""
    scanner = Scanner(command.octets, command.start)
    mailbox = parse_append_mailbox(scanner)
    return _append(dialogue, command, mailbox, scanner.at)


async def _append(dialogue: FrontendImap, command: Command, mailbox: bytes, rest_at: int) -> None:
    patience = Patience(dialogue, MAIL_AT_HAND_S)
    entry = await find_target(dialogue, mailbox, command, patience)
    if command.literal is None and WORD not in command.octets.upper():
        await _append_whole(dialogue, command, mailbox, entry, patience)
        return
    upstream = await dialogue.upstream(entry.server)
    incoming = _Incoming(dialogue, command, upstream)
    head = command.octets[len(command.tag) : rest_at]
    reply = await incoming.to_target(head, rest_at)
    dialogue.send(under_tag(command, reply))


async def _append_whole(
    dialogue: FrontendImap,
    command: Command,
    mailbox: bytes,
    entry: MailboxEntry,
    patience: Patience,
) -> None:
    """All of it has come in, and so it can be sent again."""
    while True:
        upstream = await dialogue.upstream(entry.server)
        reply = await as_it_came(dialogue, upstream, command)
        code = refusal_of(reply).code if reply.code else Code.NONE
        if not await has_moved(dialogue, mailbox, entry.server, code, patience):
            dialogue.send(reply.octets)
            return
        entry = await find_target(dialogue, mailbox, command, patience)


def run_replace(dialogue: FrontendImap, command: Command) -> Running:
    """REPLACE, UID REPLACE."""
    scanner = Scanner(command.octets, command.start)
    number, mailbox = parse_replace_target(scanner)
    return _replace(dialogue, command, number, mailbox, scanner.at)


async def _replace(
    dialogue: FrontendImap, command: Command, number: int, mailbox: bytes, rest_at: int
) -> None:
    selected = _selected(dialogue)
    known = dialogue.frontend.locator.known(dialogue.name_of(mailbox))
    if known is None or known.server == selected.server:
        # Whether it exists or not, the backend of the message says it, with the message's own faults first
        incoming = _Incoming(dialogue, command, selected.upstream)
        head = command.octets[len(command.tag) : rest_at]
        dialogue.send(under_tag(command, await incoming.to_target(head, rest_at)))
        return
    await _replace_across(dialogue, command, selected, number, mailbox, rest_at)


async def _replace_across(
    dialogue: FrontendImap,
    command: Command,
    selected: Selected,
    number: int,
    mailbox: bytes,
    rest_at: int,
) -> None:
    """The new message first, on its backend; then the old one goes, on the other (RFC 8508 §3.4)."""
    await check_may_remove(dialogue, selected)
    source = Source(dialogue, selected.upstream)
    verb = b"UID FETCH %d" if command.name.startswith(b"UID ") else b"FETCH %d"
    doomed = [message.uid for message in await source.messages(verb % number)]
    if not doomed:
        raise Refusal(Code.NONEXISTENT, "The message to be replaced does not exist")
    entry = await find_target(dialogue, mailbox, command, Patience(dialogue, MAIL_AT_HAND_S))
    upstream = await dialogue.upstream(entry.server)
    incoming = _Incoming(dialogue, command, upstream)
    reply = await incoming.to_target(b" APPEND " + client_astring(mailbox), rest_at)
    if not reply.is_ok:
        dialogue.send(under_tag(command, reply))
        return
    removal = Removal()
    is_exact = bool(selected.upstream.capabilities & {REMOVES, CLAIMS})
    if REMOVES in selected.upstream.capabilities:
        await remove_exactly(dialogue, selected.upstream, source, doomed, removal)
    elif is_exact:
        await remove_claimed(dialogue, selected, doomed, removal)
    if is_exact and not removal.removed:
        await _take_back(dialogue, entry.server, mailbox, reply)
        dialogue.send(b"".join(removal.news))
        gone = Refusal(Code.NONEXISTENT, "Another session has removed it meanwhile")
        raise removal.refusal or gone
    dialogue.send(status_line(b"*", b"OK", "Replaced", reply.code) + b"".join(removal.news))
    if not is_exact:
        removal.code = await remove(dialogue, selected.upstream, doomed)
    dialogue.send_ok(command, code=removal.code)


async def _take_back(dialogue: FrontendImap, server: str, mailbox: bytes, appended: Reply) -> None:
    """The new message, where the old one has been removed by another session: else it would be there twice."""
    uids = parse_appenduid(appended.code)[1] if appended.code[:9].upper() == b"APPENDUID" else []
    await take_back(dialogue, server, client_astring(mailbox), uids)


def _selected(dialogue: FrontendImap) -> Selected:
    if dialogue.selected is None:
        raise Refusal(Code.CLOSED, "The backend of the selected mailbox has gone")
    return dialogue.selected


class _Incoming:
    """An APPEND as it comes in from the client. The backend's answer is passed on only behind all of it."""

    def __init__(self, dialogue: FrontendImap, command: Command, upstream: ImapUpstream) -> None:
        self._dialogue = dialogue
        self._command = command
        self._upstream = upstream
        self._announced = command.literal  # not answered yet
        self._texts = Texts(dialogue, upstream.server)
        self._catenates = False

    async def to_target(self, head: bytes, rest_at: int) -> Reply:
        """Send `head` (from the SP behind the tag) and all of the command behind `rest_at`. Raises Refusal with the stream
        left behind the command, UpstreamFailure."""
        self._check_size(self._announced)
        tag = self._upstream.next_tag()
        reply = await self._upstream.stream(
            tag,
            self._pieces(tag + non_synchronising(head), rest_at),
            untagged=all_passing(self._dialogue),
        )
        if reply.code[:7].upper() == b"BADURL ":
            texts, url = self._texts, reply.code[7:]
            if texts.refusal is not None:
                raise texts.refusal
            if url in texts.written:
                written = texts.written[url].decode("ascii", "replace")
                raise Refusal(Code.BAD_URL, reply.text, written)
        return reply

    def _check_size(self, literal: Literal | None) -> None:
        most = self._dialogue.frontend.config.max_message_bytes
        if literal is not None and literal.size > most:
            raise Refusal(Code.TOO_BIG, f"A message may have {most} octets")

    async def _pieces(self, head: bytes, rest_at: int) -> AsyncIterator[bytes]:
        """All of it, as it goes to the backend. Raises Refusal for a further message that is too big."""
        yield head
        async for octets in self._segment(self._command.octets[rest_at:]):
            yield octets
        while self._announced is not None:
            announced, self._announced = self._announced, None
            async for octets in self._literal(announced):
                yield octets
            rest = await self._next()
            if not isinstance(rest, CommandRest):
                raise Misuse(f"the rest of a command was expected, not {type(rest).__name__}")
            self._announced = rest.literal
            try:
                self._check_size(rest.literal)
            except Refusal:
                self._refuse()
                raise
            async for octets in self._segment(rest.octets):
                yield octets

    async def _segment(self, octets: bytes) -> AsyncIterator[bytes]:
        """What stands between streamed literals."""
        octets = non_synchronising(octets)
        if self._catenates or WORD in octets.upper():
            self._catenates = True
            async for piece in self._texts.through(octets, 0):
                yield piece
        else:
            self._texts.passed()
            yield octets

    async def _literal(self, literal: Literal) -> AsyncIterator[bytes]:
        owed = self._dialogue.session.accept_literal(literal)
        if owed:
            self._dialogue.send(owed)
        last = False
        while not last:
            chunk = await self._next()
            if not isinstance(chunk, Chunk):
                raise Misuse(f"a literal's octets were expected, not {type(chunk).__name__}")
            last = chunk.last
            yield chunk.data

    async def _next(self) -> object:
        return await self._dialogue.next_event(self._dialogue.service.limits.command_timeout_s)

    def _refuse(self) -> None:
        """Leave the stream behind the command."""
        if self._announced is not None:
            announced, self._announced = self._announced, None
            self._dialogue.session.refuse_literal(announced)
