"""Names of users in DNS: which there should be, and a real BIND that gets them."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from murder.config.dns import DnsConfig
from murder.config.value import Endpoint
from murder.errors import Refusal, UpstreamFailure
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, inbox_of
from murder.roles.mupdate.zone.names import difference, names_of, zone_lines
from murder.roles.mupdate.zone.server import ZoneServer
from tests.kit.programs.bind import KEY, Bind, bind, why_not

SUFFIX = "imap.example.org"
CONFIG = DnsConfig(suffix=SUFFIX)


def row(user: str, server: str = "be1.example.org") -> MailboxEntry:
    return MailboxEntry(inbox_of(user), EntryState.ACTIVE, f"{server}!default".encode(), b"")


def test_each_user_has_a_name_that_leads_home() -> None:
    below = MailboxEntry(
        MailboxName(inbox_of("anna") + b".Sent"), EntryState.ACTIVE, b"be2.example.org!x", b""
    )
    names = names_of([row("anna"), below, row("Bob", "be2.example.org")], CONFIG)
    assert list(zone_lines(names, CONFIG)) == [
        "$ORIGIN imap.example.org.",
        "$TTL 300",
        "bob\tCNAME\tbe2.example.org.",
        "anna\tCNAME\tbe1.example.org.",
    ]


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("anna_b", "no label of DNS"),
        ("j.doe", "no label of DNS"),
        ("-anna", "no label of DNS"),
        ("a" * 64, "no label of DNS"),
        ("müller", "no label of DNS"),
        ("anna", "DNS knows no case: Anna has the name already"),
        ("eve\nx CNAME evil", "no label of DNS"),
    ],
)
def test_who_can_have_no_name_is_told(user: str, why: str) -> None:
    names = names_of([row("Anna"), row(user)], CONFIG)
    assert names.targets == {"anna": "be1.example.org"}
    assert why in names.unfit[user]


def test_a_server_that_is_an_address_is_told() -> None:
    assert "no host name" in names_of([row("anna", "192.0.2.1")], CONFIG).unfit["anna"]


def test_users_of_domains_have_the_domain_in_their_names() -> None:
    assert names_of([row("anna@example.net")], CONFIG).targets == {
        "anna.example.net": "be1.example.org"
    }


def test_a_letter_leads_to_where_most_are() -> None:
    rows = [row("anna"), row("Alf"), row("ada", "be2.example.org"), row("bob", "be2.example.org")]
    names = names_of(rows, replace(CONFIG, by="letter"))
    assert names.targets == {"a": "be1.example.org", "b": "be2.example.org"}
    assert names.elsewhere == {"ada": "is at be2.example.org, the letter leads to be1.example.org"}


def test_what_others_have_made_is_left_alone() -> None:
    names = names_of([row("anna"), row("www"), row("mail")], CONFIG)
    there = {
        "www": "web.example.org",
        "mail": "",
        "gone": "be1.example.org",
        "ftp": "x.example.org",
    }
    found = difference(names, there, ["be1.example.org"])
    assert found.put == {"anna": "be1.example.org"}
    assert found.remove == {"gone": "be1.example.org"}
    assert found.foreign == {"www": "web.example.org", "mail": "other records"}


@pytest.fixture(scope="module")
def named() -> Iterator[Bind]:
    if reason := why_not():
        pytest.skip(reason)
    with bind(SUFFIX) as running:
        yield running


def config_at(named: Bind, **more: object) -> DnsConfig:
    place = Endpoint("127.0.0.1", named.port)
    config = replace(CONFIG, server=place, key_name="murder", key=KEY, timeout_s=5.0)
    return replace(config, **more)  # type: ignore[arg-type]


def test_a_real_server_takes_what_differs(named: Bind) -> None:
    server = ZoneServer(config_at(named))
    rows = [row(f"user{number}") for number in range(450)]  # several messages
    ours = ["be1.example.org", "be2.example.org"]
    server.change(difference(names_of(rows, CONFIG), server.records(), ours))
    assert named.cname(f"user0.{SUFFIX}") == "be1.example.org."
    assert named.cname(f"user449.{SUFFIX}") == "be1.example.org."
    moved = [row("user0", "be2.example.org"), *rows[2:]]  # and one has gone
    wanted = difference(names_of(moved, CONFIG), server.records(), ours)
    assert wanted.put == {"user0": "be2.example.org"}
    assert wanted.remove == {"user1": "be1.example.org"}
    server.change(wanted)
    assert named.cname(f"user0.{SUFFIX}") == "be2.example.org."
    assert named.cname(f"user1.{SUFFIX}") == ""
    assert named.cname(f"www.{SUFFIX}") == "web.example.org."
    again = difference(names_of(moved, CONFIG), server.records(), ours)
    assert not again.put and not again.remove


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"key_name": "stranger"}, "it does not know the TSIG key"),
        ({"key": "d3Jvbmc="}, "it does not know the TSIG key"),
        ({"zone": "example.org"}, "is [dns] zone a zone of it?"),
        ({"server": Endpoint("127.0.0.1", 1)}, "Connection refused; does it run"),
        ({"server": Endpoint("no.such.host.invalid", 53)}, "has no address"),
    ],
)
def test_what_is_wrong_is_told_with_its_cure(
    named: Bind, settings: dict[str, object], cure: str
) -> None:
    with pytest.raises(UpstreamFailure) as told:
        ZoneServer(config_at(named, **settings)).records()
    assert cure in str(told.value)


def test_changes_that_the_key_may_not_make_are_told(named: Bind) -> None:
    server = ZoneServer(config_at(named, key_name="reader"))
    with pytest.raises(UpstreamFailure, match="update-policy"):
        server.change(difference(names_of([row("zoe")], CONFIG), {}, []))


def test_a_key_that_is_missing_or_broken_is_told(named: Bind) -> None:
    with pytest.raises(Refusal, match="key_name and key_file are missing"):
        ZoneServer(config_at(named, key=""))
    with pytest.raises(Refusal, match="it is no base64"):
        ZoneServer(config_at(named, key="%%%"))
