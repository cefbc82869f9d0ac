"""Every protocol, as a frontend and as a backend has it, with plugins that ask real servers: all is as with any plugin."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from murder.api.auth import AuthBackend
from murder.auth.chain import Chain
from tests.plugins.auth.slapd import Slapd, running_slapd
from tests.plugins.auth.test_auth_ldap import directory
from tests.plugins.auth.test_auth_pam import pam
from tests.serve.test_ways_in import RIGHT, all_is_alike

WAYS = [
    *product(("imap", "pop3", "lmtp", "sieve"), ("PLAIN",), ("frontend", "backend")),
    *product(("imap", "pop3"), ("COMMAND",), ("frontend", "backend")),
    ("mupdate", "PLAIN", "backend"),
]


async def all_ways(
    name: str,
    users: AuthBackend,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for number, (kind, way, role) in enumerate(WAYS):
        own = folder / str(number)
        own.mkdir()
        chain = Chain([(name, users)])  # which remembers nobody
        await all_is_alike(kind, way, role, chain, RIGHT, own, capfd)


@pytest.fixture
def slapd(tmp_path: Path) -> Iterator[Slapd]:
    folder = tmp_path / "slapd"
    folder.mkdir()
    with running_slapd(folder) as running:
        yield running


async def test_an_openldap(slapd: Slapd, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    await all_ways("auth_ldap", directory(slapd), tmp_path, capfd)


async def test_the_hosts_pam(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pam"
    folder.mkdir()
    users = pam(folder)
    for service in ("pop", "lmtp", "sieve", "mupdate"):
        (folder / service).write_text((folder / "imap").read_text())
    await all_ways("auth_pam", users, tmp_path, capfd)
