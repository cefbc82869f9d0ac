"""`murder ctl mailbox unexpunge` on a running murder, as an operator runs it; and what else takes messages away and brings
them back, as the mail log tells it."""

from pathlib import Path

from tests.kit.demo import message, reconfigure, running_demo
from tests.rooms.cli.ctl.test_ctl_mailboxes import Ctl

LONG_AGO = '"02-Jan-2020 03:04:05 +0100"'
ARCHIVED = """[expiry."old"]
mailboxes = "user/%"
by = "received"
after_days = 30
action = "archive"

[log]
mail = "full"
"""
REMOVED = """[expiry."older"]
mailboxes = "user/*"
special_use = "\\\\Archive"
by = "received"
after_days = 60

[log]
mail = "full"
"""


def test_an_expunged_message_comes_back(archive: object) -> None:
    with running_demo("--users", "1", "--backends", "1", "--no-tls-required") as demo:
        ctl, name = Ctl(demo), f"user/{demo.user(1)}"
        reconfigure(demo, "be1", "[log]", '[log]\nmail = "full"')
        for text in ("one", "two"):
            octets = message(text, message_id=f"{text}@x")
            assert demo.deliver(demo.frontend, demo.user(1), octets).startswith("250")
        with demo.peer(demo.frontend, user=demo.user(1)) as peer:
            peer.until_ok("SELECT INBOX")
            known = peer.ok("UID SEARCH ALL")[0].split()[2:]
            peer.ok("STORE 1:* +FLAGS (\\Deleted)")
            peer.ok("EXPUNGE")
            listed = ctl.json("mailbox", "unexpunge", name)["kept"]
            assert [str(one["uid"]) for one in listed] == known
            said = ctl("mailbox", "unexpunge", name, "--list")
            assert listed[-1]["subject"] in said
            restored = ctl.json("mailbox", "unexpunge", name, "--uid", known[-1], "--since", "1h")
            assert [str(one["before"]) for one in restored["restored"]] == known[-1:]
            back = restored["restored"][0]["uid"]
            peer.ok("NOOP")
            assert peer.ok("UID SEARCH ALL") == [f"* SEARCH {back}"]
            peer.ok("CREATE INBOX/Kept")
            peer.ok("MOVE 1 INBOX/Kept")
            told = [
                one for one in ctl.json("message", "trace", "<two@x>") if one["role"] == "backend"
            ]
            events = [one["event"].removeprefix("message.") for one in told]
            assert events == ["delivered", "expunged", "unexpunged", "moved"]
            rows = [one["messages"] for one in told[1:]]
            assert [len(some) for some in rows] == [1, 1, 1]
            assert rows[0][0]["place"] == rows[1][0]["place"]
            assert rows[1][0]["to"] == rows[2][0]["place"]
            assert f"UID {known[-1]} back as UID {back}" in ctl("message", "trace", "two@x")
            peer.ok("SELECT INBOX/Kept")
            assert "SUBJECT" not in peer.ok("UID FETCH 1:* (FLAGS)")[0]
        assert f"{len(known) - 1} messages back" in ctl(
            "mailbox", "unexpunge", name, "--all"
        ).replace("1 message back", "1 messages back")
        assert "Nothing of that" in ctl("mailbox", "unexpunge", name, "--all", code=1)
        assert "say 7" in ctl("mailbox", "unexpunge", name, "--uid", "x", code=2)


def test_what_a_rule_of_age_a_backup_and_an_operator_do_to_a_message_is_told(
    archive: object, tmp_path: Path
) -> None:
    """Its whole life, by its Message-ID, by each place where it has been, and by its last one alone."""
    with running_demo("--users", "1", "--backends", "1", "--no-tls-required") as demo:
        ctl, user, vault = Ctl(demo), demo.user(1), str(tmp_path / "vault")
        reconfigure(demo, "be1", "[log]\n", ARCHIVED)
        shown = ctl("expire", "--dry-run")
        assert "there is no \\Archive" in shown and "away" not in shown
        with demo.peer(demo.frontend, user=user) as peer:
            peer.ok("CREATE INBOX/Old (USE (\\Archive))")
        with demo.imap(demo.frontend, user) as client:
            for id, date in (("aged@x", LONG_AGO), ("other@x", "")):
                assert client.append("INBOX", "", date, message(id, message_id=id))[0] == "OK"
        assert acted(ctl) == [("old", 1)]
        reconfigure(demo, "be1", ARCHIVED, REMOVED)
        assert acted(ctl) == [("older", 1)]
        kept = f"user/{user}/Old"
        assert len(ctl.json("mailbox", "unexpunge", kept, "--all")["restored"]) == 1
        assert ctl.json("backup", "run", "--to", vault)["messages"] == 2
        with demo.peer(demo.frontend, user=user) as peer:
            peer.ok("SELECT INBOX/Old")
            peer.ok("STORE 1:* +FLAGS (\\Deleted)")
            peer.ok("EXPUNGE")
        back = ("restore", "user", user, "--from", vault, "--yes")
        assert ctl.json(*back, "--into", "Restored")["messages"] == 2
        assert ctl.json(*back, "--instead")["messages"] == 2
        told = ctl.json("message", "trace", "<AGED@x>")
        events = ["appended", "moved", "expunged", "unexpunged", "expunged", "restored", "restored"]
        assert [one["event"].removeprefix("message.") for one in told] == [*events, "moved"]
        rows = [row for one in told for row in one["messages"]]
        assert len(rows) == len(told)  # nothing of the other message
        was = [row["place"] for row in rows]
        now = [row.get("to") for row in rows]
        # each goes on from where the one before it has left it; both restores from where it was at the backup
        assert was == [was[0], was[0], now[1], now[1], now[3], now[3], now[3], now[6]]
        assert [one.get("rule") for one in told[1:3]] == ["old", "older"]
        point = {one["source"] for one in told[5:7]}
        assert len(point) == 1 and next(iter(point)).startswith("the point ")
        assert ctl.json("message", "trace", now[7]) == told
        said = ctl("message", "trace", "aged@x").splitlines()
        assert f"in user/{user} " in said[0] and f"in user.{user}" not in "".join(said)
        assert "by the rule older of age" in said[2] and f"from {next(iter(point))}" in said[5]


def acted(ctl: Ctl) -> list[tuple[str, int]]:
    """What the rules of age do now."""
    rows = ctl.json("expire", "--yes")["expired"]
    return [(one["rule"], one["messages"]) for one in rows]
