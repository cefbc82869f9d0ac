"""Mailboxes move between backends (XFER): unharmed, undone, interrupted at every step, and in a storm of kills.

MURDER_MOVE_STORM_S lengthens the storm (default 12 s).
"""

import contextlib
import imaplib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demo import ROOT, Demo, running_demo
from tests.faults.test_kill import USERS, Load, check_lists_agree, check_mail

STORM_S = float(os.environ.get("MURDER_MOVE_STORM_S", "12"))
SOURCE_STEPS = (
    *("round", "stopped", "frozen", "verified", "handing", "deactivated", "let go"),
    *("committed", "done"),
)
TARGET_STEPS = ("received", "prepared", "shown", "announced")
for word in ("XFER", "XFERS"):
    imaplib.Commands[word] = ("AUTH",)  # type: ignore[attr-defined] # imaplib's own list of commands


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", str(USERS), "--no-tls-required") as running:
        yield running


Facts = dict[str, Any]


def facts(client: imaplib.IMAP4) -> dict[str, Facts]:
    """All that a client may remember of a user's mailboxes."""
    found: dict[str, Facts] = {}
    for line in client.list()[1]:
        name = line.decode().rsplit(" ", 1)[1]
        words = "(MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ UNSEEN MAILBOXID)"
        status = client.status(name, words)[1][0].decode().partition("(")[2]
        client.select(name, readonly=True)
        rows = client.uid("FETCH", "1:*", "(FLAGS INTERNALDATE MODSEQ EMAILID BODY.PEEK[])")[1]
        acl = client.getacl(name)[1]
        shown = [re.sub(rb"^\d+ ", b"", part) for row in rows if row for part in _parts(row)]
        found[name] = {"status": status, "rows": [_plain(part) for part in shown], "acl": acl}
    found["subscribed"] = {"names": sorted(str(line) for line in client.lsub()[1])}
    found["quota"] = {"limits": client.getquotaroot("INBOX")}
    return found


def _parts(row: Any) -> list[bytes]:
    return list(row) if isinstance(row, tuple) else [row]


def _plain(part: bytes) -> bytes:
    return re.sub(rb"\\Recent ?", b"", part).replace(b" )", b")")


def furnish(demo: Demo, user: int) -> dict[str, Facts]:
    """Give a user something to lose, once."""
    with demo.imap(demo.frontend, demo.user(user)) as client:
        if client.status("INBOX", "(MESSAGES)")[1][0].endswith(b" 0)"):
            for number in range(12):
                body = f"Subject: {number}\r\n\r\n" + "x\r\n" * (40_000 if number % 4 == 0 else 3)
                client.append("INBOX", r"(\Seen $Work)" if number % 2 else "", "", body.encode())
            client.select("INBOX")
            client.store("3,5", "+FLAGS", r"(\Deleted)")
            client.expunge()
            client.create("INBOX/Sub")
            client.create("INBOX/Sub/deep")
            client.append("INBOX/Sub/deep", r"(\Flagged)", "", b"Subject: deep\r\n\r\nhello\r\n")
            client.subscribe("INBOX/Sub")
            client.setacl("INBOX/Sub", demo.user(user % USERS + 1), "lrs")
        return facts(client)


def now(demo: Demo, user: int) -> dict[str, Facts]:
    """As a client sees it through the frontend; waits while the mailbox is on its way."""
    end = time.monotonic() + 30
    while True:
        try:
            with demo.imap(demo.frontend, demo.user(user)) as client:
                return facts(client)
        except (imaplib.IMAP4.error, OSError, AttributeError):
            assert time.monotonic() < end
            time.sleep(0.1)  # the frontend looks for a backend that was down


def homes(demo: Demo, user: int) -> list[str]:
    """The backends that show a user's INBOX."""
    found = []
    for backend in demo.backends:
        with demo.imap(backend, "admin") as admin:
            if admin.list('""', f"user/{demo.user(user)}")[1] != [None]:
                found.append(backend["node"])
    return found


