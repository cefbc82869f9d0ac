"""Several masters and the members of their engine, as `status` shows them."""

from murder import __version__
from murder.admin.cli.ctl.running.masters import engine_lines
from murder.admin.cli.ctl.running.status import screen
from murder.admin.operate.running.masters import engine_problems, masters_of, members_of
from murder.admin.operate.running.nodes import NodeAnswers
from murder.wire.nodes.control_answers import (
    EngineFacts,
    MemberFacts,
    ProcessFacts,
    RoleFacts,
    Status,
)

WELL = (
    MemberFacts("etcd1", "a:2379", True, 1 << 20),
    MemberFacts("etcd2", "b:2379", False, 1 << 20),
)


def master(
    name: str, mark: str, members: tuple[MemberFacts, ...] = WELL, problem: str = ""
) -> NodeAnswers:
    role = RoleFacts(
        mailboxes=3, is_master=True, mark=mark, engine=EngineFacts("etcd", problem, members)
    )
    shown = Status(ProcessFacts(version=__version__), role).shown()
    return NodeAnswers(name, [{"node": name, "role": "mupdate", "worker": 0, **shown}])


def test_masters_of_one_history_are_well_and_their_members_shown() -> None:
    told = [master("m1", "e:7:aa"), master("m2", "e:5:bb")]
    assert [(one.node, one.behind) for one in masters_of(told)] == [("m1", 0), ("m2", 2)]
    assert engine_problems(told) == []
    text = "\n".join(engine_lines(told))
    assert "leads" in text and "follows" in text and "1.0 MiB" in text
    assert engine_lines([NodeAnswers("m1")]) == []


def test_a_master_with_another_history_or_far_behind_is_told() -> None:
    told = [master("m1", "e:7000:aa"), master("m2", "f:5:bb"), master("m3", "e:1:bb")]
    problems = dict(engine_problems(told))
    assert "another history" in problems["m2"].what
    assert "6999 changes behind" in problems["m3"].what


def test_a_mark_with_thousands_of_digits_is_none() -> None:
    told = [master("m1", "e:7:aa"), master("m2", f"e:{'9' * 5000}:bb")]
    assert next((one.node, one.behind) for one in masters_of(told)) == ("m1", 0)


def test_a_member_that_one_master_alone_does_not_reach_is_told_so() -> None:
    cut = (WELL[0], MemberFacts("etcd2", "b:2379", problem="no answer"))
    told = [master("m1", "e:7:aa"), master("m2", "e:7:aa", cut)]
    ((whose, problem),) = engine_problems(told)
    assert (whose, problem.what) == ("etcd2", "no answer, seen from m2")
    (line,) = [one for one in members_of(told) if one.facts.problem]
    assert line.facts.used_bytes == 1 << 20


def test_without_a_leader_masters_take_no_changes_and_an_alarm_has_its_cure() -> None:
    lost = (MemberFacts("etcd1", "a:2379", problem="memberID:1 alarm:NOSPACE"),)
    told = [master("m1", "e:7:aa", lost)]
    problems = engine_problems(told)
    assert "takes no changes" in problems[0][1].what
    assert "compact" in problems[1][1].cure
    shown = "\n".join(screen(told, None, 0.0))
    assert "2 things are wrong" in shown and "NOSPACE" in shown
