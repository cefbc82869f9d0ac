"""Two backends of ours behind a real Cyrus frontend: it proxies IMAP and POP3 to them, copies between them, and its LMTP
proxy delivers to them."""

from contextlib import ExitStack
from pathlib import Path

from tests.cyrus.conftest import Lab
from tests.cyrus.our_nodes import rows_at
from tests.cyrus.our_roles import deliver, logged_in, message, ok, our_backend, popped, subjects
from tests.kit.waiting import until


def test_a_cyrus_frontend_before_two_backends_of_ours(cyrus_parts: Lab, tmp_path: Path) -> None:
    lab = cyrus_parts
    with ExitStack() as stack:
        lab.run("start", "mupdate")
        for name, host in zip(("be1", "be2"), lab.backends, strict=True):
            stack.enter_context(our_backend(tmp_path / name, name, host, lab.master[0]))
        for backend, user in zip(lab.backends, ("user1", "user2"), strict=True):
            admin = logged_in(backend, "cyrus")
            ok(admin.create(f"user/{user}"))
            admin.logout()
        lab.run("start", "fe1")
        until(lambda: len(rows_at(lab.frontend)) >= 2, "the Cyrus frontend gets a list")
        said = deliver(lab.frontend, "mail", "user1", "user2", "nobody", as_murder=True)
        assert [said[user][0] for user in ("user1", "user2", "nobody")] == [250, 250, 550], said
        for user in ("user1", "user2"):
            assert popped(lab.frontend, user) == [b"mail"]
        one, two = logged_in(lab.frontend, "user1"), logged_in(lab.frontend, "user2")
        for client in (one, two):
            ok(client.append("INBOX", r"(\Seen)", "", message("own")))
            assert subjects(client, "INBOX") == ["mail", "own"]
            client.ask("CREATE INBOX/both")
        one.ask("SETACL INBOX/both user2 lrswipkxtecd")
        two.ask("SETACL INBOX/both user1 lrswipkxtecd")
        assert "user/user2/both" in one.ask('LIST "" *').replace('"', "")
        for client, other in ((one, "user/user2/both"), (two, "user/user1/both")):
            client.ask("SELECT INBOX")
            client.ask("UID COPY 1:2 " + other)
            client.ask("UNSELECT")
            assert subjects(client, other) == ["mail", "own"]
        for client in (one, two):
            client.ask("RENAME INBOX/both INBOX/mine")
            client.ask("DELETE INBOX/mine")
            assert "INBOX/mine" not in client.ask('LIST "" *')
            client.logout()
