"""How a server is entered for a user, in each protocol: greeting, TLS, who the client is, login. One value a protocol.

Everything raises UpstreamFailure: AUTH where the server does not let them in. Nothing is sent behind a login before its
answer.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.protocol import IMAP, ProtocolSpec
from murder.net.lines import LineUpstream
from murder.net.proving import Proof
from murder.net.upstream import Upstreams
from murder.session.sasl import plain_response
from murder.wire.imap.id import PIPE_FIELD
from murder.wire.imap.response import bye
from murder.wire.token import quoted, string

MAX_CHALLENGES: Final = 8
MAX_LINES: Final = 200  # of one answer before or at a login
UNAUTHENTICATE: Final = b"UNAUTHENTICATE"
_CAPABILITY: Final = re.compile(rb"(?i)(?:\[|\* )CAPABILITY ([^\]]*)")
_TEMPORARY: Final = re.compile(rb"(?i)\[(?:UNAVAILABLE|INUSE|LIMIT|SERVERBUG)")


@dataclass(frozen=True, slots=True)
class Visitor:
    """For whom a server is entered. `password` None: as this proxy, for them. `facts` are told to servers that take them,
    by the names that IMAP's ID has for them; empty: nothing is told."""

    user: str
    password: bytes | None
    facts: tuple[tuple[str, str], ...] = ()

    def proof(self, upstreams: Upstreams, upstream: LineUpstream) -> Proof:
        """What shows that we may come in for them. Raises UpstreamFailure."""
        address = upstream.address
        if self.password is None:
            return upstreams.proof(address, self.user)
        if not upstream.connection.is_tls and address.tls != "none":
            raise upstream.failure(UpstreamKind.TLS, "no password is sent without TLS")
        return Proof(b"PLAIN", plain_response("", self.user, self.password))


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a server has said when it let somebody in: the rest of its line behind the tag, or the whole line.
    `may_become_another`: it offers to forget who that is, and to let in somebody else."""

    line: bytes
    may_become_another: bool = False


@dataclass(frozen=True, slots=True)
class Offers:
    """What a server told before the login, kept for the next one."""

    words: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """One protocol, as a client speaks it. `begin`: greeting and TLS; it gets what is known of the server's offers, and
    returns what is known then. `bye`: the last words to a client, where it is known to be between two lines."""

    protocol: ProtocolSpec
    begin: Callable[[Upstreams, LineUpstream, Offers | None], Awaitable[Offers]]
    log_in: Callable[[Upstreams, LineUpstream, Visitor, Offers], Awaitable[Welcome]]
    bye: Callable[[str], bytes]


# --- IMAP


async def _begin_imap(upstreams: Upstreams, upstream: LineUpstream, known: Offers | None) -> Offers:
    greeting = await upstream.line()
    if greeting[:5].upper() != b"* OK ":
        kind = UpstreamKind.LOST
        if not greeting.startswith((b"* BYE", b"* NO")):
            kind = UpstreamKind.PROTOCOL
        raise upstream.failure(kind, f"it greets with {_shown(greeting)}")
    words = _words_in(greeting)
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
    told = b""
    if visitor.facts and b"ID" in words:
        pairs = (*visitor.facts, (PIPE_FIELD, "1"))
        fields = b" ".join(string(word.encode()) for pair in pairs for word in pair)
        told = b"i ID (" + fields + b")\r\n"
    if visitor.password is not None and b"AUTH=PLAIN" not in words:
        await _say_login(upstream, visitor, told)
        answer = await _answer(upstream, b"a")
    else:
        answer = await _authenticate(upstream, visitor.proof(upstreams, upstream), words, told)
    if answer[-1][:4].upper() != b"A OK":
        raise _refused(upstream, answer[-1])
    after = next((found for line in reversed(answer) if (found := _words_in(line))), None)
    line = answer[-1].partition(b" ")[2]
    if after is None:
        after = await _ask_capabilities(upstream)
        line = b"OK [CAPABILITY " + b" ".join(sorted(after)) + b"] Logged in"
    return Welcome(line, UNAUTHENTICATE in after)


async def _authenticate(
    upstream: LineUpstream, proof: Proof, words: frozenset[bytes], told: bytes
) -> list[bytes]:
    """`told` goes before it. The lines of the last answer."""
    first = proof.first
    late = b"" if b"SASL-IR" in words else first
    upstream.send(b"%sa AUTHENTICATE %s%s\r\n" % (told, proof.mechanism, b"" if late else first))
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
                text = "a challenge that is no base64"
                raise upstream.failure(UpstreamKind.PROTOCOL, text) from None
        upstream.send(response + b"\r\n")
    raise upstream.failure(UpstreamKind.PROTOCOL, "an endless login")


async def _say_login(upstream: LineUpstream, visitor: Visitor, told: bytes) -> None:
    """LOGIN, where there is no AUTHENTICATE PLAIN; what cannot be quoted waits for the server's go-ahead."""
    said = told + b"a LOGIN"
    for word in (visitor.user.encode("utf-8", "surrogateescape"), visitor.password or b""):
        if string(word).startswith(b'"'):
            said += b" " + quoted(word)
            continue
        upstream.send(said + b" {%d}\r\n" % len(word))
        lines = await _answer(upstream, b"a", goes_on=True)
        if not lines[-1].startswith(b"+"):
            raise _refused(upstream, lines[-1])
        said = word
    upstream.send(said + b"\r\n")


async def _ask_capabilities(upstream: LineUpstream) -> frozenset[bytes]:
    upstream.send(b"c CAPABILITY\r\n")
    lines = await _answer(upstream, b"c")
    found = frozenset[bytes]().union(*map(_words_in, lines))
    if not found:
        raise upstream.failure(UpstreamKind.PROTOCOL, "it tells no capabilities")
    return found


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
            raise upstream.failure(UpstreamKind.AUTH_TEMPORARY, f"it says {_shown(line)}")
    raise upstream.failure(UpstreamKind.PROTOCOL, "an endless answer")


def _words_in(line: bytes) -> frozenset[bytes]:
    found = _CAPABILITY.search(line)
    return frozenset(found[1].upper().split()) if found is not None else frozenset()


def _refused(upstream: LineUpstream, line: bytes) -> UpstreamFailure:
    kind = UpstreamKind.AUTH_TEMPORARY if _TEMPORARY.search(line) else UpstreamKind.AUTH
    return upstream.failure(kind, f"it does not let the user in: {_shown(line)}")


def _shown(line: bytes) -> str:
    return line[:200].decode("utf-8", "backslashreplace")


def _bye_of_imap(text: str) -> bytes:
    return bye(text, b"UNAVAILABLE")


IMAP_SPEECH: Final = Speech(IMAP, _begin_imap, _log_in_imap, _bye_of_imap)
