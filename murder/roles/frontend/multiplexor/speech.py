"""How a server is entered for a user, in each protocol: greeting, TLS, who the client is, login. One value a protocol.

Everything raises UpstreamFailure: AUTH where the server does not let them in. Nothing is sent behind a login before its
answer.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from murder.errors import Code, UpstreamKind
from murder.model.protocol import ProtocolSpec
from murder.net.outgoing.lines import LineUpstream
from murder.net.outgoing.proving import Proof
from murder.net.outgoing.upstream import Upstreams
from murder.roles.frontend.origin import format_xclient
from murder.session.sasl import plain_response
from murder.wire.imap.id import HOPS_FIELD, ORIGIN_FIELD, PORT_FIELD, SESSION_FIELD


@dataclass(frozen=True, slots=True)
class Visitor:
    """For whom a server is entered. `password` None: as this proxy, for them. `facts` are told to servers that take them,
    by the names that IMAP's ID has for them; empty: nothing is told. `utf8`: the client has said so (POP3, RFC 6856)."""

    user: str
    password: bytes | None
    facts: tuple[tuple[str, str], ...] = ()
    utf8: bool = False

    def xclient(self) -> bytes:
        """The facts as XCLIENT."""
        facts = dict(self.facts)
        return format_xclient(
            *(facts[name] for name in (ORIGIN_FIELD, PORT_FIELD, SESSION_FIELD, HOPS_FIELD))
        )

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
    bye: Callable[[str, Code], bytes]


def shown(line: bytes) -> str:
    """What a server said, for a log."""
    return line[:200].decode("utf-8", "backslashreplace")
