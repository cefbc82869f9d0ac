"""Lines that are gathered: few writes, in order with all else that is said, bounded, and there at every end but a kill."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from murder.log import logger, plain, plain_log, recent, set_up
from murder.log.lines import WHOLE_OCTETS
from murder.log.plain import MOST_GATHERED

ROOT = Path(__file__).parent.parent.parent
MOMENT_S = 3600.0  # for which lines wait here: on a busy machine a tenth of a second may go between two of them


class Clock:
    """A loop's `call_later`, whose time comes when we say so."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        assert delay_s == MOMENT_S
        self.due.append(call)

    def strike(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    monkeypatch.setattr(plain, "GATHER_S", MOMENT_S)
    clock = Clock()
    set_up("info", "json", node="fe1")
    plain_log.gather(clock.later)
    yield clock
    plain_log.gather(None)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All that has gone to standard error, as it went there."""
    written: list[bytes] = []
    write = os.write

    def noted(file: int, octets: bytes) -> int:
        if file == 2:
            written.append(octets)
        return write(file, octets)

    monkeypatch.setattr("os.write", noted)
    return written


def numbers(written: list[bytes]) -> list[int]:
    assert all(octets.endswith(b"\n") for octets in written)
    return [json.loads(line)["n"] for octets in written for line in octets.splitlines()]


def say(*given: int) -> None:
    for number in given:
        plain_log.info("login.succeeded", {"n": number})


def test_a_line_that_comes_alone_is_written_at_once_and_what_follows_it_together(
    clock: Clock, writes: list[bytes]
) -> None:
    say(1)
    assert numbers(writes) == [1]
    say(2, 3, 4)
    assert numbers(writes) == [1] and len(clock.due) == 1
    clock.strike()
    assert numbers(writes) == [1, 2, 3, 4]
    assert len(writes) == 2
    say(5)
    assert len(clock.due) == 1  # just now something was written


def test_what_else_is_said_is_written_behind_them(clock: Clock, writes: list[bytes]) -> None:
    say(1, 2)
    logger().warning("tls.failed", n=3)
    say(4)
    logger().info("role.started", n=5)
    assert numbers(writes) == [1, 2, 3, 4, 5]
    times = [json.loads(line)["timestamp"] for octets in writes for line in octets.splitlines()]
    assert times == sorted(times)


def test_so_many_wait_and_no_more(clock: Clock, writes: list[bytes]) -> None:
    say(0)
    say(*range(1, MOST_GATHERED + 1))
    assert numbers(writes) == list(range(MOST_GATHERED + 1))
    assert all(len(octets) <= WHOLE_OCTETS for octets in writes)
    assert len(writes) < MOST_GATHERED / 10
    plain_log.info("message.relayed", {"text": "x" * 10_000}, is_kept=True)
    assert len(json.loads(writes[-1])["text"]) == 10_000


def test_what_is_kept_elsewhere_is_told_at_once_and_written_with_the_others(
    clock: Clock, writes: list[bytes]
) -> None:
    say(1, 2)
    at, text = plain_log.info("message.relayed", {"n": 3}, is_kept=True)
    assert text == '"n": 3' and at.endswith("Z")
    say(4)
    assert numbers(writes) == [1]
    clock.strike()
    assert numbers(writes) == [1, 2, 3, 4]
    assert f'"timestamp": "{at}"' in writes[-1].decode()


def test_who_asks_for_the_last_lines_has_those_that_wait(clock: Clock) -> None:
    say(1, 2, 77_001)
    assert any("77001" in text for _, _, text in recent.found("77001", "info"))


def test_a_thread_beside_the_loop_waits_for_nobody(clock: Clock, writes: list[bytes]) -> None:
    say(1, 2)
    thread = threading.Thread(target=say, args=(3,))
    thread.start()
    thread.join()
    assert numbers(writes) == [1, 2, 3]


def test_a_reload_leaves_none_behind(clock: Clock, writes: list[bytes]) -> None:
    say(1, 2)
    set_up("error", "json", node="fe2")
    say(3)
    assert numbers(writes) == [1, 2]
    assert all(b'"node": "fe1"' in octets for octets in writes)


ENDING = """
import asyncio, os, signal, sys
from murder.log import gathering, logger, plain, plain_log, set_up

plain.GATHER_S = 3600.0

async def work():
    set_up("info", "json")
    with gathering(asyncio.get_running_loop().call_later):
        for number in range(3):
            plain_log.info("login.succeeded", {{"n": number}})
        {end}

asyncio.run(work())
"""


@pytest.mark.parametrize("end", ["pass", "raise ValueError", "sys.exit(3)", "raise SystemExit"])
def test_an_end_of_the_process_loses_none(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING.format(end=end)], capture_output=True, cwd=ROOT, check=False
    )
    lines = [line for line in done.stderr.splitlines(keepends=True) if line.startswith(b"{")]
    assert numbers(lines) == [0, 1, 2]


def test_a_kill_costs_what_waits_and_no_more() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING.format(end="os.kill(os.getpid(), signal.SIGKILL)")],
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert numbers([done.stderr]) == [0]
