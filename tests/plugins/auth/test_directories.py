"""Directories beside OpenLDAP: 389-ds and an Active Directory (Samba) say who is who, and why somebody may not come in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from murder.api import Denied, Identity, LoginAttempt
from murder.errors import Code, Refusal
from plugins.auth_ldap import Settings, make_auth_backend
from plugins.auth_ldap.directory import Directory
from plugins.auth_ldap.messages import Result
from plugins.auth_ldap.policy import CONTROL, verdict_of
from tests.plugins.auth import ds389, samba, slapd
from tests.plugins.auth.ds389 import running_389
from tests.plugins.auth.samba import PASSWORD, running_samba
from tests.plugins.auth.slapd import Slapd, running_slapd
from tests.plugins.auth.test_ways_in_real import all_ways

HERE = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)
IN_CHAIN = "(member:1.2.840.113556.1.4.1941:=%D)"


async def told(
    users: Directory, user: str, password: bytes
) -> Identity | Denied | tuple[Code, str]:
    try:
        return await users.check(HERE, user, password)
    except Refusal as refusal:
        return refusal.code, refusal.text


# --- 389-ds


@pytest.fixture(scope="module")
def server_389(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_389(tmp_path_factory.mktemp("389") / "ds") as url:
        yield url


def of_389(url: str) -> Directory:
    return make_auth_backend(
        Settings(
            servers=(url,),
            starttls=False,
            base=ds389.BASE,
            service_dn=f"uid=murder,{ds389.BASE}",
            service_password=PASSWORD,
            group_base=ds389.BASE,
            nested=True,
            address_filter="(mail=%u)",
        )
    )


async def test_every_protocol_is_alike_with_a_389(
    server_389: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    users = of_389(server_389)
    await all_ways("auth_ldap", users, tmp_path, capfd, right=PASSWORD.encode())


async def test_a_389_says_who_is_who(server_389: str, caplog: pytest.LogCaptureFixture) -> None:
    users = of_389(server_389)
    assert await users.diagnose() == []
    anna = await users.check(HERE, "Anna", PASSWORD.encode())
    assert isinstance(anna, Identity)
    assert anna.user == "anna" and anna.groups == {"staff", "everybody"}
    assert await users.user_of_address("anna@example.org") == "anna"
    assert await users.check(HERE, "nobody", b"x") is Denied.UNKNOWN
    right, wrong = PASSWORD.encode(), b"x"
    assert await told(users, "old", right) == (
        Code.EXPIRED,
        "Your password has expired: set a new one",
    )
    assert await told(users, "old", wrong) is Denied.WRONG
    assert await told(users, "off", right) is Denied.WRONG  # it does not look at the password
    for _ in range(3):
        assert await told(users, "ben", wrong) is Denied.WRONG
    assert await told(users, "ben", right) is Denied.WRONG
    assert "ben is not let in: the account is locked" in caplog.text


# --- Active Directory


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running_samba(tmp_path_factory.mktemp("ad") / "dc") as ca:
        yield ca


def of_domain(authority: Path, **keys: Any) -> Directory:
    chosen: dict[str, Any] = {
        "servers": ("ldaps://localhost",),
        "ca": authority,
        "service_dn": f"cn=Administrator,cn=Users,{samba.BASE}",
        "service_password": PASSWORD,
        "base": samba.BASE,  # where it refers to other servers, too
        "filter": "(sAMAccountName=%n)",
        "user": "sAMAccountName",
        **keys,
    }
    return make_auth_backend(Settings(**chosen))


async def test_an_active_directory_says_who_is_who(
    domain: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right = PASSWORD.encode()
    users = of_domain(domain, group_base=samba.BASE, group_filter=IN_CHAIN)
    assert await users.diagnose() == []
    anna = await users.check(HERE, "Anna", right)
    assert isinstance(anna, Identity)
    assert anna.user == "anna" and anna.groups == {"staff", "everybody"}
    assert anna.addresses == ("anna@example.test",)
    for keys, groups in (
        ({"member_of": "memberOf"}, {"staff"}),
        ({"group_base": samba.BASE, "nested": True}, {"staff", "everybody"}),
    ):
        found = await of_domain(domain, **keys).check(HERE, "anna", right)
        assert isinstance(found, Identity) and found.groups == groups
    for user, answer in {
        "must": (Code.EXPIRED, "Your password must be changed before you can log in"),
        "gone": (Code.EXPIRED, "Your account has expired"),
        "off": (Code.CONTACT_ADMIN, "Your account is disabled"),
        "locked": Denied.WRONG,  # it says so to who guesses, too
    }.items():
        assert await told(users, user, right) == answer, user
        assert await told(users, user, b"x") is Denied.WRONG
    assert "locked is not let in: the account is locked" in caplog.text


async def test_every_protocol_is_alike_with_an_active_directory(
    domain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    users = of_domain(domain)
    await all_ways("auth_ldap", users, tmp_path, capfd, right=PASSWORD.encode())


async def test_users_log_in_at_an_active_directory_without_a_search(domain: Path) -> None:
    right = PASSWORD.encode()
    users = of_domain(domain, user_dn="%n@example.test", service_dn="", service_password="")
    anna = await users.check(HERE, "anna", right)
    assert isinstance(anna, Identity) and anna.addresses == ("anna@example.test",)
    assert await users.check(HERE, "anna", b"x") is Denied.UNKNOWN
    for odd in (f"cn=anna,cn=Users,{samba.BASE}", "anna+x", "a=b"):
        assert await users.check(HERE, odd, right) is Denied.UNKNOWN
    # whoever calls themselves as another is called is not that other
    other = of_domain(domain, user_dn="%n@example.test", filter="(sAMAccountName=locked)")
    assert await other.check(HERE, "anna", right) is Denied.UNKNOWN


@pytest.mark.parametrize(
    ("keys", "what", "cure"),
    [
        ({"base": "dc=nowhere"}, "dc=nowhere: no such entry", "plugins.auth_ldap.base"),
        ({"service_password": "x"}, "invalid credentials", "set service_dn"),
        ({"service_dn": "", "service_password": ""}, "operations error", "who may search"),
        ({"ca": None}, "not believed", "plugins.auth_ldap.ca"),
        (
            {"servers": ("ldap://localhost",), "starttls": False},
            "it wants a stronger way in",
            "starttls = true",
        ),
    ],
)
async def test_what_is_set_wrong_for_an_active_directory_is_told_with_its_cure(
    domain: Path, keys: dict[str, Any], what: str, cure: str
) -> None:
    (fault,) = await of_domain(domain, **keys).diagnose()
    assert what in fault.what
    assert cure in fault.cure


# --- OpenLDAP, with its password policy


@pytest.fixture(scope="module")
def openldap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with running_slapd(tmp_path_factory.mktemp("slapd")) as server:
        yield server


async def test_a_password_policy_of_openldap_is_told(
    openldap: Slapd, caplog: pytest.LogCaptureFixture
) -> None:
    users = make_auth_backend(
        Settings(
            servers=(f"ldaps://localhost:{openldap.tls}",),
            ca=openldap.ca,
            service_dn=f"cn=murder,{slapd.BASE}",
            service_password="service",
            base=slapd.BASE,
        )
    )
    expired = (Code.EXPIRED, "Your password has expired: set a new one")
    must = (Code.EXPIRED, "Your password must be changed before you can log in")
    assert await told(users, "old", b"secret") == expired
    assert await told(users, "must", b"secret") == must
    assert await told(users, "locked", b"secret") is Denied.WRONG
    assert "locked is not let in: the account is locked" in caplog.text
    for user in ("old", "must"):
        assert await told(users, user, b"x") is Denied.WRONG
    assert isinstance(await told(users, "anna", b"secret"), Identity)


@pytest.mark.parametrize("value", [b"", b"\x30", b"\x30\x03\x81\x01", b"\x02\x01\x01", b"\x30\x80"])
def test_odd_controls_say_nothing(value: bytes) -> None:
    assert verdict_of(Result(49, "", "", ((CONTROL, value),))) is None
