"""A directory: filters and names hold whatever a user is called, and a real slapd says who is who."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.admin.cli.program import main
from murder.api import Denied, Identity, LoginAttempt
from murder.errors import UpstreamFailure, UpstreamKind
from plugins.auth_ldap import Settings, ber, make_auth_backend
from plugins.auth_ldap.directory import Directory
from plugins.auth_ldap.filters import (
    BadFilter,
    encode_filter,
    escape_value,
    fill,
    first_value,
)
from plugins.auth_ldap.messages import parse_message
from tests.kit.ports import free_port
from tests.kit.toml import Sections, write_config
from tests.plugins.auth.slapd import BASE, Slapd, running_slapd
from tests.rooms.cli.test_auth import typed

HERE = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)


# --- filters, names, octets


@given(st.text(max_size=40))
def test_whatever_a_user_is_called_it_is_one_value_of_a_filter(user: str) -> None:
    octets = user.encode("utf-8", "surrogateescape") if user.isprintable() else None
    if octets is None:
        return
    found = encode_filter(fill("(&(uid=%u)(objectClass=person))", user))
    tag, content, end = ber.read(found)
    parts = list(ber.elements(content))
    assert (tag, end, len(parts)) == (0xA0, len(found), 2)
    kind, equality = parts[0]
    assert kind == 0xA3
    assert [value for _, value in ber.elements(equality)] == [b"uid", octets]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_whatever_a_user_is_called_it_is_one_part_of_a_name(user: str) -> None:
    name = fill("uid=%u,ou=people", user)
    assert re.fullmatch(r"uid=(?:[\w-]|\\[0-9a-f]{2})*,ou=people", name, re.ASCII)
    assert first_value(f"uid={escape_value(user.encode())},ou=people") == user.strip()


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("(uid=anna)", b"\xa3\x0b\x04\x03uid\x04\x04anna"),
        ("(uid=*)", b"\x87\x03uid"),
        ("(cn=a*b)", b"\xa4\x0c\x04\x02cn\x30\x06\x80\x01a\x82\x01b"),
        ("(!(a=b))", b"\xa2\x08\xa3\x06\x04\x01a\x04\x01b"),
        ("(a>=b)", b"\xa5\x06\x04\x01a\x04\x01b"),
        ("(a:1.2:=b)", b"\xa9\x0b\x81\x031.2\x82\x01a\x83\x01b"),
    ],
)
def test_filters_become_octets(text: str, octets: bytes) -> None:
    assert encode_filter(text) == octets


@pytest.mark.parametrize(
    "text", ["", "uid=a", "(uid=a", "(uid=a))", "(=a)", "(uid=\\2)", "(!(a=b)(c=d))", "(" * 50]
)
def test_what_is_no_filter_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(BadFilter):
        encode_filter(text)


@given(st.binary(max_size=60))
def test_octets_that_are_no_ldap_are_refused(octets: bytes) -> None:
    try:
        parse_message(octets)
    except ber.Malformed:
        pass


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"base": "x", "servers": ("http://x",)},
        {"base": "x", "service_dn": "cn=x"},
        {"base": "x", "filter": "(uid=%n"},
        {"user_dn": "uid=anna"},
        {"base": "x", "fields": ("quota",)},
    ],
)
def test_settings_that_cannot_be_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Settings(**keys)


# --- a real directory


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with running_slapd(tmp_path_factory.mktemp("slapd")) as server:
        yield server


def directory(slapd: Slapd, **keys: Any) -> Directory:
    settings: dict[str, Any] = {
        "servers": (f"ldaps://localhost:{slapd.tls}",),
        "ca": slapd.ca,
        "service_dn": f"cn=murder,{BASE}",
        "service_password": "service",
        "base": f"ou=people,{BASE}",
    }
    return make_auth_backend(Settings(**{**settings, **keys}))


@pytest.mark.parametrize("url", ["ldaps://localhost:{tls}", "ldap://localhost:{plain}"])
async def test_a_user_is_searched_and_bound(slapd: Slapd, url: str) -> None:
    server = url.format(tls=slapd.tls, plain=slapd.plain)
    users = directory(
        slapd, servers=(server,), host="employeeNumber", fields=("no=employeeNumber",)
    )
    anna = Identity(
        "anna",
        addresses=("anna@example.org", "a.arendt@example.org"),
        name="Anna Arendt",
        host="be1.example.org",
        fields={"no": "be1.example.org"},
    )
    assert await users.check(HERE, "Anna@example.org", b"secret") == anna
    assert await users.check(HERE, "anna", b"wrong") is Denied.WRONG
    assert await users.check(HERE, "nobody", b"secret") is Denied.UNKNOWN
    assert await users.check(HERE, "*", b"secret") is Denied.UNKNOWN
    assert await users.check(HERE, "an*", b"secret") is Denied.UNKNOWN
    assert await users.check(HERE, "o'brien(x", b"secret") == Identity("o'brien(x", name="O'Brien")
    assert await users.lookup("anna") == anna
    assert await users.lookup("nobody") is None
    assert await users.diagnose() == []


async def test_an_empty_password_is_never_a_success(slapd: Slapd) -> None:
    for users in (directory(slapd), directory(slapd, user_dn=f"uid=%n,ou=people,{BASE}")):
        assert await users.check(HERE, "anna", b"") is Denied.UNKNOWN
        assert await users.verify("anna", b"") is None


async def test_a_user_is_bound_without_a_search(slapd: Slapd) -> None:
    users = directory(
        slapd, base="", service_dn="", service_password="", user_dn=f"uid=%n,ou=people,{BASE}"
    )
    found = await users.check(HERE, "anna", b"secret")
    assert isinstance(found, Identity)
    assert (found.user, found.name) == ("anna", "Anna Arendt")
    for user in ("nobody", "anna,ou=people", "anna+cn=Anna"):
        assert await users.check(HERE, user, b"secret") is Denied.UNKNOWN
    assert await users.check(HERE, "anna", b"wrong") is Denied.UNKNOWN


async def test_groups_come_from_a_search_nested_ones_too(slapd: Slapd) -> None:
    flat = directory(slapd, group_base=f"ou=groups,{BASE}")
    nested = directory(slapd, group_base=f"ou=groups,{BASE}", nested=True)
    one, other = [await each.check(HERE, "anna", b"secret") for each in (flat, nested)]
    assert isinstance(one, Identity) and one.groups == {"staff"}
    assert isinstance(other, Identity) and other.groups == {"staff", "everybody"}


async def test_an_address_is_somebodys(slapd: Slapd) -> None:
    users = directory(slapd, address_filter="(mail=%u)")
    assert await users.user_of_address("a.arendt@example.org") == "anna"
    assert await users.user_of_address("nobody@example.org") is None
    assert await directory(slapd).user_of_address("anna@example.org") is None


async def test_many_logins_share_connections(slapd: Slapd) -> None:
    users = directory(slapd)
    found = await asyncio.gather(*(users.check(HERE, "anna", b"secret") for _ in range(40)))
    assert {one.user for one in found if isinstance(one, Identity)} == {"anna"}
    assert len(users._idle) <= 8


@pytest.mark.parametrize(
    ("keys", "kind", "what", "cure"),
    [
        ({"base": "dc=nowhere"}, UpstreamKind.PROTOCOL, "dc=nowhere: no such entry", "base"),
        (
            {"base": "ou=branch,dc=example,dc=org"},
            UpstreamKind.PROTOCOL,
            "(ldap://branch.example.org/ou=branch,dc=example,dc=org",
            "not followed: name that in plugins.auth_ldap.servers",
        ),
        (
            {"service_password": "wrong"},
            UpstreamKind.AUTH,
            "invalid credentials",
            "set service_dn and service_password",
        ),
        ({"ca": None}, UpstreamKind.TLS, "not believed: self-signed certificate", "ldap.ca"),
        (
            {"service_dn": "", "service_password": ""},
            UpstreamKind.PROTOCOL,
            "insufficient access rights",
            "name somebody who may, service_dn and service_password",
        ),
    ],
)
async def test_what_is_set_wrong_is_told_with_its_cure(
    slapd: Slapd, keys: dict[str, Any], kind: UpstreamKind, what: str, cure: str
) -> None:
    users = directory(slapd, **keys)
    with pytest.raises(UpstreamFailure) as failed:
        await users.check(HERE, "anna", b"secret")
    assert failed.value.kind is kind
    (fault,) = await users.diagnose()
    assert what in fault.what
    assert cure in fault.cure


async def test_a_reference_to_another_server_is_told_once(
    slapd: Slapd, caplog: pytest.LogCaptureFixture
) -> None:
    users = directory(slapd, base="dc=example,dc=org")
    for _ in range(2):
        assert await users.check(HERE, "nobody", b"secret") is Denied.UNKNOWN
    (told,) = [line for line in caplog.messages if "not followed" in line]
    assert "may be at ldap://branch.example.org/" in told


async def test_two_entries_for_one_user_let_nobody_in(slapd: Slapd) -> None:
    with pytest.raises(UpstreamFailure, match="several entries"):
        await directory(slapd).check(HERE, "twin", b"secret")


async def test_the_next_server_is_asked_where_one_is_away(slapd: Slapd) -> None:
    dead = f"ldap://127.0.0.1:{free_port()}"
    users = directory(slapd, servers=(dead, f"ldaps://localhost:{slapd.tls}"))
    assert isinstance(await users.check(HERE, "anna", b"secret"), Identity)
    (fault,) = await users.diagnose()
    assert fault.what.startswith(dead)
    with pytest.raises(UpstreamFailure) as failed:
        await directory(slapd, servers=(dead,)).check(HERE, "anna", b"secret")
    assert failed.value.kind is UpstreamKind.CONNECT


async def test_a_server_that_was_restarted_is_asked_again(slapd: Slapd) -> None:
    users = directory(slapd)
    assert isinstance(await users.check(HERE, "anna", b"secret"), Identity)
    await asyncio.to_thread(slapd.stop)
    try:
        with pytest.raises(UpstreamFailure):
            await users.check(HERE, "anna", b"secret")
    finally:
        await asyncio.to_thread(slapd.start)
    assert isinstance(await users.check(HERE, "anna", b"secret"), Identity)
    await asyncio.to_thread(slapd.stop)
    # the connections that are kept are dead, and nobody has noticed
    await asyncio.to_thread(slapd.start)
    assert isinstance(await users.check(HERE, "anna", b"secret"), Identity)


def test_a_user_of_the_directory_is_disabled_here(
    slapd: Slapd,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By any name that the directory knows them by; and where it is away, by the name that was typed."""
    file = tmp_path / "murder.toml"
    keys = {"service_dn": f"cn=murder,{BASE}", "service_password": "service", "ca": str(slapd.ca)}

    def configure(*plugins: str, port: int) -> None:
        servers = [f"ldaps://localhost:{port}"]
        sections: Sections = {
            "node": {"name": "fe1.test", "data": "data", "roles": ["frontend"]},
            "auth": {"plugins": list(plugins)},
            "plugins.auth_ldap": {**keys, "servers": servers, "base": f"ou=people,{BASE}"},
        }
        write_config(file, sections)

    def murder(*words: str) -> tuple[int, str, str]:
        typed(monkeypatch, "secret\n")
        code = main(["auth", *words, "-c", str(file)])
        said = capsys.readouterr()
        return code, said.out, said.err

    configure("auth_file", "auth_ldap", port=slapd.tls)
    assert murder("test", "anna")[0] == 0
    code, out, err = murder("disable", "Anna@example.org")
    assert (code, err) == (0, "") and out.startswith(
        "anna: disabled; `murder ctl kick --user anna`"
    )
    code, _, err = murder("test", "anna")
    assert code == 1 and "disabled" in err
    assert json.loads(murder("list", "--json")[1]) == [
        {"user": "anna", "groups": [], "disabled": True}
    ]
    assert murder("enable", "anna@example.org")[:2] == (0, "anna: enabled\n")
    assert murder("test", "anna")[0] == 0
    code, out, err = murder("disable", "anan")
    assert code == 0 and out.startswith("anan: disabled")
    assert "no plugin of [auth] says now that there is a user anan" in err
    configure("auth_file", "auth_ldap", port=1)
    assert murder("disable", "anna")[0] == 0
    configure("auth_ldap", port=1)
    code, _, err = murder("disable", "anna")
    assert code == 1 and "put auth_file first into auth.plugins" in err
