"""The owner rule as a table: what the list shows, who proposes what, and what becomes of it. No list, no disk."""

from collections.abc import Mapping

import pytest

from murder.config import MupdateConfig
from murder.errors import Code, Refusal
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.commits.bounds import bounds_of
from murder.roles.mupdate.commits.owner import Decision, Taken, decide
from murder.roles.mupdate.commits.proposal import Delete, Peer, proposal_of
from murder.roles.mupdate.database.change import PutEntry, RemoveEntry
from murder.wire.mupdate import Command, parse_command

NAME = MailboxName(b"user.ana")
BOUNDS = bounds_of(MupdateConfig())
SHARED = Peer("murder")
BE1 = Peer("be1.test", frozenset({"be1.test"}))
ADMIN = Peer("root", is_admin=True)
UNBOUND = Peer("cyrus", is_bound=False)


class Moment:
    """A list that is a dictionary."""

    def __init__(self, *entries: MailboxEntry) -> None:
        self.rows: Mapping[bytes, MailboxEntry] = {entry.name: entry for entry in entries}

    def find(self, name: bytes) -> MailboxEntry | None:
        return self.rows.get(name)


def row(location: str, *, active: bool = True) -> MailboxEntry:
    state = EntryState.ACTIVE if active else EntryState.RESERVED
    return MailboxEntry(NAME, state, location.encode(), b"ana\tlrs\t" if active else b"")


EMPTY = Moment()
ACTIVE_HERE = Moment(row("be1.test!p"))
RESERVED_HERE = Moment(row("be1.test!p", active=False))
ACTIVE_THERE = Moment(row("be2.test!p"))
RESERVED_THERE = Moment(row("be2.test!p", active=False))


def said(line: str) -> Command:
    return parse_command(line.encode() + b"\r\n")


def decided(view: Moment, peer: Peer, line: str) -> Decision:
    return decide(view, proposal_of(said(line), peer, BOUNDS))


RESERVE = 't RESERVE "user.ana" "be1.test!p"'
ACTIVATE = 't ACTIVATE "user.ana" "be1.test!p" "ana\tlrs\t"'
DEACTIVATE = 't DEACTIVATE "user.ana" "be1.test!p"'
DELETE = 't DELETE "user.ana"'
FORCE = 't FORCE "user.ana" "be1.test!p" ""'

DONE, NO = "done", "no"
ROWS = [
    (EMPTY, SHARED, RESERVE, DONE, EntryState.RESERVED),
    (RESERVED_HERE, SHARED, RESERVE, DONE, EntryState.RESERVED),
    (ACTIVE_HERE, SHARED, RESERVE, DONE, None),  # it stays in service
    (Moment(row("be1.test!q")), SHARED, RESERVE, NO, None),
    (RESERVED_THERE, SHARED, RESERVE, NO, None),
    (ACTIVE_THERE, BE1, RESERVE, NO, None),
    (EMPTY, BE1, ACTIVATE, DONE, EntryState.ACTIVE),
    (RESERVED_THERE, BE1, ACTIVATE, DONE, EntryState.ACTIVE),
    (ACTIVE_THERE, BE1, ACTIVATE, NO, None),
    (ACTIVE_THERE, ADMIN, ACTIVATE, NO, None),
    (ACTIVE_THERE, UNBOUND, ACTIVATE, DONE, EntryState.ACTIVE),
    (ACTIVE_HERE, BE1, DEACTIVATE, DONE, EntryState.RESERVED),
    (RESERVED_HERE, BE1, DEACTIVATE, NO, None),
    (EMPTY, BE1, DEACTIVATE, NO, None),
    (ACTIVE_THERE, BE1, DEACTIVATE, NO, None),
    (ACTIVE_THERE, ADMIN, DEACTIVATE, DONE, EntryState.RESERVED),
    (EMPTY, BE1, DELETE, NO, None),
    (ACTIVE_THERE, BE1, DELETE, NO, None),
    (ACTIVE_THERE, SHARED, DELETE, DONE, "gone"),
    (ACTIVE_THERE, SHARED.claiming("be1.test"), DELETE, NO, None),
    (ACTIVE_HERE, SHARED.claiming("be1.test"), DELETE, DONE, "gone"),
    (ACTIVE_THERE, ADMIN, FORCE, "taken", EntryState.ACTIVE),
    (ACTIVE_HERE, ADMIN, FORCE, DONE, EntryState.ACTIVE),
]


@pytest.mark.parametrize(("view", "peer", "line", "outcome", "becomes"), ROWS)
def test_what_becomes_of_a_proposal(
    view: Moment, peer: Peer, line: str, outcome: str, becomes: EntryState | str | None
) -> None:
    found = decided(view, peer, line)
    told = found.outcome
    kind = NO if isinstance(told, Refusal) else "taken" if isinstance(told, Taken) else told
    assert kind == outcome
    match found.change:
        case None:
            assert becomes is None
        case PutEntry(entry):
            assert entry.name == NAME and entry.state is becomes
        case RemoveEntry(name):
            assert becomes == "gone" and name == NAME


def test_a_conflict_names_who_holds_and_who_claims() -> None:
    found = decided(ACTIVE_THERE, BE1, ACTIVATE)
    assert isinstance(found.outcome, Refusal) and found.outcome.code is Code.IN_USE
    assert found.conflict is not None
    assert (found.conflict.holder, found.conflict.claimant) == ("be2.test", "be1.test")
    assert b'"at": 12.5' in found.conflict.octets(12.5)


@pytest.mark.parametrize(
    ("peer", "line", "code"),
    [
        (BE1, 't RESERVE "user.ana" "be2.test!p"', Code.NO_PERMISSION),
        (BE1, 't RESERVE "user.ana" "!p"', Code.CANNOT),
        (BE1, FORCE, Code.NO_PERMISSION),
        (BE1, f't RESERVE "{"x" * 600}" "be1.test!p"', Code.CANNOT),
    ],
)
def test_what_a_peer_may_not_even_propose(peer: Peer, line: str, code: Code) -> None:
    with pytest.raises(Refusal) as refused:
        proposal_of(said(line), peer, BOUNDS)
    assert refused.value.code is code


def test_who_has_spoken_for_a_server_speaks_for_no_other() -> None:
    peer = SHARED.claiming("be1.test")
    assert peer.claiming("be1.test") is peer
    assert not peer.speaks_for("be2.test") and SHARED.speaks_for("be2.test")
    assert proposal_of(said(DELETE), peer, BOUNDS) == Delete(peer, NAME)
