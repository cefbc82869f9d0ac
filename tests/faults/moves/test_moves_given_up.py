"""A move that is given up while one end cannot be reached: the other end is told, or asks, and keeps nothing of it."""

import contextlib
import imaplib
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.moves.test_moves import dying, furnish, homes, moves, now, pair, xfer
from tests.faults.test_kill import check_lists_agree
from tests.kit.demo import Demo, running_demo
from tests.kit.process import END_S
from tests.kit.waiting import until

MANY = 30  # messages, so that something has come when a node dies


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "4", "--no-tls-required") as running:
        yield running


def record(demo: Demo, backend: dict[str, Any], side: str, move_id: str) -> dict[str, Any]:
    """What a backend remembers of a move; nothing while it is down."""
    with contextlib.suppress(OSError, imaplib.IMAP4.error):
        for one in moves(demo, backend):
            if one["side"] == side and one["id"] == move_id:
                return one
    return {}


def stored(demo: Demo, backend: dict[str, Any], user: int) -> list[bytes]:
    """The mailboxes of a user that stand in a backend's store, shown or not."""
    found: list[bytes] = []
    for file in (demo.folder / backend["node"]).rglob("mail.db"):
        if demo.user(user) == file.parent.name.rpartition(".")[2]:
            with contextlib.closing(sqlite3.connect(file)) as db:
                found += [row[0] for row in db.execute("SELECT name FROM mailbox")]
    return found


def begin(demo: Demo, user: int, source: dict[str, Any], target: dict[str, Any]) -> str:
    """Begin a move that does not come to its end; its id."""
    known = {one["id"] for one in moves(demo, source)}
    with contextlib.suppress(OSError, imaplib.IMAP4.error):
        with demo.imap(source, "admin") as admin:
            admin.sock.settimeout(2)
            admin._simple_command("XFER", f"user/{demo.user(user)}", target["name"])
    folder = next((demo.folder / source["node"]).rglob("moves"))
    (begun,) = {path.stem.removeprefix("out-") for path in folder.glob("out-*.json")} - known
    return str(begun)


@pytest.mark.parametrize("step", ["aborted", "told"])
def test_a_target_that_was_down_is_told_when_it_is_back(demo: Demo, step: str) -> None:
    """Also where the source is killed before it could tell, or before it has written down that it did."""
    before = furnish(demo, 1)
    source, target = pair(demo, 1)
    with dying(demo, source, step) as doomed:
        with dying(demo, target, "received") as process:
            move_id = begin(demo, 1, source, target)
            assert process.wait(END_S) == 9
            assert stored(demo, target, 1), "nothing had come"
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                with demo.imap(source, "admin") as admin:
                    admin._simple_command("XFERS", "ABORT", move_id)
            (file,) = (demo.folder / source["node"]).rglob(f"out-{move_id}.json")
            written = json.loads(file.read_text())
            assert (written["state"], written["owes_abort"]) == ("aborted", True)
        assert doomed.wait(END_S) == 9
    until(lambda: record(demo, source, "out", move_id).get("owes_abort") is False, "it owes it")
    assert record(demo, source, "out", move_id)["state"] == "aborted"
    assert record(demo, target, "in", move_id)["state"] == "aborted"
    assert stored(demo, target, 1) == []
    assert homes(demo, 1) == [source["node"]]
    assert now(demo, 1) == before
    check_lists_agree(demo)


@pytest.mark.parametrize("step", ["ending", "removed"])
def test_a_target_that_was_never_told_asks_and_dies_and_ends_it(demo: Demo, step: str) -> None:
    before = furnish(demo, 2)
    source, target = pair(demo, 2)
    with dying(demo, source, "round") as doomed:
        move_id = begin(demo, 2, source, target)
        assert doomed.wait(END_S) == 9
        folder = next((demo.folder / source["node"]).rglob("moves"))
        path = folder / f"out-{move_id}.json"
        told = json.loads(path.read_text()) | {"state": "aborted", "owes_abort": False}
        path.write_text(json.dumps(told))  # as a murder that did not remember what it owes
    assert stored(demo, target, 2), "nothing had come"
    with dying(demo, target, step) as doomed:
        assert doomed.wait(END_S) == 9, "it did not ask"
    until(lambda: record(demo, target, "in", move_id).get("state") == "aborted", "it is kept")
    assert stored(demo, target, 2) == []
    assert now(demo, 2) == before
    check_lists_agree(demo)


def test_an_operator_ends_what_came_from_a_server_that_is_no_more(demo: Demo) -> None:
    furnish(demo, 3)
    source, target = pair(demo, 3)
    with dying(demo, source, "round") as doomed:
        move_id = begin(demo, 3, source, target)
        assert doomed.wait(END_S) == 9
        (ended,) = [one for one in moves(demo, target, f"ABORT {move_id}") if one["side"] == "in"]
        assert ended["state"] == "aborted" and stored(demo, target, 3) == []
    # it comes back all the same, and goes on from the beginning
    until(lambda: record(demo, source, "out", move_id).get("state") == "done", "it is not over")
    assert xfer(demo, 3, target, source)[0] == "OK"
