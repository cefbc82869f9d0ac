"""Three machines without a single point of failure: masters, frontends and backends on each, the list on etcd."""

import json
from collections.abc import Iterator

import pytest

from tests.kit.demo import Demo, running_demo, wanted
from tests.kit.process import run_murder
from tests.kit.waiting import until
from tests.rooms.unified.whole import (
    NODES,
    USERS,
    all_is_well_but,
    comes_back,
    node,
    operator,
    others,
    resident,
)

pytestmark = pytest.mark.skipif(wanted("etcd") != "", reason=wanted("etcd"))


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--ha", "--users", str(USERS), "--no-tls-required") as running:
        yield running


def mailboxes_are_made(demo: Demo, name: str, away: str = "") -> None:
    """At each node that is left, for who lives on each of them."""
    for at in others(away):
        for home in others(away):
            with demo.imap(node(demo, at), resident(demo, home)) as client:
                status, text = client.create(f"INBOX/{name}-{at}")
                assert status == "OK", (at, home, text)


def _amiss(config: tuple[str, str]) -> list[str]:
    """Of whom in the list's engine something is told."""
    told = json.loads(run_murder("ctl", "status", *config, "--json", code=1).stdout)
    return [str(one["of"]) for one in told["engine"]]


def test_the_line_of_json_has_all_masters_and_members(demo: Demo) -> None:
    masters, members = demo.info["mupdates"], demo.info["engine"]
    assert [one["node"] for one in masters] == list(NODES)
    assert masters[0] == demo.info["mupdate"]
    assert [list(one) for one in members] == [["name", "host", "port", "pid"]] * 3
    assert [one["name"] for one in members] == ["etcd1", "etcd2", "etcd3"]
    assert len({one["pid"] for one in (*masters, *members)}) == 6


def test_an_operator_sees_masters_members_and_one_list(demo: Demo) -> None:
    config = ("--config", operator(demo))
    said = run_murder("ctl", "status", *config).stdout
    assert "Everything is well" in said and "leads" in said
    masters = {line.split()[0]: line.split()[1:] for line in said.splitlines() if " yes" in line}
    assert len(masters) == 3 and all(words[1] == "0" for words in masters.values()), said
    assert (
        "3 masters share one list, 3 members keep it" in run_murder("ctl", "doctor", *config).stdout
    )
    checked = json.loads(run_murder("ctl", "check", *config, "--json").stdout)
    assert (checked["masters"], checked["unreachable"]) == ([], {})
    demo.node("kill", "etcd2")
    try:
        # where it was the leader, nobody takes changes until there is another
        until(lambda: _amiss(config) == ["etcd2"], lambda: _amiss(config), every_s=0.2)
    finally:
        demo.node("start", "etcd2")


@pytest.mark.parametrize("label", NODES)
def test_any_node_may_die_and_all_but_its_own_mail_goes_on(demo: Demo, label: str) -> None:
    demo.node("kill", label)
    try:
        all_is_well_but(demo, label)
        mailboxes_are_made(demo, f"without-{label}", label)
    finally:
        demo.node("start", label)
    comes_back(demo, label)
    mailboxes_are_made(demo, f"with-{label}")


def test_a_frozen_node_is_as_a_dead_one_and_goes_on_when_it_wakes(demo: Demo) -> None:
    demo.node("freeze", "n1")
    try:
        mailboxes_are_made(demo, "frozen", "n1")
    finally:
        demo.node("continue", "n1")
    comes_back(demo, "n1")
    mailboxes_are_made(demo, "awake")


@pytest.mark.parametrize("label", ["etcd1", "etcd2", "etcd3"])  # one of them leads
def test_any_member_of_etcd_may_die(demo: Demo, label: str) -> None:
    demo.node("kill", label)
    try:
        mailboxes_are_made(demo, f"without-{label}")
    finally:
        demo.node("start", label)
