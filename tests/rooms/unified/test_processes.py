"""Unified nodes as processes of their own, the first of them the master too: each is killed and frozen, and everything but
its own mail goes on."""

import re
from collections.abc import Iterator

import pytest

from tests.kit.demo import Demo, message, running_demo
from tests.kit.process import run_murder
from tests.rooms.unified.whole import (
    NODES,
    USERS,
    all_is_well_but,
    comes_back,
    node,
    operator,
    others,
    resident,
)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    options = ("--unified", "3", "--users", str(USERS), "--no-tls-required")
    with running_demo(*options) as running:
        yield running


@pytest.mark.parametrize(  # n1 is the master; a frozen node costs each new connection to it ten seconds
    ("label", "breaks", "mends"),
    [("n2", "kill", "start"), ("n1", "kill", "start"), ("n1", "freeze", "thaw")],
)
def test_what_is_on_other_nodes_goes_on(demo: Demo, label: str, breaks: str, mends: str) -> None:
    at = others(label)[0]
    with demo.imap(node(demo, at), resident(demo, at)) as before:
        before.select()
        demo.node(breaks, label)
        try:
            all_is_well_but(demo, label)
            assert before.noop()[0] == "OK"
            if label != "n1":
                made = f"user/{demo.user(1)}/while-{breaks}"
                with demo.imap(node(demo, "n3"), "admin") as admin:
                    assert admin.create(made)[0] == "OK"
        finally:
            demo.node(mends, label)
    comes_back(demo, label)


def test_a_selected_mailbox_that_moves_is_followed_to_another_node_and_home(demo: Demo) -> None:
    user = resident(demo, "n1")
    with (
        demo.imap(node(demo, "n1"), user) as client,
        demo.peer(node(demo, "n2"), user="admin") as admin,
    ):
        client.append("INBOX", "(\\Flagged)", "", message("moves"))
        client.select()
        count = int((client.response("EXISTS")[1] or [b"0"])[-1] or 0) or 1
        for target in ("n2", "n3", "n1"):
            admin.ok(f"XFER user/{user} {node(demo, target)['name']}")
            status, told = client.fetch(str(count), "(FLAGS)")
            assert status == "OK"
            assert told[0]
        listed = run_murder("ctl", "mailbox", "list", f"user/{user}", "--config", operator(demo))
        assert node(demo, "n1")["name"] in listed.stdout


def test_operators_see_a_frontend_and_a_backend_on_each_node(demo: Demo) -> None:
    status = run_murder("ctl", "status", "--config", operator(demo)).stdout
    for label in NODES:
        for role in ("frontend", "backend"):
            assert re.search(rf"{label}\.murder\.test +{role}", status), status
    assert run_murder("ctl", "doctor", "--config", operator(demo)).returncode == 0
