"""kill -9 of a backend in the middle of everything that changes mail, again and again.

After each the mail is what was acknowledged, and of what was under way the whole or nothing; the store is clean.
`KILL_SECONDS` makes the loop longer than CI's (for each store).
"""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.alone import Alone
from tests.faults.oracle import User

SECONDS = float(os.environ.get("KILL_SECONDS", "10"))
USERS = 4
ALL = {"append", "deliver", "store", "expunge", "copy", "move", "create", "rename", "delete"}


@pytest.mark.parametrize("store", ["store_spool", "store_maildir"])
def test_nothing_acknowledged_is_lost_doubled_or_torn(store: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("KILL_SEED", "0")) or random.randrange(1, 10**6)
    print(f"KILL_SEED={seed}")
    with Alone(tmp_path, store) as server:
        play(server, store, seed)


def play(server: Alone, store: str, seed: int) -> None:
    choose = random.Random(seed)
    users = [User(server, f"user{number}", seed + number) for number in range(USERS)]
    for user in users:
        server.imap(user.name).logout()  # makes the INBOX: mail may come
    kills = 0
    end = time.monotonic() + SECONDS
    while kills < 2 or time.monotonic() < end:
        for user in users:
            user.start()
        time.sleep(choose.uniform(0.3, 2.0))  # when it dies is the test's chance
        if choose.random() < 0.3:  # one worker only: the supervisor makes another
            os.kill(server.worker(), signal.SIGKILL)
            time.sleep(choose.uniform(0.1, 0.5))
        server.kill()
        for user in users:
            user.stop()
        kills += 1
        server.start()
        for user in users:
            user.check(f"seed {seed}, kill {kills}")
    done: Counter[str] = sum((user.done for user in users), Counter())
    print(f"{store}: {kills} kills, acknowledged {dict(done)}")
    assert server.stop() == 0, server.said()
    checked = server.control("store", "check")
    assert checked.returncode == 0, checked.stdout
    assert done.keys() >= {"append", "deliver", "store"}
    assert SECONDS < 60 or done.keys() >= ALL
