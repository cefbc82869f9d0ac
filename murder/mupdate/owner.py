"""The owner rule: who may change which row of the master's list.

RFC 3656 §7 lets every authenticated user change everything, and Cyrus lets the last writer win: mail was lost that way.
Here a row that is active at one server is not taken, reserved or removed by another. Who a peer is comes from its
certificate; where Cyrus backends share one account, from the location it names. An administrator may remove or
deactivate anything; to take an active row he must say FORCE, so that nobody does it by mistake.

Decisions are made inside the transaction that carries them out (`ledger.Proposal`).
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from murder.config import MupdateConfig
from murder.errors import Code, Refusal
from murder.login.gate import Login
from murder.model.entry import EntryState, Location, MailboxEntry, parse_location
from murder.model.name import MailboxName, collation_key, display
from murder.mupdate.record import ACTIVE, FLAGS_AT, pack_row, server_of_row, unpack_entry
from murder.mupdate.transaction import ListTransaction, check_octets, check_row
from murder.net.tls import PeerCertificate
from murder.wire.mupdate import Command, Verb


@dataclass(frozen=True, slots=True)
class Taken:
    """An administrator took an active row from its server: done, and told to who reads the log."""

    name: MailboxName
    holder: str
    taker: str


Outcome = str | Taken | Refusal
"""The text of the OK, or what was taken, or why not."""


@dataclass(slots=True)
class Peer:
    """Who has logged in, and what he may do.

    `servers` are the names his certificate proves; empty where an account is shared, then `claimed` gathers the
    servers he has spoken for on this connection.
    """

    name: str
    servers: frozenset[str] = frozenset()
    may_write: bool = True
    is_admin: bool = False
    is_bound: bool = True  # by the owner rule; False: the last writer wins, as with Cyrus
    claimed: set[str] = field(default_factory=set)

    def speaks_for(self, server: str) -> bool:
        """Whether he may change rows of that server."""
        if self.is_admin or not self.is_bound:
            return True
        if self.servers:
            return server.lower() in self.servers
        return not self.claimed or server in self.claimed


def peer_of(
    config: MupdateConfig, login: Login, mechanism: str, certificate: PeerCertificate | None
) -> Peer:
    """What somebody who has proven himself may do here. Raises Refusal for a user who has no business here."""
    is_bound = config.ownership == "owner"
    if mechanism == "EXTERNAL" and certificate is not None:
        if login.user.lower() not in certificate.names:
            raise Refusal(Code.AUTHORIZATION_FAILED, f"{certificate.name} speaks for itself only")
        if "operator" in certificate.roles:
            return Peer(login.user, is_admin=True, is_bound=is_bound)
        may_write = "backend" in certificate.roles
        return Peer(login.user, frozenset(certificate.names), may_write, is_bound=is_bound)
    if login.is_admin:
        return Peer(login.user, is_admin=True, is_bound=is_bound)
    if login.user in config.users:
        return Peer(login.user, is_bound=is_bound)
    raise Refusal(
        Code.AUTHORIZATION_FAILED,
        f"{login.user} is neither in mupdate.users nor in mupdate.admins",
    )


@dataclass(frozen=True, slots=True)
class Conflict:
    """Somebody wanted what is another's: written down, for `murder ctl list conflicts`."""

    name: MailboxName
    holder: str
    claimant: str
    peer: str
    command: str
    at: float

    def __bytes__(self) -> bytes:
        facts = {
            "holder": self.holder,
            "claimant": self.claimant,
            "peer": self.peer,
            "command": self.command,
            "at": round(self.at, 3),
        }
        return json.dumps(facts).encode()


def proposal_of(command: Command, peer: Peer) -> Callable[[ListTransaction], Outcome]:
    """What a RESERVE, ACTIVATE, FORCE, DEACTIVATE or DELETE of this peer does to the list."""
    name = MailboxName(command.args[0])
    if command.verb is Verb.DELETE:
        return lambda transaction: _delete(transaction, peer, name)
    raw_location = command.args[1]
    if command.verb is Verb.ACTIVATE:
        return partial(_activate, peer, name, raw_location, command.args[2])
    location = parse_location(raw_location)
    if command.verb is Verb.FORCE:
        entry = MailboxEntry(name, EntryState.ACTIVE, raw_location, command.args[2])
        return lambda transaction: _force(transaction, peer, entry, location)
    entry = MailboxEntry(name, EntryState.RESERVED, raw_location)
    if command.verb is Verb.RESERVE:
        return lambda transaction: _reserve(transaction, peer, entry, location)
    return lambda transaction: _deactivate(transaction, peer, entry, location)


