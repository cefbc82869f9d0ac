"""IMAP, as a proxy speaks it that passes on a whole session: ID with the client's address, AUTHENTICATE or LOGIN, and the
server's capabilities for the client."""

import re
from collections.abc import Callable
from typing import Final

from murder.errors import Code, UpstreamFailure, UpstreamKind
from murder.model.protocol import IMAP
from murder.net.outgoing.lines import LineUpstream
from murder.net.outgoing.proving import Proof, cure_of
from murder.net.outgoing.upstream import Upstreams
from murder.roles.frontend.multiplexor.speech import Offers, Speech, Visitor, Welcome, shown
from murder.wire.imap.id import PIPE_FIELD
from murder.wire.imap.response import bye
from murder.wire.token import quoted, string

MAX_CHALLENGES: Final = 8
MAX_LINES: Final = 200  # of one answer before or at a login
UNAUTHENTICATE: Final = b"UNAUTHENTICATE"
_CAPABILITY: Final = re.compile(rb"(?i)(?:\[|\* )CAPABILITY ([^\]]*)")
_TEMPORARY: Final = re.compile(rb"(?i)\[(?:UNAVAILABLE|INUSE|LIMIT|SERVERBUG)")


async def _begin_imap(upstreams: Upstreams, upstream: LineUpstream, known: Offers | None) -> Offers:
    greeting = await upstream.line()
    if greeting[:5].upper() != b"* OK ":
        kind = UpstreamKind.LOST
        if not greeting.startswith((b"* BYE", b"* NO")):
            kind = UpstreamKind.PROTOCOL
        raise upstream.failure(kind, f"it greets with {shown(greeting)}")
    words = words_in(greeting)
    if upstream.address.tls == "starttls":
        upstream.send(b"s STARTTLS\r\n")
        answer = (await _answer(upstream, b"s"))[-1]
        if answer[:4].upper() != b"S OK":
            raise upstream.failure(UpstreamKind.TLS, "it refuses STARTTLS")
        await upstream.starttls(upstreams)
        words = known.words if known is not None else frozenset()
    if not words:
        words = await _ask_capabilities(upstream)
    return known if known is not None and known.words == words else Offers(words)


async def _log_in_imap(
    upstreams: Upstreams, upstream: LineUpstream, visitor: Visitor, offers: Offers
) -> Welcome:
    words = offers.words
    client_id = b""
    if visitor.facts and b"ID" in words:
        # addresses, numbers, and a cid: nothing that needs more than quotes
        fields = " ".join([f'"{name}" "{value}"' for name, value in visitor.facts])
        client_id = f'i ID ({fields} "{PIPE_FIELD}" "1")\r\n'.encode()
    if visitor.password is not None and b"AUTH=PLAIN" not in words:
        await _say_login(upstream, visitor, client_id)
        answer, cure = await _answer(upstream, b"a"), ""
    else:
        proof = visitor.proof(upstreams, upstream)
        answer, cure = await _authenticate(upstream, proof, words, client_id), proof.cure
    if answer[-1][:4].upper() != b"A OK":
        raise refused(upstream.failure, answer[-1], cure)
    after = next((of_line for line in reversed(answer) if (of_line := words_in(line))), None)
    line = answer[-1].partition(b" ")[2]
    if after is None:
        after = await _ask_capabilities(upstream)
        line = b"OK [CAPABILITY " + b" ".join(sorted(after)) + b"] Logged in"
    return Welcome(line, UNAUTHENTICATE in after)


async def _authenticate(
    upstream: LineUpstream, proof: Proof, words: frozenset[bytes], client_id: bytes
) -> list[bytes]:
    """`told` goes before it. The lines of the last answer."""
    first = proof.first
    late = b"" if b"SASL-IR" in words else first
    upstream.send(
        b"%sa AUTHENTICATE %s%s\r\n" % (client_id, proof.mechanism, b"" if late else first)
    )
    for _ in range(MAX_CHALLENGES):
        lines = await _answer(upstream, b"a", goes_on=True)
        if not lines[-1].startswith(b"+"):
            return lines
        if late:
            response, late = (b"" if late == b" =" else late[1:]), b""
        else:
            try:
                response = await proof.reply(lines[-1][1:])
            except ValueError:
                text = "a challenge that is not base64"
                raise upstream.failure(UpstreamKind.PROTOCOL, text) from None
        upstream.send(response + b"\r\n")
    raise upstream.failure(UpstreamKind.PROTOCOL, "an endless login")


async def _say_login(upstream: LineUpstream, visitor: Visitor, client_id: bytes) -> None:
    """LOGIN, where there is no AUTHENTICATE PLAIN; what cannot be quoted waits for the server's go-ahead."""
    said = client_id + b"a LOGIN"
    for word in (visitor.user.encode("utf-8", "surrogateescape"), visitor.password or b""):
        if string(word).startswith(b'"'):
            said += b" " + quoted(word)
            continue
        upstream.send(said + b" {%d}\r\n" % len(word))
        lines = await _answer(upstream, b"a", goes_on=True)
        if not lines[-1].startswith(b"+"):
            raise refused(upstream.failure, lines[-1])
        said = word
    upstream.send(said + b"\r\n")


async def _ask_capabilities(upstream: LineUpstream) -> frozenset[bytes]:
    upstream.send(b"c CAPABILITY\r\n")
    lines = await _answer(upstream, b"c")
    words = frozenset[bytes]().union(*map(words_in, lines))
    if not words:
        raise upstream.failure(UpstreamKind.PROTOCOL, "it tells no capabilities")
    return words


async def _answer(upstream: LineUpstream, tag: bytes, *, goes_on: bool = False) -> list[bytes]:
    """Up to the line with this tag, or (`goes_on`) one that asks for more."""
    lines: list[bytes] = []
    begin = tag.upper() + b" "
    while len(lines) < MAX_LINES:
        line = await upstream.line()
        lines.append(line)
        if line[: len(begin)].upper() == begin or (goes_on and line.startswith(b"+")):
            return lines
        if line[:5].upper() == b"* BYE":
            raise upstream.failure(UpstreamKind.AUTH_TEMPORARY, f"it says {shown(line)}")
    raise upstream.failure(UpstreamKind.PROTOCOL, "an endless answer")


def words_in(line: bytes) -> frozenset[bytes]:
    """The capabilities that a line tells; none where it tells nothing of them."""
    match = _CAPABILITY.search(line)
    return frozenset(match[1].upper().split()) if match is not None else frozenset()


def refused(
    failure: Callable[[UpstreamKind, str, str], UpstreamFailure], line: bytes, cure: str = ""
) -> UpstreamFailure:
    """Why somebody is not let in, by the line that says so; `cure` is that of the proof."""
    kind = UpstreamKind.AUTH_TEMPORARY if _TEMPORARY.search(line) else UpstreamKind.AUTH
    return failure(kind, f"it does not let the user in: {shown(line)}", cure_of(cure, line))


def _bye_of_imap(text: str, code: Code) -> bytes:
    return bye(text, code.value.encode())


IMAP_SPEECH: Final = Speech(IMAP, _begin_imap, _log_in_imap, _bye_of_imap)
