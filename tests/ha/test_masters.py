"""Two masters and three members of etcd, killed, frozen, cut off: what was acknowledged is there, everywhere, once."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.cyrus.our_nodes import following, serving
from tests.faults.test_disk import fill
from tests.ha.masters import ENGINE_S, HOST, Master, activate, masters, names_at, until_all_have
from tests.kit import disks
from tests.kit.ports import free_port
from tests.kit.programs.etcd import Cluster, cluster
from tests.kit.waiting import until


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("etcd")) as found:
        yield found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, etcd: Cluster) -> Iterator[Sequence[Master]]:
    with masters(tmp_path_factory.mktemp("masters"), etcd) as found:
        yield found


def test_what_one_acknowledges_the_other_finds(two: Sequence[Master]) -> None:
    first, second = two
    with first.ask() as one, second.ask() as other:
        for number in range(20):
            assert activate(one, f"user.a{number}").startswith("t OK")
            found = other.command(f'FIND "user.a{number}"')
            assert "be1.test" in found[0], found
        assert other.command('RESERVE "user.a1" "be2.test!p"')[-1].startswith("t NO")
        assert one.command('DELETE "user.a0"')[-1].startswith("t OK")
        assert other.command("NOOP")[-1].startswith("t OK")
        assert len(other.command('FIND "user.a0"')) == 1
    assert first.names() == second.names()


def test_a_master_that_is_killed_has_lost_nothing(two: Sequence[Master]) -> None:
    first, second = two
    told: list[str] = []

    def write() -> None:
        try:
            with first.ask() as peer:
                for number in range(10_000):
                    if activate(peer, f"user.k{number}").startswith("t OK"):
                        told.append(f"user.k{number}")
        except (AssertionError, OSError):
            pass  # it was killed

    writing = threading.Thread(target=write)
    writing.start()
    until(lambda: len(told) > 30, "some changes")
    first.kill()
    writing.join()
    with second.ask() as peer:
        peer.ok("NOOP")
        assert activate(peer, "user.after").startswith("t OK")
    names = second.names()
    assert set(told) <= names.keys()
    first.again()
    until_all_have(two, "user.after")
    assert first.names() == second.names()


def test_changes_go_on_when_the_leader_of_etcd_is_killed(
    two: Sequence[Master], etcd: Cluster
) -> None:
    leader = etcd.until_leader()
    with two[0].ask() as peer:
        assert activate(peer, "user.l0").startswith("t OK")
        leader.kill()
        assert activate(peer, "user.l1").startswith("t OK")  # waits for the election
        assert activate(peer, "user.l2").startswith("t OK")
    until_all_have(two, "user.l2")
    leader.start()
    etcd.until_leader()


def test_changes_go_on_when_the_leader_of_etcd_is_frozen(
    two: Sequence[Master], etcd: Cluster
) -> None:
    leader = etcd.until_leader()
    with two[0].ask() as one, two[1].ask() as other:
        leader.freeze()
        try:
            # on a busy machine the first may be told to come again
            until(lambda: activate(one, "user.f1").startswith("t OK"), "a change", every_s=0.1)
            assert activate(other, "user.f2").startswith("t OK")
        finally:
            leader.thaw()
    until_all_have(two, "user.f1")
    until_all_have(two, "user.f2")


def test_without_a_quorum_reading_goes_on_and_changes_are_refused(
    two: Sequence[Master], etcd: Cluster
) -> None:
    with two[0].ask() as peer:
        until(lambda: activate(peer, "user.q").startswith("t OK"), "a change", every_s=0.1)
        for member in etcd.members[:2]:
            member.kill()
        began = time.monotonic()
        assert activate(peer, "user.q1").startswith("t NO")
        for number in range(50):  # each of these would wait as long, were it not known
            assert activate(peer, f"user.q{number}").startswith("t NO")
        assert time.monotonic() - began < 20 * ENGINE_S
        assert "be1.test" in peer.command('FIND "user.q"')[0]
        assert peer.command("NOOP")[-1].startswith("t NO")
        assert "user.q" in two[0].names()
        assert "engine.unavailable" in two[0].log()
        for member in etcd.members[:2]:
            member.start()
        etcd.until_leader()
        until(lambda: activate(peer, "user.q2").startswith("t OK"), "a change", every_s=0.1)
    until(lambda: "engine.available" in two[0].log(), "engine.available")
    until_all_have(two, "user.q2")


def test_a_master_that_was_frozen_does_not_answer_for_what_another_did(
    two: Sequence[Master],
) -> None:
    first, second = two
    with first.ask() as one, second.ask() as other:
        first.freeze()
        one.send('z ACTIVATE "user.z" "be1.test!p" ""\r\n')
        assert activate(other, "user.z", "be2.test").startswith("t OK")
        first.thaw()
        try:
            said = one.until("z ")[-1]
        except AssertionError:
            said = "the connection has ended"
        assert not said.startswith("z OK")
    until_all_have(two, "user.z", "be2.test")


def test_a_master_that_slept_past_the_compaction_comes_back(
    two: Sequence[Master], etcd: Cluster
) -> None:
    first, second = two
    first.freeze()
    try:
        with second.ask() as peer:
            for number in range(20):
                assert activate(peer, f"user.c{number}").startswith("t OK")
            assert peer.command('DELETE "user.c0"')[-1].startswith("t OK")
        revision = etcd.ctl("endpoint", "status", "-w", "json").split('"revision":')[1]
        etcd.ctl("compact", revision.split(",")[0])
    finally:
        first.thaw()
    until(lambda: first.names() == second.names(), "the same list", every_s=0.2)


def test_a_new_master_takes_the_list(two: Sequence[Master], etcd: Cluster, tmp_path: Path) -> None:
    third = Master("m3", tmp_path, etcd)
    try:
        third.start()
        assert third.names() == two[0].names() != {}
        assert "engine.list_taken" in third.log()
        with third.ask() as peer:
            assert activate(peer, "user.third").startswith("t OK")
    finally:
        third.stop()
    until_all_have(two, "user.third")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", "40m") as disk:
        yield disk


def test_a_master_whose_own_disk_is_full_says_so_and_comes_to_the_present_later(
    two: Sequence[Master], etcd: Cluster, small_disk: Path, tmp_path: Path
) -> None:
    """The log has all that it has acknowledged; the others never notice."""
    third = Master("m4", tmp_path, etcd)
    third.folder.mkdir()
    (third.folder / "data").symlink_to(small_disk)
    ballast = small_disk / "ballast"
    told: list[str] = []
    try:
        third.start()
        assert third.names() == two[0].names()
        fill(ballast)
        with third.ask(60) as peer:
            acl = "x" * 20_000 + "\tlrs\t"
            literal = f"{{{len(acl)}+}}\r\n{acl}"
            said = ""
            for number in range(3000):
                name = f"user.d{number}"
                said = peer.command(f'ACTIVATE "{name}" "be1.test!p" {literal}')[-1]
                if not said.startswith("t OK"):
                    break
                told.append(name)
            assert said.startswith('t NO "[UNAVAILABLE]'), (said, len(told))
            assert "be1.test" in peer.command('FIND "user.d0"')[0]
            with two[0].ask() as other:
                assert activate(other, "user.elsewhere").startswith("t OK")
                for name in told:
                    assert len(other.command(f'FIND "{name}"')) == 2
            ballast.unlink()
            until(lambda: activate(peer, "user.room").startswith("t OK"), "room", every_s=0.1)
        assert third.names() == two[0].names()
        assert {*told, "user.elsewhere", "user.room"} <= third.names().keys()
        assert "Traceback" not in third.log() and "list.not_written" in third.log()
    finally:
        third.stop()


def test_a_member_is_replaced(two: Sequence[Master], etcd: Cluster) -> None:
    member = etcd.members[1]  # the one that m1 asks
    with two[0].ask() as peer:
        etcd.replace(member)
        assert activate(peer, "user.m1").startswith("t OK")
        until(lambda: "3.4" in etcd.ctl("endpoint", "status", at=[member]), "the new member")
        for other in etcd.members[:1]:  # now it is needed
            other.kill()
        until(lambda: activate(peer, "user.m2").startswith("t OK"), "a change", every_s=0.1)
        etcd.members[0].start()
    until_all_have(two, "user.m2")


def test_rows_come_and_go_in_hundreds(two: Sequence[Master]) -> None:
    """Pipelined: they share commits, and order is kept."""
    with two[0].ask(60) as peer:
        lines = [f't{n} ACTIVATE "user.p{n}" "be1.test!p" ""\r\n' for n in range(1500)]
        peer.send("".join(lines))
        said = [peer.line() for _ in lines]
    assert all(line.startswith(f"t{n} OK") for n, line in enumerate(said))
    until_all_have(two, "user.p1499")


def test_a_snapshot_that_is_put_back_begins_a_new_history(
    two: Sequence[Master], etcd: Cluster, tmp_path: Path
) -> None:
    first, second = two
    port = free_port()
    own = {"listen": [f"{HOST}:{port}"], "users": ["murder"], "allow_plaintext": True}
    master = [f"{HOST}:{one.port}" for one in two]
    sections = {"mupdate": {**following(HOST), "master": master, **own}}
    with serving(tmp_path / "replica", "replica.test", "mupdate", sections) as replica:
        replica.until_open(HOST, port).until_said("replica.synchronised")
        goes_back(first, second, etcd, tmp_path, lambda: names_at(HOST, port))
        assert replica.said().count('"how": "whole list"') == 2


def goes_back(
    first: Master,
    second: Master,
    etcd: Cluster,
    tmp_path: Path,
    followed: Callable[[], dict[str, str]],
) -> None:
    """`followed`: what a replica has."""
    two = (first, second)
    with first.ask() as peer:
        assert activate(peer, "user.kept").startswith("t OK")
        until_all_have(two, "user.kept")
        etcd.snapshot(tmp_path / "snapshot")
        assert activate(peer, "user.lost").startswith("t OK")
    until_all_have(two, "user.lost")
    until(lambda: "user.lost" in followed(), "the replica has it")
    etcd.put_back(tmp_path / "snapshot")

    def is_taken() -> bool:
        with first.ask() as peer:
            peer.command("NOOP")
        with second.ask() as peer:
            peer.command("NOOP")
        return "user.lost" not in first.names() and "user.lost" not in second.names()

    until(is_taken, "the snapshot's list", every_s=0.2)
    until(lambda: followed() == first.names(), "the replica takes it anew", every_s=0.2)
    assert "user.kept" in first.names()
    assert first.names() == second.names()
    assert "engine.put_back" in first.log() + second.log()
    aside = [
        *first.folder.glob("data/mupdate/mailboxes.*"),
        *second.folder.glob("data/mupdate/mailboxes.*"),
    ]
    assert aside
    with second.ask() as peer:
        assert activate(peer, "user.anew").startswith("t OK")
    until_all_have(two, "user.anew")
    until(lambda: "user.anew" in followed(), "the replica follows")
