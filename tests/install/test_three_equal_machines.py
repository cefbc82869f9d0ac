"""Three equal machines in three network namespaces, as `murder init` has written them: each is a master, a frontend, a
backend and a member of etcd. One of them falls off the network, and everything but its own mail goes on.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.install.test_three_hosts import Site, connected, everything_is_well
from tests.kit.process import run_murder
from tests.kit.programs.etcd import FLAGS, needs_etcd
from tests.kit.waiting import until

MACHINES = {"n1": "10.88.0.1", "n2": "10.88.0.2", "n3": "10.88.0.3", "desk": "10.88.0.4"}
NODES = ("n1", "n2", "n3")
PEOPLE = ("anna", "bert", "carl")
DELIVER = """
import smtplib, sys
with smtplib.LMTP("127.0.0.1", 24, "localhost") as lmtp:
    lmtp.sendmail("me@example.org", [sys.argv[1]], "Subject: hello\\r\\n\\r\\nIt works.\\r\\n")
"""


def ok(site: Site, host: str, *words: str) -> bool:
    """Whether a program there succeeds."""
    try:
        site.at(host, *words)
    except AssertionError:
        return False
    return True


def curl(site: Site, user: str, node: str) -> list[str]:
    """As a mail client on the desk, at that node."""
    ca = str(site.folder / "desk" / "ca.pem")
    words = ["curl", "-sS", "-m", "20", "--cacert", ca, "-u", f"{user}:secret"]
    return [*words, f"imaps://{node}.example.org/INBOX;MAILINDEX=1"]


def made(site: Site, node: str, name: str) -> bool:
    """Whether a mailbox can be made there."""
    ca = str(site.folder / "desk" / "ca.pem")
    words = ["curl", "-sS", "-m", "20", "--cacert", ca, "-u", "admin:secret"]
    return ok(site, "desk", *words, f"imaps://{node}.example.org/", "-X", f'CREATE "{name}"')


def start(site: Site) -> dict[str, str]:
    """What the manual says, from nothing; the machines' configurations."""
    hosts = [word for node in NODES for word in ("--host", f"{node}.example.org=mupdate+unified")]
    etcd = [word for node in NODES for word in ("--etcd", f"http://{node}.example.org:2379")]
    own = ["--dir", str(site.folder / "murder-site"), "--ca", str(site.folder / "murder-ca")]
    said = site.murder("desk", "init", *hosts, *etcd, *own)
    copies = re.findall(r"^ +scp (\S+)/\* root@(\w+)\.example\.org:", said, re.MULTILINE)
    configs = {host: site.copied(Path(folder), host) for folder, host in copies}
    assert tuple(configs) == NODES
    configs["desk"] = site.copied(site.folder / "murder-site" / "operator", "desk")
    cluster = ",".join(f"{node}=http://{MACHINES[node]}:2380" for node in NODES)
    for node in NODES:
        peers, clients = f"http://{MACHINES[node]}:2380", f"http://{MACHINES[node]}:2379"
        words = ["etcd", "--name", node, "--data-dir", str(site.folder / f"{node}.etcd")]
        words += ["--listen-client-urls", clients, "--advertise-client-urls", clients]
        words += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
        words += ["--initial-cluster", cluster, "--logger", "zap", "--log-level", "error"]
        site.start(node, f"{node}.etcd.log", *words, *FLAGS)
    users = Path(configs["n1"]).parent / "data" / "users"
    users.parent.mkdir(exist_ok=True)
    for user in ("admin", *PEOPLE):
        run_murder("auth", "add", user, "--config", configs["n1"], said="secret\nsecret\n")
    for node in NODES:
        data = Path(configs[node]).parent / "data"
        data.mkdir(exist_ok=True)
        if node != "n1":
            shutil.copy(users, data)
        site.serve(node, configs[node])
    everything_is_well(site, configs["desk"])
    return configs


def test_one_of_three_equal_machines_falls_off_the_network(
    archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    needs_etcd()
    with connected(tmp_path_factory.mktemp("site"), MACHINES) as site:
        desk = start(site)["desk"]
        for user, node in zip(PEOPLE, NODES, strict=True):
            words = ["ctl", "mailbox", "create", f"user/{user}", "--server", f"{node}.example.org"]
            site.murder("desk", *words, "--config", desk)
        for node in NODES:  # any of them takes mail for everybody, and shows it
            for user in PEOPLE:
                site.at(node, sys.executable, "-c", DELIVER, user)
                assert "It works." in site.at("desk", *curl(site, user, node))
        site.at("n1", "ip", "link", "set", "eth0", "down")
        for node in ("n2", "n3"):
            until(lambda: made(site, node, f"user/bert/at-{node}"), every_s=0.2)  # noqa: B023
            for user in ("bert", "carl"):
                site.at(node, sys.executable, "-c", DELIVER, user)
                assert "It works." in site.at("desk", *curl(site, user, node))
            assert not ok(site, "desk", *curl(site, "anna", node))
        site.at("n1", "ip", "link", "set", "eth0", "up")
        everything_is_well(site, desk)
        for node in NODES:
            until(lambda: ok(site, "desk", *curl(site, "anna", node)), every_s=0.2)  # noqa: B023
        assert made(site, "n1", "user/anna/again")
