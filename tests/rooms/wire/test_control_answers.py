"""What nodes tell an operator: values there and back, and what another version says."""

import json
from dataclasses import replace
from typing import Any

import pytest

from murder.errors import BadSyntax
from murder.wire.nodes.control_answers import (
    ChainChecked,
    ConflictShown,
    EngineFacts,
    ListFacts,
    LogLine,
    MemberFacts,
    OwnPorts,
    Probed,
    ProcessFacts,
    Reloaded,
    ReloadProblem,
    RoleFacts,
    SessionShown,
    Status,
    Traced,
    TrailLine,
    parse_chain_checked,
    parse_conflict,
    parse_log_line,
    parse_node_status,
    parse_own_ports,
    parse_probed,
    parse_reloaded,
    parse_session,
    parse_traced,
    parse_trail_line,
    shown_of,
)

PROCESS = ProcessFacts("0.1", 7, 1.5, 2.0, 3, 0.5, 1024, 9, 1024, 10, 20, None, replaced=True)
MEMBERS = (MemberFacts("etcd1", "h:2379", True, 5), MemberFacts("", "g:2379", problem="away"))
WHO: dict[str, Any] = {"node": "fe1", "role": "frontend", "worker": 0}


def over_the_wire(shown: dict[str, object]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps({**WHO, **shown}))
    return told


@pytest.mark.parametrize(
    "role",
    [
        RoleFacts(),
        RoleFacts(mailboxes=5, sessions=0, down=("be1",), copy=ListFacts("streaming", True, 0)),
        RoleFacts(mailboxes=0, moves=1, moves_failed=0, quarantined=0, lacking=7, master="away"),
        RoleFacts(list_bytes=4096, list_journal_bytes=0, store_messages=3, store_bytes=99),
        RoleFacts(mailboxes=1, store_problem=""),
        RoleFacts(store_problem="", store_disk_free=0, store_disk_size=1 << 40),
        RoleFacts(mailboxes=1, store_problem="/srv/spool: Read-only file system"),
        RoleFacts(mark="e:7:ab", engine=EngineFacts("etcd", "no answer", MEMBERS)),
        RoleFacts(conflicts=1, changes=2, servers=("be1",), followers=(), is_master=False),
    ],
)
def test_a_status_comes_back_as_it_went(role: RoleFacts) -> None:
    told = over_the_wire(Status(PROCESS, role).shown())
    assert parse_node_status(told) == Status(PROCESS, role)
    assert "certificate_until" not in told  # there is none
    assert ("lag_s" in told) == (role.copy is not None)  # null: not known yet


def test_what_another_version_tells_is_passed_over_and_what_it_does_not_is_missing() -> None:
    assert parse_node_status({"role": "mupdate", "new": [1]}) == Status(ProcessFacts(), RoleFacts())
    assert parse_probed({"what": "x", "new": 1}) == Probed("x")
    for wrong in ({"mailboxes": "5"}, {"down": "be1"}, {"list": 5}, {"now": "noon"}):
        with pytest.raises(BadSyntax):
            parse_node_status(wrong)


@pytest.mark.parametrize(
    "probed",
    [Probed("its list"), Probed("be1", "no answer", "timeout"), Probed("be1", took_ms=1.5)],
)
def test_what_a_node_has_seen_comes_back_as_it_went(probed: Probed) -> None:
    assert parse_probed(over_the_wire(probed.shown())) == probed


@pytest.mark.parametrize(
    "conflict",
    [
        ConflictShown("user.ana", "RESERVE", "be2", 1.5, "be1", ""),
        ConflictShown("user.ana", "QUARANTINED", "be2", 1.5, kept_as="DELETED.user.ana.1"),
        ConflictShown("user.ana", "RENAME", "be2", 1.5, "be1", target="user.bob", rename="a1"),
    ],
)
def test_a_conflict_comes_back_as_it_went(conflict: ConflictShown) -> None:
    assert parse_conflict(over_the_wire(conflict.shown())) == conflict


@pytest.mark.parametrize(
    "session",
    [
        SessionShown("a-1", "192.0.2.7", tls=True),
        SessionShown("a-1", "192.0.2.7", False, "pop3", "ana", "admin", idle_s=2.5),
        SessionShown("a-1", "", True, "imap", "ana", state="selected", mailbox="x", backends=()),
        SessionShown("a-1", "", True, "imap", "", mailbox="x", backend="b", backends=("b", "c")),
    ],
)
def test_a_session_comes_back_as_it_went(session: SessionShown) -> None:
    told = over_the_wire(session.shown())
    assert parse_session(told) == replace(session, node="fe1", role="frontend")
    assert ("mailbox" in told) == bool(session.mailbox)  # who reads JSON asks for what is there


def test_what_a_node_has_kept_comes_back_as_it_went() -> None:
    line = TrailLine(
        "2026-11-29T10:00:00Z", "kick", {"at": "2026-11-29T10:00:00Z", "event": "kick", "n": 1}
    )
    told = parse_trail_line(over_the_wire(line.shown()))
    assert told == replace(line, node="fe1", role="frontend")
    assert told.with_place() == {"node": "fe1", "role": "frontend", **line.facts}
    assert (told.text("n"), told.text("user")) == ("1", "")
    checked = ChainChecked(2, ("audit-frontend-0.jsonl:7",))
    assert parse_chain_checked(over_the_wire(checked.shown())) == replace(checked, node="fe1")
    for wrong in ({"line": 5}, {"line": {"at": 5}}, {}):
        with pytest.raises(BadSyntax):
            parse_trail_line(wrong)


def test_a_line_of_a_log_comes_back_as_it_went() -> None:
    line = LogLine(7.5, "warning", "tls.distrusted")
    told = parse_log_line(over_the_wire(line.shown()))
    assert told == replace(line, node="fe1", role="frontend")


def test_what_came_of_a_reload_comes_back_as_it_went() -> None:
    problems = (ReloadProblem("/etc/murder.toml", "tls", "it has ended"),)
    for reloaded in (Reloaded(("log.level",), ("node.name",)), Reloaded(problems=problems)):
        assert parse_reloaded(over_the_wire(shown_of(reloaded))) == reloaded
    ports = OwnPorts(7, ("frontend.imap 127.0.0.1:143", "mupdate.listen [::1]:3905"))
    assert parse_own_ports(over_the_wire(shown_of(ports))) == ports
    assert ports.endpoints == {"127.0.0.1:143", "[::1]:3905"}
    nothing: dict[str, Any] = {"changed": [], "waiting": [], "problems": []}
    wrongs: list[dict[str, Any]] = [{"changed": [], "waiting": []}, {**nothing, "changed": 5}]
    for wrong in wrongs:
        with pytest.raises(BadSyntax):
            parse_reloaded(wrong)


def test_traces_are_read() -> None:
    traced = Traced(1.5, "a-1", "C", "a NOOP")
    assert parse_traced(over_the_wire(shown_of(traced))) == traced
    assert parse_traced({**WHO, "trace": "ana"}) is None
