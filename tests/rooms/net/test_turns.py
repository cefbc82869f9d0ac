"""A turn ends by its clock; what is done aside does not hold the loop."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop

from murder.api.turns import _sleep, rest, set_rest
from murder.net.turns import (
    LATE_TURN_S,
    TURN_S,
    Turn,
    aside,
    aside_for_scripts,
    has_held,
    in_turns,
    is_late,
    line_up,
    share_of,
    stand_in_line,
)
from tests.kit.waiting import until_soon


def test_a_turn_is_over_when_its_share_is_used_and_new_after_a_rest() -> None:
    now = [0.0]
    turn = Turn(clock=lambda: now[0])
    assert not turn.is_over
    now[0] = TURN_S
    assert turn.is_over
    asyncio.run(turn.rest())
    assert not turn.is_over
    assert turn.rests == 1


async def test_a_walk_in_turns_meets_all_and_rests_between() -> None:
    ticks = iter(range(1000))
    turn = Turn(share_s=10, clock=lambda: next(ticks))
    assert [one async for one in in_turns(range(100), turn)] == list(range(100))
    assert 8 <= turn.rests <= 11


async def test_others_run_while_work_rests() -> None:
    seen: list[str] = []

    other = asyncio.create_task(asyncio.to_thread(seen.append, "other"))
    asyncio.get_running_loop().call_soon(seen.append, "callback")
    await Turn().rest()
    seen.append("work")
    await other
    assert seen.index("callback") < seen.index("work")


async def test_nobody_waits_for_the_long_work_of_a_script() -> None:
    """That of one user may take half a minute; what others want read aside goes on."""
    done = threading.Event()
    script = asyncio.ensure_future(aside_for_scripts(done.wait))
    try:
        assert await aside(sorted, [2, 1]) == [1, 2]
        assert not script.done()
    finally:
        done.set()
    assert await script


async def test_what_is_done_aside_gives_its_result_and_its_error() -> None:
    assert await aside(sorted, [2, 1], reverse=True) == [2, 1]
    try:
        await aside(int, "x")
    except ValueError:
        return
    raise AssertionError("the error did not come through")


async def test_of_many_that_rest_one_goes_on_in_each_turn_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    turn, went_on = 0, []

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    async def work() -> None:
        await Turn().rest()
        went_on.append(turn)

    count()
    given_up = asyncio.create_task(work())
    tasks = [asyncio.create_task(work()) for _ in range(50)]
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait(tasks)
    assert len(went_on) == 50 and len(set(went_on)) == 50
    assert went_on == sorted(went_on)


def test_who_makes_a_pause_stands_in_line() -> None:
    """N tasks that only sleep for a turn between their pieces do N pieces in each turn of the loop."""
    root = Path(__file__).parents[3]
    sources = [*(root / "murder").rglob("*.py"), *(root / "plugins").rglob("*.py")]
    bare = [path.name for path in sources if "asyncio.sleep(0)" in path.read_text("utf-8")]
    assert bare == ["turns.py"]  # of the api, until a role has set its line


async def test_a_store_rests_in_the_line_of_the_server() -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        await rest()
        done.append(number)

    set_rest(line_up)
    try:
        tasks = [asyncio.create_task(work(number)) for number in range(3)]
        counts = []
        for _ in range(8):
            counts.append(len(done))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
    finally:
        set_rest(_sleep)
    assert counts[-1] == 3
    assert all(after - before <= 1 for before, after in pairwise(counts))


async def test_who_has_no_task_stands_in_the_same_line() -> None:
    loop = asyncio.get_running_loop()
    turn, went_on = 0, []

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    async def work() -> None:
        await line_up()
        went_on.append(turn)

    count()
    tasks = []
    for _ in range(20):
        stand_in_line(loop, lambda: went_on.append(turn))
        tasks.append(asyncio.create_task(work()))
    await until_soon(lambda: len(went_on) == 40)
    assert len(set(went_on)) == 40 and went_on == sorted(went_on)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_turn_of_the_loop_is_late_in_which_somebody_has_had_a_whole_one(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    """With the loop of production, whose time is no beginning of anything; and the next turn is not."""

    def work() -> float:
        begins = time.perf_counter()
        while time.perf_counter() < begins + TURN_S:
            pass
        return begins

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for notes in (lambda: is_late(loop), lambda: has_held(loop, time.perf_counter() - TURN_S)):
            assert not is_late(loop)
            await line_up()
            assert not notes()
            work()
            assert is_late(loop) and share_of(loop) == LATE_TURN_S
            await line_up()

    run(main())


async def test_of_a_turn_of_the_loop_that_is_late_who_begins_has_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert not is_late(loop) and share_of(loop) == TURN_S
    now += 2 * TURN_S
    assert is_late(loop) and share_of(loop) == LATE_TURN_S
    begun = Turn(clock=time.perf_counter)
    now += LATE_TURN_S
    assert begun.is_over
    await begun.rest()
    now += LATE_TURN_S
    assert not begun.is_over
