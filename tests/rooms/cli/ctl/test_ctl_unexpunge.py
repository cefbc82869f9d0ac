"""`murder ctl mailbox unexpunge` on a running murder, as an operator runs it."""

from tests.kit.demo import message, reconfigure, running_demo
from tests.rooms.cli.ctl.test_ctl_mailboxes import Ctl


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
