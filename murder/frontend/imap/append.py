"""APPEND of any size: a small one is relayed whole, a large one streams to its backend as it comes in (RFC 3501 §6.3.11).

Memory is bounded by the connections' own limits: octets are taken from the client only as fast as the backend takes them.
"""

from collections.abc import AsyncIterator

from murder.errors import Code, Misuse, Refusal
from murder.frontend.imap.dialogue import FrontendImap
from murder.frontend.imap.own import passing, under_tag
from murder.frontend.imap.refer import find_or_refer
from murder.login.imap import Running
from murder.model.entry import MailboxEntry
from murder.session.imap_client import non_synchronising
from murder.session.imap_server import CommandRest
from murder.wire.fragment import Chunk, Literal
from murder.wire.imap.command import Command
from murder.wire.token import Scanner


def run_append(dialogue: FrontendImap, command: Command) -> Running:
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    return _append(dialogue, command, scanner.astring())


async def find_target(dialogue: FrontendImap, external: bytes, command: Command) -> MailboxEntry:
    """The mailbox that mail shall be put into: TRYCREATE where there is none (RFC 3501 §7.1)."""
    name = dialogue.name_of(external)
    try:
        return await find_or_refer(dialogue, name, command)
    except Refusal as refusal:
        if refusal.code is Code.NONEXISTENT:
            raise Refusal(Code.TRY_CREATE, refusal.text) from refusal
        raise


async def _append(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    entry = await find_target(dialogue, external, command)
    if command.literal is None:
        await dialogue.relay_at(entry.server, command)
        return
    if command.literal.size > dialogue.frontend.config.max_message_bytes:
        raise _too_big(dialogue)
    upstream = await dialogue.upstream(entry.server)
    tag = upstream.next_tag()
    incoming = _Incoming(dialogue, command.literal)
    try:
        reply = await upstream.stream(
            tag,
            incoming.pieces(tag + non_synchronising(command.octets)[len(command.tag) :]),
            untagged=passing(dialogue, upstream),
        )
    except Refusal:
        incoming.refuse()
        raise
    dialogue.send(under_tag(command, reply))


def _too_big(dialogue: FrontendImap) -> Refusal:
    return Refusal(
        Code.TOO_BIG, f"A message may have {dialogue.frontend.config.max_message_bytes} octets"
    )


class _Incoming:
    """An APPEND as it comes in from the client. The backend's answer is passed on only behind all of it."""

    def __init__(self, dialogue: FrontendImap, literal: Literal) -> None:
        self._dialogue = dialogue
        self._announced: Literal | None = literal  # not answered yet

    def refuse(self) -> None:
        """Leave the stream behind the command."""
        if self._announced is not None:
            announced, self._announced = self._announced, None
            self._dialogue.session.refuse_literal(announced)

    async def pieces(self, head: bytes) -> AsyncIterator[bytes]:
        """`head` and all behind it, as it goes to the backend. Raises Refusal for a further message that is too big."""
        yield head
        while self._announced is not None:
            announced, self._announced = self._announced, None
            async for octets in self._literal(announced):
                yield octets
            rest = await self._next()
            if not isinstance(rest, CommandRest):
                raise Misuse(f"the rest of a command was expected, not {type(rest).__name__}")
            self._announced = rest.literal
            if (
                rest.literal
                and rest.literal.size > self._dialogue.frontend.config.max_message_bytes
            ):
                raise _too_big(self._dialogue)
            yield non_synchronising(rest.octets)

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
