"""`murder ctl mailbox unexpunge` on a running murder, as an operator runs it."""

from tests.cli.ctl.test_ctl_mailboxes import Ctl
from tests.kit.demo import message, running_demo


def test_an_expunged_message_comes_back(archive: object) -> None:
    with running_demo("--users", "1", "--backends", "1", "--no-tls-required") as demo:
        ctl, name = Ctl(demo), f"user/{demo.user(1)}"
        for text in ("one", "two"):
            assert demo.deliver(demo.frontend, demo.user(1), message(text)).startswith("250")
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
            assert "SUBJECT" not in peer.ok("UID FETCH 1:* (FLAGS)")[0]
        assert f"{len(known) - 1} messages back" in ctl(
            "mailbox", "unexpunge", name, "--all"
        ).replace("1 message back", "1 messages back")
        assert "Nothing of that" in ctl("mailbox", "unexpunge", name, "--all", code=1)
        assert "say 7" in ctl("mailbox", "unexpunge", name, "--uid", "x", code=2)
