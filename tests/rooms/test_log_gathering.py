"""Lines that are gathered: few writes, in order with all else that is said, bounded, and there at every end but a kill."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from murder.log import logger, plain, plain_log, recent, set_up
from murder.log.lines import WHOLE_OCTETS
from murder.log.plain import MOST_GATHERED, MOST_ROWS
from murder.serve.mail_log import MailLog

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
    plain_log.info("message.expunged", {"text": "x" * 10_000}, rows=MOST_ROWS)
    plain_log.info("message.expunged", {"text": "x" * 10_001}, rows=MOST_ROWS + 1)
    assert [len(json.loads(octets)["text"]) for octets in writes[-2:]] == [10_000, 10_001]


def test_facts_are_made_with_the_line_and_not_where_nobody_writes_it(
    clock: Clock, writes: list[bytes]
) -> None:
    made: list[int] = []

    def facts() -> dict[str, object]:
        made.append(len(writes))
        return {"n": 1}

    say(0)
    plain_log.info("message.relayed", facts)
    plain_log.info("message.relayed", facts)
    assert not made
    clock.strike()
    assert made == [1, 1] and numbers(writes) == [0, 1, 1]
    set_up("error", "json", node="fe1")
    plain_log.info("message.relayed", facts)
    MailLog().info("message.relayed", facts)
    plain_log.flush()
    assert made == [1, 1]
    set_up("info", "text", node="fe1")
    plain_log.info("message.relayed", facts)
    assert len(made) == 3 and b"message.relayed" in writes[-1]


class Keeper:
    """Keeps lines elsewhere."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []

    def keep(self, lines: Sequence[str]) -> None:
        for line in lines:
            assert line.startswith('{"at": "2') and '"event": "message.relayed"' in line
        self.steps.append([json.loads(line)["n"] for line in lines])

    def say(self, *given: int) -> None:
        for number in given:
            plain_log.info("message.relayed", {"n": number}, keep=self.keep)


def test_what_is_kept_elsewhere_waits_with_what_the_log_has_and_is_put_there_in_one_step(
    clock: Clock, writes: list[bytes]
) -> None:
    mail, other = Keeper(), Keeper()
    mail.say(1)
    assert mail.steps == [[1]]  # it came alone
    say(2)
    mail.say(3, 4)
    other.say(5)
    mail.say(6)
    assert mail.steps == [[1]] and not other.steps and len(clock.due) == 1
    clock.strike()
    assert mail.steps == [[1], [3, 4, 6]] and other.steps == [[5]]
    assert numbers(writes) == list(range(1, 7)) and len(writes) == 2
    set_up("error", "json", node="fe1")  # what the log does not have is kept all the same
    mail.say(7, 8)
    clock.strike()
    assert mail.steps[2:] == [[7, 8]] and len(writes) == 2


def test_what_is_kept_elsewhere_is_made_once_and_of_one_time(
    clock: Clock, writes: list[bytes]
) -> None:
    kept: list[str] = []
    plain_log.info("message.relayed", {"n": 1}, keep=kept.extend)
    assert json.loads(kept[0])["at"] == json.loads(writes[0])["timestamp"]


@pytest.mark.parametrize("way", ["flush", "warn", "reload", "many", "thread", "end"])
def test_what_is_kept_elsewhere_is_there_behind_whatever_writes_the_log(
    way: str, clock: Clock, writes: list[bytes]
) -> None:
    mail, count = Keeper(), 2
    say(0)
    mail.say(1, 2)
    match way:
        case "flush":
            plain_log.flush()
        case "warn":
            logger().warning("tls.failed", n=3)
        case "reload":
            set_up("error", "json", node="fe2")
        case "many":
            mail.say(*range(3, (count := MOST_GATHERED) + 1))
        case "thread":
            thread = threading.Thread(target=mail.say, args=(count := 3,))
            thread.start()
            thread.join()
        case "end":
            plain_log.gather(None)
    assert mail.steps == [list(range(1, count + 1))]
    clock.strike()
    assert len(mail.steps) == 1
    assert numbers(writes)[:3] == [0, 1, 2]


def test_who_cannot_keep_it_may_say_so(clock: Clock, writes: list[bytes]) -> None:
    """And is not asked amid that to keep more."""
    kept: list[str] = []

    def keep(lines: Sequence[str]) -> None:
        if not kept:
            logger().warning("trail.not_written", n=9)
        kept.extend(lines)

    say(0)
    for number in (1, 2):
        plain_log.info("message.relayed", {"n": number}, keep=keep)
    clock.strike()
    assert [json.loads(line)["n"] for line in kept] == [1, 2]
    assert numbers(writes) == [0, 1, 2, 9]


def test_what_is_said_while_a_thread_puts_others_there_is_not_left_behind(clock: Clock) -> None:
    """Who warns in a thread keeps what waits; until it is over, the loop's time may have come."""
    kept: list[str] = []
    begun, goes_on = threading.Event(), threading.Event()

    def keep(lines: Sequence[str]) -> None:
        begun.set()
        assert goes_on.wait(60)
        kept.extend(lines)

    set_up("error", "json", node="fe1")  # nothing else writes it
    plain_log.info("message.relayed", {"n": 0}, keep=lambda _: None)
    plain_log.info("message.relayed", {"n": 1}, keep=keep)
    thread = threading.Thread(target=plain_log.flush)
    thread.start()
    assert begun.wait(60)
    plain_log.info("message.relayed", {"n": 2}, keep=keep)
    threading.Timer(0.05, goes_on.set).start()
    clock.strike()
    thread.join()
    assert [json.loads(line)["n"] for line in kept] == [1, 2]


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
    loop = asyncio.get_running_loop()
    with gathering(loop.call_later):
        for number in range(3):
            plain_log.info("login.succeeded", {{"n": number}}, keep=print)
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
