"""Mailboxes move between backends (XFER): unharmed, undone, interrupted at every step, and in a storm of kills.

MURDER_MOVE_STORM_S lengthens the storm (default 12 s); MURDER_MOVE_STORM_SEED makes it another; with
MURDER_MOVE_STORM_WORKERS each node has so many, and with MURDER_MOVE_STORM_MAILDIR=1 a backend (2: two) has Maildir++.
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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.moves.move_storm import Clients, home_of, kill_something, run_ctl
from tests.faults.test_kill import USERS, check_lists_agree
from tests.kit.demo import Demo, running_demo
from tests.kit.process import END_S, ROOT, Program
from tests.kit.waiting import until

STORM_S = float(os.environ.get("MURDER_MOVE_STORM_S", "12"))
STORM_SEED = int(os.environ.get("MURDER_MOVE_STORM_SEED", "7"))
STORM_WORKERS = os.environ.get("MURDER_MOVE_STORM_WORKERS", "2")
STORM_MAILDIR = int(os.environ.get("MURDER_MOVE_STORM_MAILDIR", "0"))
SOURCE_STEPS = (
    *("round", "stopped", "frozen", "verified", "handing", "deactivated", "let go"),
    *("committed", "done"),
)
TARGET_STEPS = ("received", "prepared", "shown", "announced")
for word in ("XFER", "XFERS"):
    imaplib.Commands[word] = ("AUTH",)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", str(USERS), "--no-tls-required") as running:
        yield running


Facts = dict[str, Any]


def facts(client: imaplib.IMAP4) -> dict[str, Facts]:
    """All that a client may remember of a user's mailboxes."""
    found: dict[str, Facts] = {}
    for line in client.list()[1]:
        assert isinstance(line, bytes)
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

    def seen() -> dict[str, Facts] | None:
        try:
            with demo.imap(demo.frontend, demo.user(user)) as client:
                return facts(client)
        except (imaplib.IMAP4.error, OSError, AttributeError):
            return None  # the frontend looks for a backend that was down

    return until(seen, f"user {user} is there", every_s=0.1) or {}


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
        status, said = admin._simple_command("XFER", f"user/{demo.user(user)}", target["name"])
        return str(status), said


def moves(demo: Demo, backend: dict[str, Any], verb: str = "LIST") -> list[dict[str, Any]]:
    """XFERS, read."""
    with demo.imap(backend, "admin") as admin:
        admin._simple_command("XFERS", verb)
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
    under_way = {"copying", "stopped", "handing", "prepared", "committed"}

    def has_settled() -> bool:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            states = [one["state"] for backend in demo.backends for one in moves(demo, backend)]
            return not under_way & set(states)
        return False

    # somebody goes on with it every few seconds; nobody tells
    until(has_settled, lambda: [moves(demo, backend) for backend in demo.backends], 60, 0.1)


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
            imaplib.Commands["XTAKE"] = ("AUTH",)
            answer = client._simple_command(*words)
            assert answer[0] == "NO" and b"NOPERM" in answer[1][0]


def test_a_move_to_nowhere_says_so_and_changes_nothing(demo: Demo) -> None:
    before = furnish(demo, 2)
    source, target = pair(demo, 2)
    with demo.imap(source, "admin") as admin:
        mailbox = f"user/{demo.user(2)}"
        answer = admin._simple_command("XFER", mailbox, source["name"])
        assert answer[0] == "NO" and b"already" in answer[1][0]
        answer = admin._simple_command("XFER", "user/nobody", target["name"])
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
        answer = client._simple_command(*(filled if words[0] == "XFER" else ["XFER", "INBOX", "x"]))
        assert answer[0] == "NO" and b"NOPERM" in answer[1][0]
    with demo.imap(demo.frontend, "admin") as admin:
        assert admin._simple_command(*filled)[0] == "OK"
    assert homes(demo, 4) == [target["node"]]
    assert now(demo, 4) == before


@contextlib.contextmanager
def dying(demo: Demo, backend: dict[str, Any], step: str) -> Iterator[subprocess.Popen[bytes]]:
    """This backend, run so that it dies at that step; started anew behind it."""
    demo.node("stop", backend["node"])
    config = demo.folder / backend["node"] / "murder.toml"
    script = Path(__file__).parent.parent / "dying_node.py"
    command = [sys.executable, str(script), step, "serve", "--role", "backend", "--config"]
    program = Program(
        [*command, config], demo.folder / "dying.log", environment={"PYTHONPATH": str(ROOT)}
    )

    def answers() -> bool:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            demo.imap(backend, "admin").logout()
            return True
        assert program.lives, program.tail()
        return False

    try:
        program.start()
        until(answers, "it serves")
        assert program.process is not None
        yield program.process
    finally:
        program.kill()
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
                admin._simple_command("XFER", f"user/{demo.user(3)}", target["name"])
        except (OSError, imaplib.IMAP4.error):
            pass  # the source is dead, or waits for the target
        assert process.wait(END_S) == 9, f"it did not come to {step}"
    settled(demo)
    assert homes(demo, 3) == [target["node"]]
    assert now(demo, 3) == before
    check_lists_agree(demo)


TEAM = "shared/team"  # a hierarchy that moves as a whole


