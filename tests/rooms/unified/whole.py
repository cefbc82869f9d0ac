"""Unified nodes as processes, for tests: who is where, and what must go on without one of them."""

import imaplib
from typing import Any, Final

from tests.kit.demo import Demo, message
from tests.kit.waiting import until

NODES: Final = ("n1", "n2", "n3")
USERS: Final = 6


def node(demo: Demo, label: str) -> dict[str, Any]:
    return next(one for one in demo.backends if one["node"] == label)


def resident(demo: Demo, label: str) -> str:
    """A user whose mail is there: they are spread in turn."""
    return demo.user(NODES.index(label) + 1)


def others(label: str) -> list[str]:
    return [one for one in NODES if one != label]


def all_is_well_but(demo: Demo, away: str) -> None:
    """At the two that are left: mail of both is read, written and delivered, all is listed, and whose mail is away is told
    so, by each protocol as one that passes."""
    for at in others(away):
        server = node(demo, at)
        for home in others(away):
            with demo.imap(server, resident(demo, home)) as client:
                assert client.select()[0] == "OK"
                assert client.append("INBOX", "", "", message("written"))[0] == "OK"
            assert demo.deliver(server, resident(demo, home), message("sent")).startswith("250")
        with demo.imap(server, resident(demo, away)) as client:
            status, text = client.select()
            assert status == "NO"
            assert b"[UNAVAILABLE]" in (text[0] or b"")
            assert b"INBOX" in b"".join(row for row in client.list()[1] if isinstance(row, bytes))
        assert demo.deliver(server, resident(demo, away), message("held")).startswith("451")


def comes_back(demo: Demo, label: str) -> None:
    """Its mail is there again, at each node."""
    for at in NODES:

        def is_there(at: str = at) -> bool:
            try:
                with demo.imap(node(demo, at), resident(demo, label)) as client:
                    return client.select()[0] == "OK"
            except (OSError, imaplib.IMAP4.error):
                return False

        until(is_there, f"the mail of {label} at {at}")


def operator(demo: Demo) -> str:
    return str(demo.info["operator"])