def _write_down(
    transaction: ListTransaction, peer: Peer, found: MailboxEntry, claimant: str, verb: Verb
) -> None:
    conflict = Conflict(found.name, found.server, claimant, peer.name, verb.name, time.time())
    transaction.put_conflict(found.name, bytes(conflict))


def _conflict(
    transaction: ListTransaction, peer: Peer, found: MailboxEntry, claimant: str, verb: Verb
) -> Refusal:
    _write_down(transaction, peer, found, claimant, verb)
    return Refusal(
        Code.IN_USE, f"{display(found.name)} is {found.state.value} at {found.server}", found.server
    )


def _check_location(peer: Peer, location: Location) -> None:
    """A node that has shown a certificate names its own server only."""
    if not location.server:
        raise Refusal(Code.CANNOT, "a location begins with a server name")
    if peer.is_bound and peer.servers and location.server.lower() not in peer.servers:
        raise Refusal(
            Code.NO_PERMISSION, f"{peer.name} may not speak for the server {location.server}"
        )
    peer.claimed.add(location.server)


def _reserve(
    transaction: ListTransaction, peer: Peer, entry: MailboxEntry, location: Location
) -> Outcome:
    """RFC 3656 §4.9. As with Cyrus, the same location may reserve again what it has, reserved or active: a backend
    that lost its mailbox, or a step done twice. Unlike with Cyrus what is active there stays so: clients use it, and only
    DEACTIVATE (a move) takes it out of service."""
    check_row(entry)
    _check_location(peer, location)
    found = transaction.find(entry.name)
    if found is not None and found.raw_location != entry.raw_location:
        if found.server != location.server:
            return _conflict(transaction, peer, found, location.server, Verb.RESERVE)
        if found.is_active:
            return Refusal(Code.ALREADY_EXISTS, "mailbox already exists")
    elif found is not None and found.is_active:
        return "done"
    transaction.put(entry)
    return "done"


def _activate(
    peer: Peer, name: MailboxName, raw_location: bytes, raw_acl: bytes, transaction: ListTransaction
) -> Outcome:
    """RFC 3656 §4.1: no reservation is needed. A move passes through RESERVED (DEACTIVATE at the source), so a
    reserved row may become active at another server; an active one may not. The hot path: one look-up, one write."""
    check_octets(name, raw_location, raw_acl)
    location = parse_location(raw_location)
    _check_location(peer, location)
    key = collation_key(name)
    old = transaction.row(key)
    if old is not None and peer.is_bound and old[FLAGS_AT] & ACTIVE:
        if server_of_row(old) != raw_location.partition(b"!")[0]:
            return _conflict(
                transaction, peer, unpack_entry(key, old), location.server, Verb.ACTIVATE
            )
    transaction.replace_row(key, old, pack_row(name, EntryState.ACTIVE, raw_location, raw_acl))
    return "done"


def _force(
    transaction: ListTransaction, peer: Peer, entry: MailboxEntry, location: Location
) -> Outcome:
    """Our extension: ACTIVATE, also where it is active at another server; for administrators, and written down."""
    if not peer.is_admin:
        return Refusal(Code.NO_PERMISSION, "FORCE is for administrators")
    check_row(entry)
    _check_location(peer, location)
    found = transaction.find(entry.name)
    transaction.put(entry)
    if found is None or not found.is_active or found.server == location.server:
        return "done"
    _write_down(transaction, peer, found, location.server, Verb.FORCE)
    return Taken(found.name, found.server, location.server)


def _deactivate(
    transaction: ListTransaction, peer: Peer, entry: MailboxEntry, location: Location
) -> Outcome:
    """RFC 3656 §4.3: NO unless it is active."""
    check_row(entry)
    _check_location(peer, location)
    found = transaction.find(entry.name)
    if found is None or not found.is_active:
        return Refusal(Code.NONEXISTENT, "mailbox not currently active")
    if found.server != location.server and not (peer.is_admin or not peer.is_bound):
        return _conflict(transaction, peer, found, location.server, Verb.DEACTIVATE)
    transaction.put(entry)
    return "done"


def _delete(transaction: ListTransaction, peer: Peer, name: MailboxName) -> Outcome:
    """RFC 3656 §4.4: "SHOULD give a NO response if the mailbox does not exist"."""
    found = transaction.find(name)
    if found is None:
        return Refusal(Code.NONEXISTENT, "mailbox does not exist")
    if not peer.speaks_for(found.server):
        claimant = min(peer.servers or peer.claimed)
        return _conflict(transaction, peer, found, claimant, Verb.DELETE)
    transaction.remove(name)
    return "done"
