"""Users move between a backend on the spool and one on Maildir++, either way, with all that clients remember."""

import contextlib
import imaplib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.moves.test_moves import (
    dying,
    facts,
    furnish,
    homes,
    moves,
    now,
    pair,
    settled,
    xfer,
)
from tests.faults.moves.test_moves_verified import verified
from tests.faults.test_kill import check_lists_agree
from tests.kit.demo import Demo, running_demo
from tests.kit.process import END_S
from tests.rooms.cli.ctl.test_ctl_mailboxes import Ctl

KEYWORDS = " ".join(f"$K{number}" for number in range(30))  # more than Maildir++ has letters for
ODD = b"Subject: odd\r\n\r\none\r\r\ntwo\r\nbare\nend"
ODD_SENT = b"Subject: odd\r\n\r\none\r\n\r\ntwo\r\nbare\r\nend"  # by imaplib


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """be1 on the spool, be2 on Maildir++; all users are made at be1."""
    with running_demo("--users", "4", "--no-tls-required") as running:
        for user in range(1, 5):
            source, target = pair(running, user)
            if source["node"] == "be2":
                assert xfer(running, user, source, target)[0] == "OK"
                (over,) = [
                    one
                    for one in moves(running, source)
                    if one["state"] == "done" and one["root"].endswith(running.user(user))
                ]
                moves(running, source, f"LETGO {over['id']}")
        running.node("stop", "be2")
        file = running.folder / "be2" / "murder.toml"
        text = file.read_text()
        file.write_text(text.replace("[backend]", '[backend]\nstore = "store_maildir"'))
        running.node("start", "be2")
        yield running


def enriched(demo: Demo, user: int) -> dict[str, dict[str, Any]]:
    """What is hard to keep in a Maildir++."""
    furnish(demo, user)
    with demo.imap(demo.frontend, demo.user(user)) as client:
        client.append("INBOX", r"(\Draft $Work)", '"13-Dec-2011 14:15:16 -0330"', ODD)
        client.select("INBOX")
        client.store("2", "+FLAGS", f"({KEYWORDS})")
        client.append("INBOX/Sub", "", "", ODD)
        client.append("INBOX/Sub", "", "", ODD)
        client.select("INBOX/Sub")
        client.store("2", "+FLAGS", r"(\Deleted)")
        client.expunge()
        return facts(client)


def out(demo: Demo, backend: dict[str, Any], user: int) -> str:
    """The move by which a user has left."""
    ours = [one for one in moves(demo, backend) if one["side"] == "out"]
    return str([one for one in ours if one["root"] == f"user.{demo.user(user)}"][-1]["id"])


def test_a_user_moves_to_a_maildir_and_back(demo: Demo) -> None:
    before = enriched(demo, 1)
    source, target = pair(demo, 1)
    assert (source["node"], target["node"]) == ("be1", "be2")
    ctl, inbox = Ctl(demo), f"user/{demo.user(1)}"
    sub = f"{inbox}/Sub"
    expunged = {name: ctl.json("mailbox", "unexpunge", name)["kept"] for name in (inbox, sub)}
    assert [one["uid"] for one in expunged[sub]] == [2]
    assert xfer(demo, 1, source, target)[0] == "OK"
    assert now(demo, 1) == before
    files = {path.name for path in (demo.folder / "be2").rglob("cur/*")}
    assert len(files) == 13 and any("," in name and name.endswith(":2,S") for name in files)
    assert verified(demo, out(demo, source, 1), 0)["result"] == "same"
    for name, kept in expunged.items():  # what had been expunged has come along
        assert ctl.json("mailbox", "unexpunge", name)["kept"] == kept
    moves(demo, source, f"LETGO {out(demo, source, 1)}")  # so that all goes back over the wire
    with demo.imap(demo.frontend, demo.user(1)) as client:
        client.append("INBOX", "", "", b"Subject: meanwhile\r\n\r\nx\r\n")
        client.append("INBOX/Sub", "", "", b"Subject: next UID\r\n\r\nx\r\n")
        client.select("INBOX")
        client.store("2", "-FLAGS", r"($K3 $K29)")
        client.store("4", "+FLAGS", r"(\Deleted)")
        client.expunge()
        between = facts(client)
    assert "UIDNEXT 4" in between["INBOX/Sub"]["status"], "a UID was given twice"
    here = ctl.json("mailbox", "unexpunge", inbox)["kept"]
    assert len(here) == len(expunged[inbox]) + 1
    assert xfer(demo, 1, target, source)[0] == "OK"
    assert now(demo, 1) == between
    assert ctl.json("mailbox", "unexpunge", inbox)["kept"] == here
    assert verified(demo, out(demo, target, 1), 0)["result"] == "same"
    back = ctl.json("mailbox", "unexpunge", sub, "--all")["restored"]
    assert back == [{"before": 2, "uid": 4}]
    with demo.imap(demo.frontend, demo.user(1)) as client:
        client.select("INBOX/Sub")
        assert client.uid("FETCH", "4", "BODY.PEEK[]")[1][0][1] == ODD_SENT
    check_lists_agree(demo)


