"""A loop that does not turn is told of once; a process that was stopped from outside is not stuck."""

import json

import pytest

from murder import log
from murder.node.process.stuck import LOOK_S, LoopWatch

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def watch() -> LoopWatch:
    log.set_up("info", "json")
    made = LoopWatch()
    made.stop()  # the test looks itself
    made.turned(5.0)
    made.stop()
    return made


def told(capfd: Capture) -> list[dict[str, object]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_it_is_told_once_with_its_stack(watch: LoopWatch, capfd: Capture) -> None:
    at, worked = watch._turned_at, watch._worked_s
    for number in range(1, 40):
        watch.look(at + number * LOOK_S, worked + number * LOOK_S)
    (line,) = told(capfd)
    assert line["event"] == "worker.stuck"
    assert "test_it_is_told_once_with_its_stack" in str(line["stack"])


def test_c_code_that_lets_no_thread_run_is_told_afterwards(
    watch: LoopWatch, capfd: Capture
) -> None:
    watch.look(watch._turned_at + 20, watch._worked_s + 19)
    assert [line["event"] for line in told(capfd)] == ["worker.stuck"]


def test_who_was_stopped_from_outside_is_not_stuck(watch: LoopWatch, capfd: Capture) -> None:
    watch.look(watch._turned_at + 600, watch._worked_s + 0.1)
    assert told(capfd) == []