class Storm:
    """Moves of everything to and fro among three backends; ended, aborted, undone, forgotten as chance will have it."""

    def __init__(self, demo: Demo, roots: list[str], chance: random.Random) -> None:
        self._demo = demo
        self._roots = roots
        self._chance = chance
        self.done: Counter[str] = Counter()

    def once(self) -> None:
        """One act; who is dead just now refuses it."""
        act = self._chance.choices(
            (self._move, self._move_and_abort, self._undo, self._abort_any, self._let_go),
            (8, 3, 2, 1, 1),
        )[0]
        with contextlib.suppress(OSError, imaplib.IMAP4.error, ValueError):
            act()

    def _begin(self, admin: imaplib.IMAP4, root: str, source: dict[str, Any]) -> str:
        target = self._chance.choice([one for one in self._demo.backends if one != source])
        return str(admin._simple_command("XFER", root, target["name"])[0])

    def _move(self, wait_s: float = 5) -> None:
        root = self._chance.choice(self._roots)
        source = home_of(self._demo, root)
        if source is not None:
            with self._demo.imap(source, "admin") as admin:
                admin.sock.settimeout(wait_s)
                self.done["moved"] += self._begin(admin, root, source) == "OK"

    def _move_and_abort(self) -> None:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            self._move(self._chance.uniform(0.01, 0.3))
        self._abort_any()

    def _acted_on(self, verb: str, *states: str) -> None:
        backend = self._chance.choice(self._demo.backends)
        found = [one for one in moves(self._demo, backend) if one["state"] in states]
        for one in [one for one in found if one["side"] == "out"][-3:]:
            with self._demo.imap(backend, "admin") as admin:
                admin.sock.settimeout(5)
                said = admin._simple_command("XFERS", verb, one["id"])[0]
                self.done[f"{verb} {said}"] += 1

    def _abort_any(self) -> None:
        self._acted_on("ABORT", "copying", "stopped", "failed")

    def _let_go(self) -> None:
        self._acted_on("FORGET", "done")

    def _undo(self) -> None:
        backend = self._chance.choice(self._demo.backends)
        found = [one for one in moves(self._demo, backend) if one["side"] == "out"]
        found = [one for one in found if one["state"] == "done"]
        if found:
            code, _ = run_ctl(self._demo, "move", "undo", self._chance.choice(found)["id"])
            self.done[f"undo {code}"] += 1


def onto_maildir(demo: Demo, node: str) -> None:
    """Give a backend another store; who is there moves to the first one."""
    source = next(one for one in demo.backends if one["node"] == node)
    for user in range(1, USERS + 1):
        if homes(demo, user) == [node]:
            assert xfer(demo, user, source, demo.backends[0])[0] == "OK"
    for one in moves(demo, source):
        moves(demo, source, f"LETGO {one['id']}")
    demo.node("stop", node)
    file = demo.folder / node / "murder.toml"
    text = file.read_text()
    file.write_text(text.replace("[backend]", '[backend]\nstore = "store_maildir"'))
    demo.node("start", node)


def resume_failed(demo: Demo) -> None:
    """What gave up in the storm goes on, as an operator would have it."""
    for backend in demo.backends:
        for one in moves(demo, backend):
            if one["side"] == "out" and one["state"] == "failed":
                moves(demo, backend, f"RESUME {one['id']}")


def test_moves_in_a_storm_of_kills_lose_and_double_nothing() -> None:
    """Users and a shared hierarchy go to and fro among three backends under appends, flags, expunges and deliveries; every
    few seconds a random process is killed."""
    options = ("--backends", "3", "--workers", STORM_WORKERS, "--no-tls-required")
    with running_demo("--users", str(USERS), *options) as demo:
        for node in ("be2", "be3")[:STORM_MAILDIR]:
            onto_maildir(demo, node)
        for words in (("mailbox", "create", TEAM), ("mailbox", "acl", TEAM, "anyone", "lrswipte")):
            assert run_ctl(demo, *words)[0] == 0
        for name in (f"{TEAM}/one", f"{TEAM}/two"):
            assert run_ctl(demo, "mailbox", "create", name)[0] == 0
        users = [demo.user(number) for number in range(1, USERS + 1)]
        mailboxes = {f"{user}/INBOX": user for user in users}
        mailboxes |= {TEAM: users[0], f"{TEAM}/one": users[1], f"{TEAM}/two": users[2]}
        chance = random.Random(STORM_SEED)
        storm = Storm(demo, [*(f"user/{user}" for user in users), TEAM], chance)
        killed: Counter[str] = Counter()
        end, next_kill = time.monotonic() + STORM_S, time.monotonic() + 2
        with Clients(demo, mailboxes) as clients:
            while time.monotonic() < end:
                storm.once()
                if time.monotonic() > next_kill:
                    killed[kill_something(demo, chance)] += 1
                    next_kill = time.monotonic() + chance.uniform(1.5, 4)
        print(f"seed {STORM_SEED}: {dict(storm.done)}; killed {dict(killed)}")
        settled(demo)
        resume_failed(demo)
        settled(demo)
        assert storm.done["moved"] and killed
        clients.check()
        check_lists_agree(demo)
        # a frontend whose master was killed a moment ago has to come back to it
        until(lambda: run_ctl(demo, "check")[0] == 0, lambda: run_ctl(demo, "check")[1])