@pytest.mark.parametrize("step", ["target received", "target prepared", "frozen", "let go"])
def test_killed_on_the_way_to_or_from_a_maildir_it_is_finished(demo: Demo, step: str) -> None:
    enriched(demo, 2)
    with demo.imap(demo.frontend, demo.user(2)) as client:
        client.append("INBOX", "", "", b"Subject: new\r\n\r\nhas not been there yet\r\n")
        before = facts(client)
    source, target = pair(demo, 2)
    victim = target if step.startswith("target") else source
    with dying(demo, victim, step.removeprefix("target ")) as process:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            with demo.imap(source, "admin") as admin:
                admin.sock.settimeout(2)
                admin._simple_command("XFER", f"user/{demo.user(2)}", target["name"])
        assert process.wait(END_S) == 9, f"it did not come to {step}"
    settled(demo)
    assert homes(demo, 2) == [target["node"]]
    assert now(demo, 2) == before
    check_lists_agree(demo)


def test_a_name_that_no_maildir_can_have_is_refused_before_anything_goes_over(demo: Demo) -> None:
    source, target = pair(demo, 3)
    with demo.imap(demo.frontend, demo.user(3)) as client:
        client.append("INBOX", "", "", ODD)
        client.create("INBOX/" + "x" * 120)
        assert client.create("INBOX/" + "x" * 120 + "/" + "y" * 120)[0] == "OK"
        before = facts(client)
    answer = xfer(demo, 3, source, target)
    assert answer[0] == "NO" and b"250 octets" in answer[1][0], answer
    assert now(demo, 3) == before
    (failed,) = [one for one in moves(demo, source) if one["state"] == "failed"]
    assert failed["octets"] == 0
    moves(demo, source, f"ABORT {failed['id']}")
    check_lists_agree(demo)


def test_what_was_renamed_while_it_was_away_comes_back_under_its_new_name(demo: Demo) -> None:
    """The old copies are still kept, under the old names: two that have changed places, and a hierarchy."""
    user = 4
    with demo.imap(demo.frontend, demo.user(user)) as client:
        for name in ("a", "b", "c", "c/d"):
            client.create(f"INBOX/{name}")
            octets = f"Subject: {name}\r\n\r\nx\r\n".encode()
            client.append(f"INBOX/{name}", "", "", octets)
    assert xfer(demo, user, *pair(demo, user))[0] == "OK"
    for old, new in (("c", "e"), ("e", "c")):
        with demo.imap(demo.frontend, demo.user(user)) as client:
            for here, there in (("a", "x"), ("b", "a"), ("x", "b"), (old, new)):
                assert client.rename(f"INBOX/{here}", f"INBOX/{there}")[0] == "OK"
            client.append("INBOX/a", "", "", b"Subject: next\r\n\r\nx\r\n")
            before = facts(client)
        assert xfer(demo, user, *pair(demo, user))[0] == "OK"
        assert now(demo, user) == before
