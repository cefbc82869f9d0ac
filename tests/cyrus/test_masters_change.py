"""Beside a real Cyrus the list goes to etcd and home again (`murder ctl list engine copy`), and masters come and go: its
merges delete nothing."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cyrus.conftest import ROOT, Lab
from tests.cyrus.our_nodes import our_node
from tests.cyrus.test_mupdate_both_ways import as_admin, check, do, mailboxes_on
from tests.kit.engine import TIMEOUT_S, is_shared
from tests.kit.process import run_murder
from tests.kit.programs.etcd import Cluster, cluster
from tests.kit.toml import Sections
from tests.kit.waiting import until

NAME = "masters.murder.test"
ADDRESSES = ("127.0.0.14", "127.0.0.10")
HOSTS = Path("/etc/hosts")
QUICKLY = "mupdate_retry_delay: 1"


@contextmanager
def name_of_both() -> Iterator[list[str]]:
    """A name that has both addresses; in the order in which a Cyrus asks them."""
    before = HOSTS.read_text()
    HOSTS.write_text(before + "".join(f"{one} {NAME}\n" for one in ADDRESSES))
    try:
        found = socket.getaddrinfo(NAME, 3905, socket.AF_INET, socket.SOCK_STREAM)
        yield [str(one[4][0]) for one in found]
    finally:
        HOSTS.write_text(before)


def sections(etcd: Cluster, engine: str) -> Sections:
    table = {"endpoints": list(etcd.endpoints), "timeout_s": TIMEOUT_S}
    return {"mupdate": {"engine": engine}, "plugins.list_etcd": table}


def copy(folder: Path, to: str) -> int:
    """At the master in that folder, while it serves; how many rows were compared."""
    words = ["--config", str(folder / "murder.toml"), "--to", to, "--yes", "--json"]
    told = json.loads(run_murder("ctl", "list", "engine", "copy", *words).stdout)
    return int(told["rows"])


def merged(instance: str) -> int:
    """The exit status of what a Cyrus backend does when it starts."""
    program = f"{ROOT}/pkg/usr/lib/cyrus/bin/ctl_mboxlist -C {ROOT}/{instance}/imapd.conf -m"
    shell = f"LD_LIBRARY_PATH=$(echo {ROOT}/pkg/usr/lib/*-linux-gnu) {program}"
    su = ["su", "cyrus", "-s", "/bin/bash", "-c", shell]
    return subprocess.run(su, capture_output=True, timeout=60, check=False).returncode


@pytest.mark.skipif(is_shared(), reason="it brings its own etcd")
def test_the_list_goes_to_etcd_and_home_and_a_cyrus_keeps_all_it_has(
    cyrus_parts: Lab, tmp_path: Path
) -> None:
    lab, frontend = cyrus_parts, [(cyrus_parts.frontend, 3905)]
    home, log = tmp_path / "home", tmp_path / "second" / "log"
    with cluster(tmp_path / "etcd", 1) as etcd, name_of_both() as (asked_first, asked_then):
        lab.run("gen", LAB_MUPDATE=NAME, LAB_EXTRA=QUICKLY)
        with our_node(home, NAME, asked_then, 3905, engine=sections(etcd, "embedded")):
            lab.run("start", "be1", "be2", "fe1")
            lab.run("populate")
            until(lambda: "server.ready" in (home / "log").read_text(), "server.ready")
            check(lab, (asked_then, 3905), frontend)
            assert copy(home, "etcd") == 20
            client = as_admin(lab.frontend)
            for name in ("on", "on-etcd"):
                do(client, "CREATE", f"user/user1/{name}")
            second = sections(etcd, "etcd")
            with our_node(tmp_path / "second", NAME, asked_first, 3905, engine=second):
                lab.run("restart", "be1", "be2", "fe1", LAB_PATIENCE="8")
                check(lab, (asked_first, 3905), frontend)
                before = [mailboxes_on(host) for host in (*lab.backends, lab.frontend)]
                assert copy(home, "embedded") == 22
                until(lambda: "master.retired" in log.read_text(), "master.retired")
                # a backend that starts now is told by the other one what there is, or by nobody; it gives nothing up
                for backend in ("be1", "be2"):
                    merged(backend)
                after = [mailboxes_on(host) for host in (*lab.backends, lab.frontend)]
                assert after == before
            assert [merged("be1"), merged("be2")] == [0, 0]
            assert [mailboxes_on(host) for host in (*lab.backends, lab.frontend)] == before
