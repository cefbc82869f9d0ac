"""ManageSieve as a client speaks it: greeting, TLS, login, and whole answers (RFC 5804).

Everything raises UpstreamFailure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from murder.errors import UpstreamKind
from murder.net.outgoing.lines import LineUpstream
from murder.net.outgoing.proving import Proof
from murder.net.outgoing.upstream import Upstreams
from murder.wire.managesieve import (
    Kind,
    Status,
    client_string,
    format_string,
    parse_capability,
    parse_status,
    parse_status_text,
)

MAX_CAPABILITIES: Final = 100
MAX_SHOWN: Final = 4096  # octets of one
MAX_CHALLENGE: Final = 128 * 1024  # octets: a ticket with all groups of a user has 64 KiB at most
MAX_LINES: Final = 10_000  # of one answer
ANNOUNCED: Final = re.compile(rb"\{(0|[1-9][0-9]{0,9})\+?\}\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a command, its text, and the lines before it, literals in place."""

    status: Status
    text: str
    lines: tuple[bytes, ...] = ()


async def begin(upstreams: Upstreams, upstream: LineUpstream) -> Mapping[bytes, bytes]:
    """Greeting, TLS; returns the capabilities."""
    capabilities = await _hear_capabilities(upstream)
    if upstream.address.tls == "starttls":
        upstream.send(b"STARTTLS\r\n")
        if (await _status(upstream)).kind is not Kind.OK:
            raise upstream.failure(UpstreamKind.TLS, "it refuses STARTTLS")
        await upstream.starttls(upstreams)
        capabilities = await _hear_capabilities(upstream)
    return capabilities


async def _hear_capabilities(upstream: LineUpstream) -> Mapping[bytes, bytes]:
    capabilities: dict[bytes, bytes] = {}
    for _ in range(MAX_CAPABILITIES + 1):  # one may come again and again
        line = await upstream.line()
        status = parse_status(line + b"\r\n")
        if status is not None:
            if status.kind is not Kind.OK:
                raise upstream.failure(UpstreamKind.PROTOCOL, "it greets with an error")
            return capabilities
        row = parse_capability(line)
        if row is None or len(row[1]) > MAX_SHOWN:
            raise upstream.failure(
                UpstreamKind.PROTOCOL, "it sends a line that is not a capability"
            )
        capabilities[row[0]] = row[1]
    text = f"it offers more than {MAX_CAPABILITIES} capabilities"
    raise upstream.failure(UpstreamKind.PROTOCOL, text)


async def tell(upstream: LineUpstream, command: bytes) -> None:
    """A command of which nothing is wanted, whatever comes of it."""
    upstream.send(command)
    await _status(upstream)


async def enter(upstream: LineUpstream, proof: Proof) -> None:
    """Log in."""
    first = b" " + client_string(proof.first[1:]) if proof.first else b""
    upstream.send(b"AUTHENTICATE %b%b\r\n" % (format_string(proof.mechanism), first))
    status = await _status(upstream, proof)
    if status.kind is not Kind.OK:
        kind = UpstreamKind.AUTH_TEMPORARY if status.code == b"TRYLATER" else UpstreamKind.AUTH
        raise upstream.failure(kind, "it does not let the user in", proof.cure)


async def _status(upstream: LineUpstream, proof: Proof | None = None) -> Status:
    """How its answer ends; all before that is passed over, challenges are answered."""
    for _ in range(MAX_CAPABILITIES):
        line = await upstream.line()
        if proof is not None and proof.answer is not None and line[:1] in (b'"', b"{"):
            challenge = await _challenge(upstream, line)
            try:
                response = await proof.reply(challenge)
            except ValueError:
                text = "a challenge that is not base64"
                raise upstream.failure(UpstreamKind.PROTOCOL, text) from None
            upstream.send(client_string(response) + b"\r\n")
            continue
        status = parse_status(line + b"\r\n")
        while (announced := ANNOUNCED.search(line)) is not None:
            left = int(announced[1])
            if left > MAX_SHOWN:
                break
            while left:
                left -= len(await upstream.octets(left))
            line = await upstream.line()
        if status is not None:
            return status
    raise upstream.failure(UpstreamKind.PROTOCOL, "an endless answer")


async def _challenge(upstream: LineUpstream, line: bytes) -> bytes:
    """The one string of a line."""
    announced = ANNOUNCED.search(line)
    if announced is None:
        return line.strip(b'"')
    left = int(announced[1])
    if left > MAX_CHALLENGE:
        raise upstream.failure(UpstreamKind.PROTOCOL, f"a challenge of {left} octets")
    octets = b""
    while len(octets) < left:
        octets += await upstream.octets(left - len(octets))
    await upstream.line()
    return octets


async def execute(upstream: LineUpstream, command: bytes, most: int) -> Answer:
    """One command and all of its answer, which has `most` octets at most."""
    upstream.send(command)
    await upstream.drain()
    lines: list[bytes] = []
    left = most
    for _ in range(MAX_LINES):
        line = await _whole_line(upstream, left)
        left -= len(line)
        status = parse_status(line)
        if status is None:
            lines.append(line)
        elif status.kind is Kind.BYE:
            raise upstream.failure(UpstreamKind.LOST, "it said BYE")
        else:
            return Answer(status, parse_status_text(line), tuple(lines))
    raise upstream.failure(UpstreamKind.PROTOCOL, "an endless answer")


async def _whole_line(upstream: LineUpstream, most: int) -> bytes:
    """With the literals in it."""
    parts = [await upstream.line()]
    held = len(parts[0])
    while (announced := ANNOUNCED.search(parts[-1])) is not None:
        left = int(announced[1])
        held += left
        if held > most:
            raise upstream.failure(UpstreamKind.PROTOCOL, f"an answer of more than {most} octets")
        parts.append(b"\r\n")
        while left:
            piece = await upstream.octets(left)
            parts.append(piece)
            left -= len(piece)
        parts.append(await upstream.line())
    if held > most:
        raise upstream.failure(UpstreamKind.PROTOCOL, f"an answer of more than {most} octets")
    return b"".join(parts) + b"\r\n"
