"""What a peer wants to change in the master's list, as values: who says it, which row, what it should become.

Made from a command when it comes (RFC 3656 §4); what a peer may not say at all is refused here, what depends on the list is
decided by `owner.decide`. A proposal can be decided again and again: by another master, or after a commit that was lost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from murder.errors import Code, Refusal
from murder.model.entry import EntryState, MailboxEntry, parse_short_location
from murder.model.name import MailboxName
from murder.roles.mupdate.commits.bounds import Bounds
from murder.roles.mupdate.database.transaction import check_octets
from murder.wire.mupdate import Command, Verb


@dataclass(frozen=True, slots=True)
class Peer:
    """Who has logged in, and what they may do.

    `servers` are the names that the certificate proves; empty where an account is shared, then `claimed` gathers the
    servers that the peer has spoken for on this connection.
    """

    name: str
    servers: frozenset[str] = frozenset()
    may_write: bool = True
    is_admin: bool = False
    is_bound: bool = True  # by the owner rule; False: the last writer wins, as with Cyrus
    claimed: frozenset[str] = field(default=frozenset())

    def speaks_for(self, server: str) -> bool:
        """Whether the peer may change rows of that server."""
        if self.is_admin or not self.is_bound:
            return True
        if self.servers:
            return server.lower() in self.servers
        return not self.claimed or server in self.claimed

    def claiming(self, server: str) -> "Peer":
        """The peer after having spoken for a server."""
        if server in self.claimed:
            return self
        return replace(self, claimed=self.claimed | {server})


class Reserve(NamedTuple):
    """RFC 3656 §4.9: take a name. `wanted` is the row it should become; `server` the location's."""

    peer: Peer
    wanted: MailboxEntry
    server: str


class Activate(NamedTuple):
    """RFC 3656 §4.1: show it to everybody."""

    peer: Peer
    wanted: MailboxEntry
    server: str


class Deactivate(NamedTuple):
    """RFC 3656 §4.3: back to reserved."""

    peer: Peer
    wanted: MailboxEntry
    server: str


class Force(NamedTuple):
    """Our extension: ACTIVATE, also where the name is active at another server. For administrators."""

    peer: Peer
    wanted: MailboxEntry
    server: str


class Delete(NamedTuple):
    """RFC 3656 §4.4."""

    peer: Peer
    name: MailboxName


Proposal = Reserve | Activate | Deactivate | Force | Delete

_Kind = Callable[[Peer, MailboxEntry, str], Proposal]
# what it becomes, and whether it comes with an access list
_KINDS: Final[Mapping[Verb, tuple[_Kind, EntryState, bool]]] = {
    Verb.RESERVE: (Reserve, EntryState.RESERVED, False),
    Verb.ACTIVATE: (Activate, EntryState.ACTIVE, True),
    Verb.DEACTIVATE: (Deactivate, EntryState.RESERVED, False),
    Verb.FORCE: (Force, EntryState.ACTIVE, True),
}


def proposal_of(command: Command, peer: Peer, bounds: Bounds) -> Proposal:
    """From a RESERVE, ACTIVATE, FORCE, DEACTIVATE or DELETE. Raises Refusal for a row that no list can hold, or a
    location or an access list that this peer may not name."""
    _, verb, args = command
    name = MailboxName(args[0])
    if verb is Verb.DELETE:
        return Delete(peer, name)
    kind, state, has_acl = _KINDS[verb]
    if kind is Force and not peer.is_admin:
        raise Refusal(Code.NO_PERMISSION, "FORCE is for administrators")
    raw_location = args[1]
    raw_acl = args[2] if has_acl else b""
    check_octets(name, raw_location, raw_acl)
    octets = len(raw_acl)  # an identifier has two at least
    if (octets > bounds.acl_octets or octets > 2 * bounds.identifiers) and not peer.is_admin:
        bounds.check_acl(raw_acl)
    server = parse_short_location(raw_location).server
    if not server:
        raise Refusal(Code.CANNOT, "a location begins with a server name")
    if peer.servers and peer.is_bound and server.lower() not in peer.servers:
        raise Refusal(Code.NO_PERMISSION, f"{peer.name} may not speak for the server {server}")
    return kind(peer, MailboxEntry(name, state, raw_location, raw_acl), server)
