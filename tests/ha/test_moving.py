"""`murder ctl list engine copy` as an operator runs it: to etcd and back, and with its master killed on the way."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.ha.masters import Master, activate, until_all_have
from tests.kit.process import murder_command, run_murder
from tests.kit.programs.etcd import Cluster, cluster
from tests.kit.waiting import until
from tests.kit.wires import Mode, Wires


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("etcd"), 1) as found:
        yield found


def words(master: Master, to: str) -> list[str]:
    file = str(master.folder / "murder.toml")
    return ["ctl", "list", "engine", "copy", "--config", file, "--to", to, "--json"]


def test_a_list_goes_to_etcd_and_home_and_a_kill_on_the_way_loses_nothing(
    tmp_path: Path, etcd: Cluster
) -> None:
    with Wires() as wires:
        goes_and_comes(tmp_path, etcd, wires)


def goes_and_comes(tmp_path: Path, etcd: Cluster, wires: Wires) -> None:
    """m1's way to etcd is slow at first, so that it is killed before the list is there."""
    one, two = Master("m1", tmp_path, etcd, wires), Master("m2", tmp_path, etcd)
    one.sections["mupdate"]["engine"] = "embedded"
    (wire,) = one.wires
    try:
        one.start()
        with one.ask(60) as peer:
            lines = [f't ACTIVATE "user.g{n}" "be1.test!p" ""\r\n' for n in range(3000)]
            peer.send("".join(lines))
            assert all(peer.line().startswith("t OK") for _ in lines)
        before = one.names()
        assert "Re-run with --yes" in run_murder(*words(one, "etcd"), code=2).stderr
        wires.set(wire, Mode.SLOW)
        going = subprocess.Popen(
            [*murder_command(), *words(one, "etcd")[:-1], "--yes"],
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        assert going.stderr is not None and going.stderr.readline()  # it has begun to copy
        wires.set(wire, Mode.HOLD)
        one.kill()
        assert going.wait() != 0
        wires.set(wire, Mode.OPEN)
        going.stderr.close()
        one.again()
        assert one.names() == before
        told = json.loads(run_murder(*words(one, "etcd"), "--yes").stdout)
        assert (told["engine"], told["rows"]) == ("etcd", 3000)
        one.kill()
        one.again()  # its murder.toml still says embedded
        with one.ask() as peer:
            assert activate(peer, "user.first").startswith("t OK")
        two.start()
        until_all_have([one, two], "user.first")
        with two.ask() as peer:
            assert activate(peer, "user.second").startswith("t OK")
        told = json.loads(run_murder(*words(one, "embedded"), "--yes").stdout)
        assert told["rows"] == 3002
        until(lambda: "master.retired" in two.log(), "it is no master any more")
        with pytest.raises((AssertionError, OSError)):  # it greets nobody
            two.ask()
        with one.ask() as peer:
            assert activate(peer, "user.third").startswith("t OK")
        assert one.names().keys() == {*before, "user.first", "user.second", "user.third"}
    finally:
        two.stop()
        one.stop()
