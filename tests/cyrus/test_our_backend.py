"""A backend of ours in a real Cyrus murder: a Cyrus frontend proxies to it, and copies between it and a Cyrus backend."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.cyrus.conftest import Lab
from tests.cyrus.our_nodes import our_node, rows_at
from tests.cyrus.our_roles import logged_in, ok, our_backend, our_unified
from tests.kit.process import Program
from tests.kit.waiting import until

MESSAGE = b"Subject: hello\r\nFrom: ana@example.org\r\n\r\nHello\r\n"


@contextmanager
def master_of(lab: Lab, whose: str, folder: Path) -> Iterator[str]:
    """The murder's master, ours or Cyrus'; its address."""
    if whose == "cyrus":
        lab.run("start", "mupdate")
        yield lab.master[0]
        return
    with our_node(folder, "mupdate.murder.test", *lab.master):
        yield lab.master[0]


@pytest.mark.parametrize(
    ("whose", "start"), [("our", our_backend), ("cyrus", our_backend), ("cyrus", our_unified)]
)
def test_a_cyrus_frontend_works_on_a_backend_of_ours(
    cyrus_parts: Lab,
    tmp_path: Path,
    whose: str,
    start: Callable[[Path, str, str, str], AbstractContextManager[Program]],
) -> None:
    """The mailboxes are reserved and activated at the master, which is ours or Cyrus', and appear in the frontend. A unified
    node is a backend to it, too, and a frontend of the Cyrus backend's mail to others."""
    lab = cyrus_parts
    with (
        master_of(lab, whose, tmp_path / "master") as master,
        start(tmp_path / "be2", "be2", lab.backends[1], master),
    ):
        lab.run("start", "be1", "fe1")
        for backend, user in zip(lab.backends, ("user1", "user2"), strict=True):
            place = " be2.murder.test" if start is our_unified and user == "user2" else ""
            admin = logged_in(backend, "cyrus")
            admin.ask(f"CREATE user/{user}{place}")
            admin.logout()
        client = logged_in(lab.frontend, "user2")
        until(lambda: client.select()[0] == "OK", "the frontend has heard of the mailbox", 10)
        ok(client.append("INBOX", "(\\Seen)", "", MESSAGE))
        ok(client.append("INBOX", "", "", MESSAGE))
        assert ok(client.noop())
        assert ok(client.search(None, "SUBJECT", "hello")) == [b"1 2"]
        fetched = ok(client.fetch("1", "(FLAGS BODY.PEEK[])"))
        assert isinstance(fetched[0], tuple) and fetched[0][1] == MESSAGE
        ok(client.create("INBOX/sub"))
        ok(client.copy("1:2", "INBOX/sub"))
        assert ok(client.status("INBOX/sub", "(MESSAGES)")) == [b"INBOX/sub (MESSAGES 2)"]
        assert any(b'"INBOX/sub"' in line or b" INBOX/sub" in line for line in ok(client.list()))  # type: ignore[operator]
        ok(client.setacl("INBOX/sub", "user1", "lrs"))
        ok(client.subscribe("INBOX/sub"))
        assert any(b"INBOX/sub" in line for line in ok(client.lsub()))
        ok(client.rename("INBOX/sub", "INBOX/renamed"))
        names = [row[1] for row in rows_at(master) if row[2].startswith(b"be2.murder.test!")]
        assert names == [b"user.user2", b"user.user2.renamed"]
        # from our backend to the Cyrus one, and back
        other = logged_in(lab.frontend, "user1")
        ok(other.select("user/user2/renamed"))
        ok(other.copy("1:2", "INBOX"))
        assert ok(other.status("INBOX", "(MESSAGES)")) == [b"INBOX (MESSAGES 2)"]
        ok(other.setacl("INBOX", "user2", "lrs"))
        ok(client.select("user/user1"))
        ok(client.copy("1", "INBOX/renamed"))
        assert ok(client.status("INBOX/renamed", "(MESSAGES)")) == [b"INBOX/renamed (MESSAGES 3)"]
        if start is our_unified:
            for user in ("user1", "user2"):
                there = logged_in(lab.backends[1], user)
                assert ok(there.select()) == [b"2"]
                assert "Hello" in there.ask("FETCH 1 BODY[TEXT]")
                there.logout()
        ok(client.delete("INBOX/renamed"))
        assert b"user.user2.renamed" not in [row[1] for row in rows_at(master)]
        client.logout()
        other.logout()
