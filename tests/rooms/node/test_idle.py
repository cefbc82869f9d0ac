"""A process that has nothing to do wakes about once a second, for all that it looks at then."""

import asyncio
import faulthandler
import selectors
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.seconds import look_again, next_look
from murder.node.process.server import measure_loop
from murder.node.process.stuck import ARMED_S, LoopWatch
from murder.roles.backend.scripts.worklist import Worklist
from murder.roles.frontend.locate import Locator
from murder.roles.mupdate.serving.pulse import ALONE_S
from murder.trail.figures import Figures
from tests.kit.waiting import pause_here

CLOCK = "the loop's clock skips: no time passes"


class Skips(selectors.DefaultSelector):
    """Where nothing is ready the time of the next timer is now."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.wakes = 1000.0, 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
            self.wakes += 1
        return ready


def wakes_in(span_s: float, *works: Coroutine[Any, Any, object]) -> int:
    """How often a loop wakes that does these all the while."""
    skips = Skips()
    loop = asyncio.SelectorEventLoop(skips)
    loop.time = lambda: skips.now  # type: ignore[method-assign]

    async def idle() -> None:
        tasks = [asyncio.ensure_future(work) for work in works]
        await pause_here(span_s, CLOCK)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    try:
        loop.run_until_complete(idle())
    finally:
        loop.close()
    return skips.wakes


async def works(every_s: float) -> None:
    while True:
        await look_again(every_s)


async def list_of_none(most: int) -> Sequence[object]:
    return []


async def nothing(row: object) -> None:
    pass


def test_the_spans_have_the_same_moments() -> None:
    for now in (0.0, 0.3, 1000.7, 123456.78):
        moments = {every: next_look(now, every) for every in (0.25, 0.5, 1.0, 2.0)}
        assert all(0.09 * every < at - now < 1.11 * every for every, at in moments.items())
        assert next_look(moments[2.0] - 0.01, 1.0) == pytest.approx(moments[2.0] + 1.0)
        assert ((moments[2.0] - moments[0.25]) / 0.25) % 1.0 == pytest.approx(0.0, abs=1e-4) or (
            (moments[2.0] - moments[0.25]) / 0.25
        ) % 1.0 == pytest.approx(1.0, abs=1e-4)


def test_all_that_is_looked_at_once_a_second_is_one_wake() -> None:
    async def listed(worklist: Worklist[object]) -> None:
        await worklist._keep_working()

    lists = [Worklist(list_of_none, nothing, lambda error: None) for _ in range(3)]
    wakes = wakes_in(
        100.0, measure_loop(Figures()), works(1.0), works(2.0), *(listed(one) for one in lists)
    )
    assert wakes <= 102


def test_a_master_without_others_wakes_twice_a_second() -> None:
    assert wakes_in(100.0, measure_loop(Figures()), works(ALONE_S), works(1.0)) <= 202


def test_a_worker_that_can_ask_the_master_wakes_for_nothing(tmp_path: Path) -> None:
    asked: list[float] = []

    async def ping(timeout_s: float) -> None:
        asked.append(timeout_s)
        if len(asked) in (2, 3):
            raise UpstreamFailure(UpstreamKind.DOWN, "m", "it is away")

    async def asking() -> None:
        locator = Locator(cast(Any, None), ping, 5.0, 0.0)
        keeps = asyncio.ensure_future(locator.keep_asking(1.0))
        await pause_here(50.0, CLOCK)
        assert len(asked) == 1
        with pytest.raises(UpstreamFailure):
            await locator.catch_up()
        await pause_here(49.0, CLOCK)
        assert len(asked) == 4 and not locator.problem  # once more in vain, then it answered
        keeps.cancel()

    assert wakes_in(100.0, asking()) <= 6


def test_no_thread_is_made_for_each_turn_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []
    later = faulthandler.dump_traceback_later

    def counted(after_s: float, **words: Any) -> None:
        made.append(after_s)
        later(after_s, **words)

    monkeypatch.setattr(faulthandler, "dump_traceback_later", counted)
    watch = LoopWatch()
    watch.stop()
    for _ in range(30):
        watch.turned(20.0)
    watch.stop()
    assert len(made) == 1
    assert made[0] > 20.0 + ARMED_S
