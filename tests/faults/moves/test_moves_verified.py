"""`murder ctl move verify`: the same, changed since the move, and truly damaged copies, told apart."""

import contextlib
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.moves.test_moves import furnish, moves, pair, settled, xfer
from tests.faults.moves.test_moves_given_up import begin
from tests.kit.demo import Demo, reconfigure, running_demo
from tests.kit.process import ROOT, murder_command


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "6", "--no-tls-required") as running:
        yield running


def verified(demo: Demo, move_id: str, code: int) -> dict[str, Any]:
    """What it says as JSON, with that exit code; `told` gathers all words."""
    words = ("ctl", "move", "verify", move_id, "--json", "--config", str(demo.info["operator"]))
    done = subprocess.run(
        [*murder_command(), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    told["told"] = "\n".join(text for one in told["mailboxes"] for text in one["told"])
    return told


def moved(demo: Demo, user: int) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A furnished user who has moved: the move, where they were, where they are."""
    furnish(demo, user)
    source, target = pair(demo, user)
    assert xfer(demo, user, source, target)[0] == "OK"
    (record,) = [
        one
        for one in moves(demo, source)
        if one["side"] == "out"
        and one["state"] == "done"
        and one["root"] == f"user.{demo.user(user)}"
    ]
    return record["id"], source, target


def spool(demo: Demo, backend: dict[str, Any], user: int) -> Path:
    """The folder of a user's mail at a backend."""
    files = (demo.folder / str(backend["node"])).rglob("mail.db")
    return next(file.parent for file in files if file.parent.name == f"user.{demo.user(user)}")


def large_message(demo: Demo, backend: dict[str, Any], user: int) -> Path:
    """The file of a message: what was expunged and is kept has some, too."""
    folder = spool(demo, backend, user)
    query = "SELECT body.file FROM body, message WHERE message.body=body.id AND file IS NOT NULL"
    with contextlib.closing(sqlite3.connect(folder / "mail.db")) as db:
        (name,) = db.execute(query).fetchone()
    return next(file for file in folder.glob("files/*/*") if file.name == Path(name).name)


def alter(demo: Demo, backend: dict[str, Any], user: int, *statements: str) -> None:
    """Change rows behind the backend's back."""
    with contextlib.closing(sqlite3.connect(spool(demo, backend, user) / "mail.db")) as db:
        for statement in statements:
            assert db.execute(statement).rowcount > 0, statement
        db.commit()


def test_what_has_moved_is_the_same_and_what_happens_since_is_told_apart(demo: Demo) -> None:
    move_id, _, target = moved(demo, 1)
    told = verified(demo, move_id, 0)
    assert told["result"] == "same" and told["told"] == ""
    assert {one["mailbox"]: one["messages"] for one in told["mailboxes"]} == {
        "user/user1": 10,
        "user/user1/Sub": 0,
        "user/user1/Sub/deep": 1,
    }
    with demo.imap(demo.frontend, demo.user(1)) as client:
        client.append("INBOX", "", "", b"Subject: since\r\n\r\nx\r\n")
        client.select("INBOX")
        client.store("1", "+FLAGS", r"(\Answered)")
        client.store("2", "+FLAGS", r"(\Deleted)")
        client.expunge()
        client.setacl("INBOX/Sub", demo.user(3), "lr")
        client.rename("INBOX/Sub/deep", "INBOX/Sub/deeper")
        client.create("INBOX/New")
        client.unsubscribe("INBOX/Sub")
    with demo.imap(target, "admin") as admin:
        admin.setquota(f"user/{demo.user(1)}", "(STORAGE 12345)")
    told = verified(demo, move_id, 0)
    inbox = next(one for one in told["mailboxes"] if one["mailbox"] == "user/user1")
    assert told["result"] == "changed"
    assert (inbox["arrived"], inbox["expunged"], inbox["flags"]) == (1, 1, 1)
    for text in ("is called user.user1.Sub.deeper now", "rights were", "New has been made since"):
        assert text in told["told"]
    for text in ("12345", "no longer subscribed to user.user1.Sub since"):
        assert text in told["told"]


def test_damage_of_either_copy_is_found(demo: Demo) -> None:
    move_id, source, target = moved(demo, 2)
    inbox = "(SELECT id FROM mailbox WHERE name=CAST('user.user2' AS BLOB))"
    large = large_message(demo, target, 2)
    octets = large.read_bytes()
    large.write_bytes(octets[:-3] + b"y\r\n")  # one octet of it
    told = verified(demo, move_id, 1)
    assert told["result"] == "different" and "octets" in told["told"]
    large.unlink()
    assert "cannot be read at be2" in verified(demo, move_id, 1)["told"].replace("be1", "be2")
    large.write_bytes(octets)
    assert verified(demo, move_id, 0)["result"] == "same"
    alter(
        demo,
        target,
        2,
        f"UPDATE message SET flags=(flags|4)-(flags&4) WHERE uid=2 AND mailbox={inbox}",
    )
    assert "message 2 differs" in verified(demo, move_id, 1)["told"]
    alter(
        demo,
        target,
        2,
        f"UPDATE message SET flags=(flags|4)-(flags&4) WHERE uid=2 AND mailbox={inbox}",
    )
    alter(
        demo,
        target,
        2,
        f"UPDATE message SET internal_date=internal_date+1 WHERE uid=4 AND mailbox={inbox}",
        f"DELETE FROM message WHERE uid=6 AND mailbox={inbox}",
        f"DELETE FROM expunged WHERE uid=3 AND mailbox={inbox}",
        f"UPDATE mailbox SET uid_validity=uid_validity+1 WHERE id={inbox}",
    )
    alter(demo, source, 2, f"DELETE FROM message WHERE uid=8 AND mailbox={inbox}")
    told = verified(demo, move_id, 1)
    for text in ("message 4 differs", "dates", "message 6 is missing", "message 8 is missing"):
        assert text in told["told"]
    for text in ("what was expunged earlier differs", "UIDVALIDITY differs", "counts 10 messages"):
        assert text in told["told"]


def test_a_move_under_way_is_compared_as_far_as_it_has_come(demo: Demo) -> None:
    furnish(demo, 3)
    source, target = pair(demo, 3)
    for backend in demo.backends:
        reconfigure(demo, backend["node"], "[backend]", "[backend]\nmove_bytes_per_s = 30000")
    move_id = begin(demo, 3, source, target)
    told = verified(demo, move_id, 0)
    assert told["result"] == "changed" and "are transferred last" in told["told"]
    (deep,) = [one for one in told["mailboxes"] if one["mailbox"] == "user/user3/Sub/deep"]
    assert (deep["messages"], deep["arrived"]) == (0, 1), "not transferred yet"
    (inbox,) = [
        one for one in told["mailboxes"] if one["mailbox"] == "user/user3" and one["octets"]
    ]
    assert inbox["messages"] == 10
    damage = "UPDATE message SET flags=(flags|4)-(flags&4) WHERE uid=2"
    alter(demo, target, 3, damage)
    assert "message 2 differs" in verified(demo, move_id, 1)["told"]
    alter(demo, target, 3, damage)
    settled(demo)
    assert verified(demo, move_id, 0)["result"] == "same"


def test_there_is_nothing_to_compare_once_nothing_is_kept(demo: Demo) -> None:
    move_id, source, target = moved(demo, 4)
    words = ("ctl", "move", "verify", move_id, "--config", str(demo.info["operator"]))

    def refused() -> tuple[int, str]:
        command = [*murder_command(), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stderr

    demo.node("stop", target["node"])
    code, said = refused()
    assert code == 3 and target["name"] in said
    demo.node("start", target["node"])
    moves(demo, source, f"FORGET {move_id}")
    code, said = refused()
    assert code == 1 and "no two copies" in said
