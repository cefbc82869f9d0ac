"""Many due times, one timer."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from murder.net.sweep import NOWHERE, SLOT_S, Sweep, here
from murder.net.turns import TURN_S


class Loop:
    """As much of an event loop as a sweep uses, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> "Timer":
        self.timers.append((when, callback))
        return Timer(self, (when, callback))

    def go(self, to: float) -> None:
        """Until then, each timer at its time."""
        while due := min((timer for timer in self.timers if timer[0] <= to), default=None):
            self.timers.remove(due)
            self.now = max(self.now, due[0])
            due[1]()
        self.now = to


class Timer:
    def __init__(self, loop: Loop, entry: tuple[float, Callable[[], None]]) -> None:
        self._loop, self._entry = loop, entry

    def cancel(self) -> None:
        if self._entry in self._loop.timers:
            self._loop.timers.remove(self._entry)


class One:
    """Due at some time, which may move."""

    def __init__(self, due: float) -> None:
        self.sweep_slot = NOWHERE
        self.due = due
        self.looked: list[float] = []

    def look(self, now: float) -> float | None:
        self.looked.append(now)
        return self.due if now < self.due else None


def made() -> tuple[Any, Sweep]:
    loop: Any = Loop()
    return loop, Sweep(loop)


def test_a_thing_is_looked_at_when_it_is_due_and_not_later_than_a_slot() -> None:
    loop, sweep = made()
    one = One(1005.03)
    sweep.watch(one, one.due)
    loop.go(1005.03)
    assert one.looked == []
    loop.go(1005.03 + SLOT_S)
    assert len(one.looked) == 1
    assert not len(sweep)
    assert not loop.timers


def test_who_has_been_busy_meanwhile_is_looked_at_again() -> None:
    loop, sweep = made()
    one = One(1005)
    sweep.watch(one, one.due)
    one.due = 1007.5
    loop.go(1006)
    assert len(one.looked) == 1
    loop.go(1008)
    assert len(one.looked) == 2


def test_sooner_moves_a_thing_forward_and_never_back() -> None:
    loop, sweep = made()
    one = One(1001)
    sweep.watch_sooner(one, 1010)
    sweep.watch_sooner(one, 1001)
    sweep.watch_sooner(one, 1020)
    loop.go(1002)
    assert len(one.looked) == 1


def test_what_is_forgotten_is_not_looked_at() -> None:
    loop, sweep = made()
    one, other = One(1001), One(1001)
    for each in (one, other):
        sweep.watch(each, each.due)
    sweep.forget(one)
    sweep.forget(one)
    loop.go(1002)
    assert (len(one.looked), len(other.looked)) == (0, 1)


def test_ten_thousand_things_need_one_timer_at_a_time() -> None:
    loop, sweep = made()
    for number in range(10_000):
        one = One(1000 + number % 600)
        sweep.watch(one, one.due)
        assert len(loop.timers) == 1
    loop.go(1601)
    assert not len(sweep)


def test_a_turn_that_is_over_leaves_the_rest_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, sweep = made()
    ones = [One(1001) for _ in range(10)]
    for one in ones:
        sweep.watch(one, one.due)
    clock = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) * TURN_S / 3)
    (when, look) = loop.timers.pop()
    loop.now = when
    turns = 0
    while any(not one.looked for one in ones):
        look()
        turns += 1
        loop.timers.clear()
    assert turns == 5  # two in each


def test_one_that_fails_stops_no_other() -> None:
    loop, sweep = made()

    class Failing(One):
        def look(self, now: float) -> float | None:
            raise ValueError(now)

    bad, good = Failing(1001), One(1002)
    for each in (bad, good):
        sweep.watch(each, each.due)
    with pytest.raises(ValueError, match="1001"):
        loop.go(1001.5)
    loop.go(1003)
    assert len(good.looked) == 1


def test_one_may_be_put_before_all_others_while_they_are_looked_at() -> None:
    loop, sweep = made()
    late = One(900)

    class Calling(One):
        def look(self, now: float) -> float | None:
            sweep.watch(late, late.due)
            return None

    calling, other = Calling(1001), One(1001)
    for each in (calling, other):
        sweep.watch(each, each.due)
    loop.go(1003)
    assert len(late.looked) == len(other.looked) == 1
    assert not len(sweep)


def test_a_loop_has_one_sweep() -> None:
    async def twice() -> bool:
        return here() is here()

    assert asyncio.run(twice())
    assert asyncio.run(twice())
