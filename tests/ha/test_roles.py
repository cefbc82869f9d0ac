"""A frontend, a backend and an operator, each on a host of its own, with two masters: any one of these is killed, or stands
still, and each of the three goes on at the other one. The operator has a password, and no certificate.
"""

import imaplib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cyrus.our_nodes import serving
from tests.cyrus.our_roles import PROXY
from tests.ha.masters import HOST, Master, masters
from tests.kit.ports import free_ports
from tests.kit.process import run_murder
from tests.kit.programs.etcd import cluster
from tests.kit.toml import Sections, write_config
from tests.kit.waiting import until

BACKEND = "be1.test"


class Site:
    """What runs, and the operator's murder.toml."""

    def __init__(self, two: Sequence[Master], frontend: int, operator: Path) -> None:
        self.masters = two
        self.frontend = frontend
        self.operator = operator

    def is_made(self, name: str) -> bool:
        """Whether a user can make a mailbox, by the frontend and the backend, and then sees it."""
        client = imaplib.IMAP4(HOST, self.frontend, timeout=60)
        client.login("anna", "secret")
        done = client.create(name)[0] == "OK"
        if done:
            assert client.select(name)[0] == "OK"
            assert name.encode() in b"".join(client.list()[1])  # type: ignore[arg-type]
        client.logout()
        return done

    def ctl(self, *words: str) -> str:
        return run_murder("ctl", *words, "--config", self.operator).stdout

    def all_goes_on(self, label: str) -> None:
        """By each role."""
        until(lambda: self.is_made(f"INBOX/{label}"), "a mailbox is made", every_s=0.1)
        self.ctl("mailbox", "create", f"shared/{label}", "--server", BACKEND)
        found = json.loads(self.ctl("mailbox", "find", f"shared/{label}", "--json"))
        assert found["server"] == BACKEND


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        etcd = stack.enter_context(cluster(folder / "etcd", 1))
        two = stack.enter_context(masters(folder, etcd))
        at_backend, at_frontend, lmtp = free_ports(3)
        following = {
            "master": [f"{HOST}:{one.port}" for one in two],
            "master_auth": "plain",
            "master_user": "murder",
            "master_password": "secret",
            "master_tls": "none",
        }
        clients = {"admins": ["cyrus"], "allow_plaintext": True, "workers": 1}
        there = {"address": HOST, "imap": at_backend, "lmtp": lmtp, "tls": "none"}
        known: Sections = {"mupdate": following, f'servers."{BACKEND}"': there}
        kept = {"imap": [f"{HOST}:{at_backend}"], "lmtp": [f"{HOST}:{lmtp}"], **clients}
        backend: Sections = {"mupdate": following, "backend": {**kept, "proxies": ["murder"]}}
        node = serving(folder / "backend", BACKEND, "backend", backend, ["anna"])
        stack.enter_context(node).until_open(HOST, at_backend)
        front: Sections = {
            **known,
            "frontend": {"imap": [f"{HOST}:{at_frontend}"], **clients, **PROXY},
        }
        node = serving(folder / "frontend", "fe1.test", "frontend", front, ["anna"])
        stack.enter_context(node).until_open(HOST, at_frontend).until_said("replica.synchronised")
        file = folder / "operator.toml"
        own = {"name": "desk.test", "data": str(folder)}
        asks = {"user": "cyrus", "password": "secret"}
        write_config(file, {**known, "node": own, "operator": asks})
        found = Site(two, at_frontend, file)
        found.ctl("mailbox", "create", "user/anna", "--server", BACKEND)
        yield found


@pytest.mark.parametrize("which", [0, 1])
def test_either_master_is_killed(site: Site, which: int) -> None:
    site.masters[which].kill()
    try:
        site.all_goes_on(f"killed{which}")
    finally:
        site.masters[which].again()
    site.all_goes_on(f"alive{which}")


@pytest.mark.parametrize("which", [0, 1])
def test_either_master_stands_still(site: Site, which: int) -> None:
    site.masters[which].freeze()
    try:
        site.all_goes_on(f"frozen{which}")
    finally:
        site.masters[which].thaw()
