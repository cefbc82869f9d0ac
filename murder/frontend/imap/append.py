"""APPEND of any size: a small one is relayed whole, a large one streams to its backend as it comes in (RFC 3501 §6.3.11).

Memory is bounded by the connections' own limits: octets are taken from the client only as fast as the backend takes them.
"""

from murder.errors import Code, Misuse, Refusal, UpstreamFailure
from murder.frontend.imap.dialogue import FrontendImap
from murder.login.imap import Running
from murder.model.entry import MailboxEntry
from murder.net.relay import ImapUpstream
from murder.session.imap_client import non_synchronising
from murder.session.imap_server import CommandRest
from murder.wire.fragment import Chunk, Literal
from murder.wire.imap.command import Command
from murder.wire.token import Scanner


def run_append(dialogue: FrontendImap, command: Command) -> Running:
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    return _append(dialogue, command, scanner.astring())


async def find_target(dialogue: FrontendImap, external: bytes) -> MailboxEntry:
    """The mailbox that mail shall be put into: TRYCREATE where there is none (RFC 3501 §7.1)."""
    name = dialogue.name_of(external)
    try:
        return await dialogue.find(name)
    except Refusal as refusal:
        if refusal.code is Code.NONEXISTENT:
            raise Refusal(Code.TRY_CREATE, refusal.text) from refusal
        raise


async def _append(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    entry = await find_target(dialogue, external)
    if command.literal is None:
        await dialogue.relay_at(entry.server, command)
        return
    limit = dialogue.frontend.config.max_message_bytes
    if command.literal.size > limit:
        raise Refusal(Code.TOO_BIG, f"A message may have {limit} octets")
    upstream = await dialogue.upstream(entry.server)
    upstream.write(non_synchronising(command.octets))
    await _stream(dialogue, upstream, command.literal)
    await upstream.relayed(command.tag)


async def _stream(dialogue: FrontendImap, upstream: ImapUpstream, literal: Literal) -> None:
    """The literal and all behind it. A backend that goes in the middle is found when its answer is waited for: until
    then the client's octets are taken and thrown away, so that the session lives on."""
    timeout_s = dialogue.service.limits.command_timeout_s
    announced: Literal | None = literal
    while announced is not None:
        owed = dialogue.session.accept_literal(announced)
        if owed:
            dialogue.send(owed)
        last = False
        while not last:
            chunk = await dialogue.next_event(timeout_s)
            if not isinstance(chunk, Chunk):
                raise Misuse(f"a literal's octets were expected, not {type(chunk).__name__}")
            last = chunk.last
            await _pass(upstream, chunk.data)
        rest = await dialogue.next_event(timeout_s)
        if not isinstance(rest, CommandRest):
            raise Misuse(f"the rest of a command was expected, not {type(rest).__name__}")
        await _pass(upstream, non_synchronising(rest.octets))
        announced = rest.literal


async def _pass(upstream: ImapUpstream, octets: bytes) -> None:
    if upstream.is_lost:
        return
    upstream.write(octets)
    try:
        await upstream.drain()
    except UpstreamFailure:
        return  # `relayed` tells
