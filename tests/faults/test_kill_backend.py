"""kill -9 of a backend in the middle of everything that changes mail, again and again.

After each the mail is what was acknowledged, and of what was under way the whole or nothing; the store is clean.
`KILL_SECONDS` makes the loop longer than CI's (for each store).
"""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.alone import Alone
from tests.faults.oracle import INBOX, User
from tests.faults.test_kill import names_at
from tests.kit.waiting import pause, until

SECONDS = float(os.environ.get("KILL_SECONDS", "6"))
USERS = 4
# on a busy machine it takes more than two kills to see them all
OFTEN = {"append", "deliver", "store"}
MOST_KILLS = 10_000 if SECONDS > 60 else 12
ALL = {"append", "deliver", "store", "expunge", "copy", "move", "create", "rename", "delete"}


@pytest.mark.parametrize("store", ["store_spool", "store_maildir"])
def test_nothing_acknowledged_is_lost_doubled_or_torn(store: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("KILL_SEED", "7"))
    print(f"KILL_SEED={seed}")
    with Alone(tmp_path, store) as server:
        play(server, store, seed)


def test_the_master_agrees_after_each_kill(tmp_path: Path) -> None:
    """The backend dies, or both: then hierarchy, both lists and the mail are one again."""
    seed = int(os.environ.get("KILL_SEED", "7"))
    print(f"KILL_SEED={seed}")
    with Alone(tmp_path, "store_spool", with_master=True) as server:
        play(server, "with a master", seed)


def wait_for_master(server: Alone) -> None:
    """Until it serves; nothing outside tells."""

    def answers() -> bool:
        with contextlib.suppress(OSError):
            names_at(server.master_port)
            return True
        return False

    until(answers, "the master answers")


def check_master(server: Alone, users: list[User]) -> None:
    """The master's list and the backend's are the same, as soon as they have been compared."""
    ours = {
        "user." + user.name + ("" if name == INBOX else "." + name)
        for user in users
        for name in user.world
    }
    wait_for_master(server)

    def differences() -> tuple[set[str], set[str]]:
        found = names_at(server.master_port)  # among them what was deleted and is kept for a time
        theirs = {name for name in found if not name.startswith("DELETED.")}
        return ours - theirs, theirs - ours

    until(
        lambda: differences() == (set(), set()), lambda: f"only ours, only theirs: {differences()}"
    )


def all_done(users: list[User]) -> Counter[str]:
    """What was acknowledged, by kind."""
    return sum((user.done for user in users), Counter())


def play(server: Alone, store: str, seed: int) -> None:
    choose = random.Random(seed)
    users = [User(server, f"user{number}", seed + number) for number in range(USERS)]
    if server.master_port:
        wait_for_master(server)
    for user in users:
        server.imap(user.name).logout()  # makes the INBOX: mail may come
    kills = 0
    end = time.monotonic() + SECONDS
    while kills < MOST_KILLS and (
        kills < 2 or time.monotonic() < end or not all_done(users).keys() >= OFTEN
    ):
        for user in users:
            user.start()
        pause(choose.uniform(0.3, 2.0), "when it dies is the test's chance")
        if choose.random() < 0.3:  # one worker only: the supervisor makes another
            os.kill(server.worker(), signal.SIGKILL)
            pause(choose.uniform(0.1, 0.5), "and when the rest does")
        if choose.random() < 0.5:
            server.kill_master()
        server.kill()
        for user in users:
            user.stop()
        kills += 1
        server.start()
        for user in users:
            user.check(f"seed {seed}, kill {kills}")
        if server.master_port:
            check_master(server, users)
    done = all_done(users)
    print(f"{store}: {kills} kills, acknowledged {dict(done)}")
    assert server.stop() == 0, server.said()
    checked = server.control("store", "check")
    assert checked.returncode == 0, checked.stdout
    assert done.keys() >= OFTEN
    assert SECONDS < 60 or done.keys() >= ALL
