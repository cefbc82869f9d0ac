"""Commands of a frontend's own at a backend, on behalf of a client: what is news to it passes, the answer is ours."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.net.outgoing.exchange import MAX_COLLECTED, RESPONSE_OCTETS, Into, Reply
from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.session.imap_client import non_synchronising
from murder.wire.imap.command import Command
from murder.wire.imap.response import LASTS

_CODES: Final[Mapping[str, Code]] = {code.value: code for code in Code if code.value}
NEWS: Final = (b"STATUS", b"LIST", b"METADATA")  # of mailboxes that are watched (NOTIFY)
Taker = Callable[[bytes], bool]
_TAG: Final = re.compile(rb'\A(\* OK \[INPROGRESS \()"(?:[^"\\]++|\\.)*+" ')


def passing(
    dialogue: FrontendImap, upstream: ImapUpstream, take: Taker | None = None
) -> Callable[[bytes], None]:
    """For `untagged`: what `take` does not want is the news of the selected mailbox, or that a command lasts, and passes
    to the client."""

    def untagged(response: bytes) -> None:
        if take is not None and take(response):
            return
        selected = dialogue.selected
        is_selected = selected is not None and selected.upstream is upstream
        is_news = dialogue.is_watching and response[2:].split(b" ", 1)[0].upper() in NEWS
        if response.startswith(LASTS):
            dialogue.send(_TAG.sub(rb"\1NIL ", response, 1))  # it is ours, not the client's
        elif (is_selected or is_news) and not response.startswith(b"* BYE"):
            dialogue.send(response)

    return untagged


def all_passing(dialogue: FrontendImap) -> Callable[[bytes], None]:
    """For `untagged` of a client's own command: whatever the backend says, a warning of quota too."""

    def untagged(response: bytes) -> None:
        if not response.startswith(b"* BYE"):
            dialogue.send(response)

    return untagged


async def as_it_came(dialogue: FrontendImap, upstream: ImapUpstream, command: Command) -> Reply:
    """A client's command under its own tag, the tagged answer held back. Raises UpstreamFailure."""
    upstream.write(non_synchronising(command.octets))
    return await upstream.answer(command.tag, all_passing(dialogue))


async def execute(
    dialogue: FrontendImap,
    upstream: ImapUpstream,
    octets: bytes,
    take: Taker | None = None,
    into: Into = None,
) -> Reply:
    """An own command, without tag and line end. Raises UpstreamFailure."""
    return await upstream.execute(octets, untagged=passing(dialogue, upstream, take), into=into)


async def collect(
    dialogue: FrontendImap, upstream: ImapUpstream, octets: bytes, *words: bytes
) -> list[bytes]:
    """The untagged answers of these kinds (upper case) to an own command. Raises Refusal, UpstreamFailure."""
    responses: list[bytes] = []
    octets_left = MAX_COLLECTED

    def take(response: bytes) -> bool:
        nonlocal octets_left
        if response[2:].split(b" ", 1)[0].upper() not in words:
            return False
        octets_left -= len(response) + RESPONSE_OCTETS
        if octets_left < 0:
            raise BadSyntax(f"an answer of more than {MAX_COLLECTED} octets")
        responses.append(response)
        return True

    reply = await execute(dialogue, upstream, octets, take)
    if not reply.is_ok:
        raise refusal_of(reply)
    return responses


async def hear_offer(dialogue: FrontendImap, server: str) -> None:
    """What a backend offers at this moment. Raises Refusal, UpstreamFailure."""
    upstream = await dialogue.upstream(server)
    for said in await collect(dialogue, upstream, b"CAPABILITY", b"CAPABILITY"):
        words = said.removesuffix(b"\r\n").upper().split()[2:]
        upstream.capabilities = frozenset(words)
        dialogue.frontend.capabilities.learn(server, upstream.capabilities)


async def want_modseqs(dialogue: FrontendImap, server: str) -> None:
    """The client asks for mod-sequences at one backend (or several, of which none is `server`): all others tell them from
    now on, too (RFC 7162 §3.1). One that has gone is told where it is come to again."""
    if dialogue.wants_modseqs:
        return
    dialogue.wants_modseqs = True
    for other, upstream in list(dialogue.upstreams.items()):
        if other != server and not upstream.is_lost:
            with suppress(UpstreamFailure):
                await execute(
                    dialogue, upstream, b"ENABLE CONDSTORE", lambda line: b"ENABLED" in line[:10]
                )


def body_of(command: Command) -> bytes:
    """A command without its tag and line end, its literals not synchronising."""
    octets = non_synchronising(command.octets)
    return octets[len(command.tag) + 1 :].removesuffix(b"\n").removesuffix(b"\r")


def under_tag(command: Command, reply: Reply) -> bytes:
    """The tagged line of an own command, as the client shall see it."""
    return command.tag + b" " + reply.octets.partition(b" ")[2]


def refusal_of(reply: Reply) -> Refusal:
    """What a backend refused, as it said it."""
    word, _, detail = reply.code.decode("ascii", "replace").partition(" ")
    return Refusal(_CODES.get(word.upper(), Code.NONE), reply.text, detail)
