"""A Cyrus with virtual domains sends a user to a backend of ours, and has them back: their filters sort mail on either side,
and the same name in another domain is somebody else.
"""

import smtplib
from pathlib import Path

from tests.cyrus.conftest import Lab
from tests.cyrus.our_nodes import our_node, rows_at
from tests.cyrus.our_roles import Imap, message, ok, our_backend, subjects
from tests.kit.managesieve import ManageSieve

TARGET = "127.0.0.13"
USERS = ("user1@one.test", "user1@two.test")
INBOX = {user: f"user/user1@{user.partition('@')[2]}" for user in USERS}
SORT = (
    b'require "fileinto";\r\nif header :contains "subject" "list" { fileinto "INBOX/Lists"; }\r\n'
)
OLDER = (
    b"Subject: toss\r\nContent-Type: application/sieve; charset=utf-8\r\n"
    b'Content-Disposition: attachment;\r\n\tfilename="0a-1b"\r\n\r\nkeep;\r\n'
)
TOSS = b'if header :contains "subject" "spam" { discard; }\r\n'


def delivered(host: str, subject: str, user: str) -> int:
    """By LMTP, as a frontend does it."""
    with smtplib.LMTP(host, 24, local_hostname="mta.test", timeout=60) as client:
        client.ehlo_or_helo_if_needed()
        if client.has_extn("auth"):
            client.login("murder", "secret")
        refused = client.sendmail("sender@example.org", [user], message(subject))
        return 550 if refused else 250


def logged_in(host: str, user: str) -> Imap:
    client = Imap(host, timeout=30)
    client.authenticate("PLAIN", lambda _: f"{user}\0murder\0secret".encode())
    return client


def filters_of(host: str, user: str) -> tuple[dict[str, bool], list[str]]:
    """Their names, which is active; and their texts."""
    with ManageSieve(host) as sieve:
        assert sieve.login("murder", "secret", user).is_ok
        scripts = sieve.scripts()
        return scripts, [sieve.ask(f'GETSCRIPT "{name}"') for name in sorted(scripts)]


def check_sorting(host: str, user: str, have: list[str]) -> None:
    """What comes to the user is sorted by the script that is active, and by no other."""
    client = logged_in(host, user)
    assert subjects(client, "INBOX/Lists") == have
    before = subjects(client, "INBOX")
    for subject in ("list", "spam"):
        assert delivered(host, subject, user) == 250
    assert subjects(client, "INBOX/Lists") == [*have, "list"]
    assert subjects(client, "INBOX") == [*before, "spam"]
    client.logout()


def test_filters_of_a_domains_user_go_along_both_ways(cyrus_parts: Lab, tmp_path: Path) -> None:
    lab, (user, other) = cyrus_parts, USERS
    lab.run("gen", LAB_VIRTDOMAINS="userid")
    here = lab.backends[0]
    more = {"takes_xfer_from": ["murder"]}
    also = {"namespace": {"domains": True}}
    with (
        our_node(tmp_path / "master", "mupdate.murder.test", *lab.master),
        our_backend(tmp_path / "be9", "be9", TARGET, lab.master[0], more, also),
    ):
        lab.run("start", "be1")
        admin = logged_in(here, "cyrus")
        for one in USERS:
            admin.ask(f"CREATE {INBOX[one]}")
        for one, names in ((user, ("sort", "toss")), (other, ("toss",))):
            client = logged_in(here, one)
            client.ask("CREATE INBOX/Lists")
            client.logout()
            with ManageSieve(here) as sieve:
                assert sieve.login("murder", "secret", one).is_ok
                for name in names:
                    sieve.ask(f'PUTSCRIPT "{name}"', SORT if name == "sort" else TOSS)
                sieve.ask(f'SETACTIVE "{names[0]}"')
        check_sorting(here, user, [])
        kept = filters_of(here, user)
        assert kept[0] == {"sort": True, "toss": False}

        assert "* OK USER" in admin.ask(f"XFER {INBOX[user]} be9.murder.test")
        assert filters_of(TARGET, user) == kept
        check_sorting(TARGET, user, ["list"])
        assert filters_of(here, other)[0] == {"toss": True}  # who has stayed

        with ManageSieve(TARGET) as sieve:
            assert sieve.login("murder", "secret", user).is_ok
            sieve.ask('RENAMESCRIPT "sort" "by lists"')
        kept = filters_of(TARGET, user)
        ours = Imap(TARGET, timeout=30)
        ours.login("cyrus", "secret")
        older = f"user/user1/#sieve@{user.partition('@')[2]}"
        ours.ask(f"SETACL {older} cyrus lrsi")
        ok(ours.append(older, "", "", OLDER))  # of which a Cyrus would die
        assert "toss is stored" in ours.attempt(f"XFER {INBOX[user]} be1.murder.test")
        with ManageSieve(TARGET) as sieve:
            assert sieve.login("murder", "secret", user).is_ok
            sieve.ask('PUTSCRIPT "toss"', TOSS)
        assert "* OK USER" in ours.ask(f"XFER {INBOX[user]} be1.murder.test")
        assert filters_of(here, user) == kept
        assert kept[0] == {"by lists": True, "toss": False}
        check_sorting(here, user, ["list", "list"])  # by what Cyrus has compiled of it
        at = {row[1]: row[2].partition(b"!")[0] for row in rows_at(lab.master[0])}
        assert {at[name] for name in at if b"user1" in name} == {b"be1.murder.test"}, at
        for client in (admin, ours):
            client.logout()