def pair(demo: Demo, user: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The backend where a user is, and the other."""
    (home,) = homes(demo, user)
    source = next(one for one in demo.backends if one["node"] == home)
    return source, next(one for one in demo.backends if one is not source)


def xfer(demo: Demo, user: int, source: dict[str, Any], target: dict[str, Any]) -> tuple[str, Any]:
    with demo.imap(source, "admin") as admin:
        return admin._simple_command("XFER", f"user/{demo.user(user)}", target["name"])  # type: ignore[attr-defined] # no public way


def moves(demo: Demo, backend: dict[str, Any], verb: str = "LIST") -> list[dict[str, Any]]:
    """XFERS, read."""
    with demo.imap(backend, "admin") as admin:
        admin._simple_command("XFERS", verb)  # type: ignore[attr-defined] # no public way
        told = admin.untagged_responses.get("XFERS", [])
    found = []
    for octets in told:
        text = b"".join(_parts(octets)).decode()
        found.append(
            json.loads(json.loads(text) if text.startswith('"') else text[text.index("{") :])
        )
    return found


def settled(demo: Demo) -> None:
    """Until no move is under way."""
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            states = [one["state"] for backend in demo.backends for one in moves(demo, backend)]
            if not {"copying", "stopped", "handing", "prepared", "committed"} & set(states):
                return
        assert time.monotonic() < end, [moves(demo, backend) for backend in demo.backends]
        time.sleep(0.1)  # somebody goes on with it every few seconds; nobody tells


def test_a_user_moves_and_comes_back_unharmed(demo: Demo) -> None:
    before = furnish(demo, 1)
    source, target = pair(demo, 1)
    assert xfer(demo, 1, source, target)[0] == "OK"
    assert homes(demo, 1) == [target["node"]]
    assert now(demo, 1) == before
    with demo.imap(demo.frontend, demo.user(1)) as client:
        client.select("INBOX")
        client.store("1", "+FLAGS", r"(\Answered)")
        client.append("INBOX", "", "", b"Subject: meanwhile\r\n\r\nx\r\n")
        between = facts(client)
    assert xfer(demo, 1, target, source)[0] == "OK"
    assert now(demo, 1) == between
    back = next(one for one in moves(demo, target) if one["side"] == "out")
    assert back["messages"] == 1, "only what is new goes back"
    check_lists_agree(demo)


def test_who_is_no_administrator_moves_nothing(demo: Demo) -> None:
    source, target = pair(demo, 2)
    with demo.imap(source, demo.user(2)) as client:
        for words in (("XFER", "INBOX", target["name"]), ("XFERS", "LIST"), ("XTAKE",)):
            imaplib.Commands["XTAKE"] = ("AUTH",)  # type: ignore[attr-defined] # imaplib's own list
            answer = client._simple_command(*words)  # type: ignore[attr-defined] # no public way
            assert answer[0] == "NO" and b"NOPERM" in answer[1][0]


def test_a_move_to_nowhere_says_so_and_changes_nothing(demo: Demo) -> None:
    before = furnish(demo, 2)
    source, target = pair(demo, 2)
    with demo.imap(source, "admin") as admin:
        mailbox = f"user/{demo.user(2)}"
        answer = admin._simple_command("XFER", mailbox, source["name"])  # type: ignore[attr-defined] # no public way
        assert answer[0] == "NO" and b"already" in answer[1][0]
        answer = admin._simple_command("XFER", "user/nobody", target["name"])  # type: ignore[attr-defined] # no public way
        assert answer[0] == "NO" and b"NONEXISTENT" in answer[1][0]
    assert now(demo, 2) == before


@pytest.mark.parametrize("words", [("XFER", "{}", "{}"), ("RENAME", "{}", "{}", "{}!default")])
def test_an_administrator_moves_a_user_through_a_frontend(
    demo: Demo, words: tuple[str, ...]
) -> None:
    before = furnish(demo, 4)
    _, target = pair(demo, 4)
    mailbox = f"user/{demo.user(4)}"
    filled = [words[0], *(mailbox for _ in words[1:-1]), words[-1].format(target["name"])]
    with demo.imap(demo.frontend, demo.user(4)) as client:
        answer = client._simple_command(*(filled if words[0] == "XFER" else ["XFER", "INBOX", "x"]))  # type: ignore[attr-defined] # no public way
        assert answer[0] == "NO" and b"NOPERM" in answer[1][0]
    with demo.imap(demo.frontend, "admin") as admin:
        assert admin._simple_command(*filled)[0] == "OK"  # type: ignore[attr-defined] # no public way
    assert homes(demo, 4) == [target["node"]]
    assert now(demo, 4) == before


@contextlib.contextmanager
def dying(demo: Demo, backend: dict[str, Any], step: str) -> Iterator[subprocess.Popen[bytes]]:
    """This backend, run so that it dies at that step; started anew behind it."""
    demo.node("stop", backend["node"])
    config = demo.folder / backend["node"] / "murder.toml"
    script = Path(__file__).parent / "dying_node.py"
    with (demo.folder / "dying.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, script, step, "serve", "--role", "backend", "--config", config],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                demo.imap(backend, "admin").logout()
                break
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)  # it has no way to tell this test
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        demo.node("start", backend["node"])


@pytest.mark.parametrize("step", [*SOURCE_STEPS, *(f"target {step}" for step in TARGET_STEPS)])
def test_killed_at_any_step_a_move_is_finished_by_the_next_start(demo: Demo, step: str) -> None:
    furnish(demo, 3)
    with demo.imap(demo.frontend, demo.user(3)) as client:
        client.append("INBOX", "", "", b"Subject: new\r\n\r\nhas not been there yet\r\n")
        before = facts(client)
    source, target = pair(demo, 3)
    victim = target if step.startswith("target") else source
    with dying(demo, victim, step.removeprefix("target ")) as process:
        try:
            with demo.imap(source, "admin") as admin:
                admin.sock.settimeout(2)
                admin._simple_command("XFER", f"user/{demo.user(3)}", target["name"])  # type: ignore[attr-defined] # no public way
        except (OSError, imaplib.IMAP4.error):
            pass  # the source is dead, or waits for the target
        assert process.wait(20) == 9, f"it did not come to {step}"
    settled(demo)
    assert homes(demo, 3) == [target["node"]]
    assert now(demo, 3) == before
    check_lists_agree(demo)


def test_moves_in_a_storm_of_kills_lose_and_double_nothing(demo: Demo) -> None:
    """Users go to and fro under deliveries and appends, and a random process is killed every few seconds."""
    load = Load(demo, "storm")
    for thread in load.threads:
        thread.start()
    chance = random.Random(7)
    end, kills, done = time.monotonic() + STORM_S, 0, 0
    next_kill = time.monotonic() + 2
    try:
        while time.monotonic() < end:
            with contextlib.suppress(OSError, imaplib.IMAP4.error, ValueError):
                user = chance.randint(1, USERS)
                source, target = pair(demo, user)
                with demo.imap(source, "admin") as admin:
                    admin.sock.settimeout(3)
                    answer = admin._simple_command(
                        "XFER", f"user/{demo.user(user)}", target["name"]
                    )  # type: ignore[attr-defined] # no public way
                    done += answer[0] == "OK"
            if time.monotonic() > next_kill:
                victim = chance.choice(("be1", "be2", "mupdate"))
                demo.node("kill", victim)
                demo.node("start", victim)
                kills += 1
                next_kill = time.monotonic() + chance.uniform(1.5, 4)
    finally:
        load.stopping.set()
        for thread in load.threads:
            thread.join(60)
    settled(demo)
    assert done and kills
    check_mail(demo, load)
    for user in range(1, USERS + 1):
        assert len(homes(demo, user)) == 1
    check_lists_agree(demo)
