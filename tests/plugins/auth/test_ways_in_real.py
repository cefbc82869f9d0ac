"""Every protocol, as a frontend and as a backend has it, with plugins that ask real servers: all is as with any plugin."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest

from murder.api.auth import AuthBackend
from murder.auth.chain import Chain
from plugins.auth_http import AuthHttp
from plugins.auth_http import Settings as HttpSettings
from plugins.auth_saslauthd import Saslauthd
from plugins.auth_saslauthd import Settings as SaslauthdSettings
from tests.plugins.auth.slapd import BASE, Slapd, running_slapd
from tests.plugins.auth.test_auth_http import script
from tests.plugins.auth.test_auth_ldap import directory
from tests.plugins.auth.test_auth_oauth import checking, provider
from tests.plugins.auth.test_auth_pam import pam
from tests.plugins.auth.test_auth_saslauthd import saslauthd_beside
from tests.rooms.serve.test_ways_in import RIGHT, all_is_alike

WAYS = [
    *product(("imap", "pop3", "lmtp", "sieve"), ("PLAIN",), ("frontend", "backend")),
    *product(("imap", "pop3"), ("COMMAND",), ("frontend", "backend")),
    ("mupdate", "PLAIN", "backend"),
]


LARGE = "x" * 6000  # some providers put all that they know into a token
TOKENS = list(
    product(("imap", "pop3", "lmtp", "sieve"), ("OAUTHBEARER", "XOAUTH2"), ("frontend", "backend"))
)


async def all_ways(
    name: str,
    users: AuthBackend,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    ways: Sequence[tuple[str, str, str]] = WAYS,
    right: bytes = RIGHT,
) -> None:
    for number, (kind, way, role) in enumerate(ways):
        own = folder / str(number)
        own.mkdir()
        chain = Chain([(name, users)])  # which remembers nobody
        await all_is_alike(kind, way, role, chain, right, own, capfd)


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


async def test_a_script_over_http(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with script() as server:
        users = AuthHttp(HttpSettings(url=server.url))
        await all_ways("auth_http", users, tmp_path, capfd)


ASKS_LDAP = """
ldap_servers: ldap://127.0.0.1:{port}
ldap_search_base: ou=people,{base}
ldap_filter: uid=%u
ldap_bind_dn: cn=murder,{base}
ldap_password: service
"""


@pytest.fixture
def saslauthd(slapd: Slapd) -> Iterator[Path]:
    """As a Cyrus site has it, a directory behind; its socket."""
    conf = slapd.folder / "saslauthd.conf"
    conf.write_text(ASKS_LDAP.format(port=slapd.plain, base=BASE))
    with saslauthd_beside(slapd.folder, "-a", "ldap", "-O", str(conf)) as mux:
        yield mux


async def test_a_saslauthd_with_a_directory_behind(
    saslauthd: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    users = Saslauthd(SaslauthdSettings(socket=saslauthd, at_once=2))
    await all_ways("auth_saslauthd", users, tmp_path, capfd)


@pytest.mark.parametrize("is_asked", [False, True], ids=["checked here", "introspection"])
async def test_a_provider_of_tokens(
    is_asked: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with provider() as server:
        asked = {"issuer": "", "audience": (), "introspection": server.url, "client_id": "murder"}
        users = checking(server, **({**asked, "client_secret": "shared"} if is_asked else {}))
        right = b"opaque" if is_asked else server.token(more=LARGE).encode()
        await all_ways("auth_oauth", users, tmp_path, capfd, TOKENS, right)
