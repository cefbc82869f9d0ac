"""The owner rule: who may change which row of the master's list.

RFC 3656 §7 lets every authenticated user change everything, and Cyrus lets the last writer win: mail was lost that way.
Here a row that is active at one server is not taken, reserved or removed by another. Who a peer is comes from its
certificate; where Cyrus backends share one account, from the location it names. An administrator may remove or
deactivate anything; to take an active row they must say FORCE, so that nobody does it by mistake.

`decide` looks at one moment of the list and says what is to be done: it changes nothing, and knows nothing of how rows
are kept. Who carries it out (`ledger.carry_out`) does so in the transaction that it has looked into.
"""

import json
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, assert_never

from murder.config import MupdateConfig
from murder.errors import Code, Refusal
from murder.model.entry import MailboxEntry
from murder.model.identity import Login
from murder.model.name import MailboxName, display
from murder.net.tls import PeerCertificate
from murder.roles.mupdate.commits.proposal import (
    Activate,
    Deactivate,
    Delete,
    Force,
    Peer,
    Proposal,
    Reserve,
)
from murder.roles.mupdate.database.change import PutEntry, RemoveEntry


@dataclass(frozen=True, slots=True)
class Taken:
    """An administrator took an active row from its server: done, and told to who reads the log."""

    name: MailboxName
    holder: str
    taker: str


DONE: Final = "done"
Outcome = str | Taken | Refusal
"""The text of the OK, or what was taken, or why not."""


def peer_of(
    config: MupdateConfig, login: Login, mechanism: str, certificate: PeerCertificate | None
) -> Peer:
    """What somebody who has proven themselves may do here. Raises Refusal for a user who has no business here."""
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

    def octets(self, at: float) -> bytes:
        """As it is kept: JSON, with the moment (Unix time)."""
        facts = {
            "holder": self.holder,
            "claimant": self.claimant,
            "peer": self.peer,
            "command": self.command,
            "at": round(at, 3),
        }
        return json.dumps(facts).encode()


class View(Protocol):
    """One moment of the list."""

    def find(self, name: bytes) -> MailboxEntry | None: ...


class Decision(NamedTuple):
    """What is to be told to the peer, what is to be done, and what is to be written down."""

    outcome: Outcome
    change: PutEntry | RemoveEntry | None = None
    conflict: Conflict | None = None


def decide(view: View, proposal: Proposal) -> Decision:
    """What becomes of a proposal at this moment."""
    match proposal:
        case Reserve():
            return _reserve(view, proposal)
        case Activate():
            return against_activation(view, proposal) or Decision(DONE, PutEntry(proposal.wanted))
        case Deactivate():
            return _deactivate(view, proposal)
        case Force():
            return _force(view, proposal)
        case Delete():
            return _delete(view, proposal)
        case _:
            assert_never(proposal)


def _conflict(peer: Peer, row: MailboxEntry, claimant: str, command: str) -> Decision:
    refusal = Refusal(
        Code.IN_USE, f"{display(row.name)} is {row.state.value} at {row.server}", row.server
    )
    conflict = Conflict(row.name, row.server, claimant, peer.name, command)
    return Decision(refusal, conflict=conflict)


def _reserve(view: View, proposal: Reserve) -> Decision:
    """As with Cyrus, the same location may reserve again what it has, reserved or active: a backend that lost its
    mailbox, or a step done twice. Unlike with Cyrus what is active there stays so: clients use it, and only DEACTIVATE
    (a move) takes it out of service."""
    wanted = proposal.wanted
    row = view.find(wanted.name)
    if row is not None and row.raw_location != wanted.raw_location:
        if row.server != proposal.server:
            return _conflict(proposal.peer, row, proposal.server, "RESERVE")
        if row.is_active:
            return Decision(Refusal(Code.ALREADY_EXISTS, "mailbox already exists"))
    elif row is not None and row.is_active:
        return Decision(DONE)
    return Decision(DONE, PutEntry(wanted))


def against_activation(view: View, proposal: Activate) -> Decision | None:
    """What stands in the way of it; mostly nothing, and this is the hot path. No reservation is needed. A move passes
    through RESERVED (DEACTIVATE at the source), so a reserved row may become active at another server; an active one may
    not."""
    peer, wanted, server = proposal
    row = view.find(wanted.name)
    if row is not None and peer.is_bound and row.is_active and row.server != server:
        return _conflict(peer, row, server, "ACTIVATE")
    return None


def _force(view: View, proposal: Force) -> Decision:
    """Written down where it takes something from another server."""
    peer, wanted, server = proposal
    row = view.find(wanted.name)
    if row is None or not row.is_active or row.server == server:
        return Decision(DONE, PutEntry(wanted))
    taken = Taken(row.name, row.server, server)
    conflict = Conflict(row.name, row.server, server, peer.name, "FORCE")
    return Decision(taken, PutEntry(wanted), conflict)


def _deactivate(view: View, proposal: Deactivate) -> Decision:
    """NO unless it is active."""
    peer, wanted, server = proposal
    row = view.find(wanted.name)
    if row is None or not row.is_active:
        return Decision(Refusal(Code.NONEXISTENT, "mailbox not currently active"))
    if row.server != server and not (peer.is_admin or not peer.is_bound):
        return _conflict(peer, row, server, "DEACTIVATE")
    return Decision(DONE, PutEntry(wanted))


def _delete(view: View, proposal: Delete) -> Decision:
    """ "SHOULD give a NO response if the mailbox does not exist"."""
    peer, name = proposal
    row = view.find(name)
    if row is None:
        return Decision(Refusal(Code.NONEXISTENT, "mailbox does not exist"))
    if not peer.speaks_for(row.server):
        return _conflict(peer, row, min(peer.servers or peer.claimed), "DELETE")
    return Decision(DONE, RemoveEntry(name))
