"""When things are due, for thousands of them with one timer: silent clients, answers that do not come, connections kept.

A timer of the loop for each would be made and cancelled several times a session. Here a thing stands in a slot of `SLOT_S`
and is looked at when that has come; it then says when to look again. So what moves its due time only further away, as
every command of a client does, touches nothing here. It is looked at no earlier than it said, and at most a slot late.
"""

import asyncio
import time
from heapq import heappop, heappush
from typing import Final, Protocol

from murder.net.turns import TURN_S, began_of

SLOT_S: Final = 0.1
NOWHERE: Final = 0  # a slot that nothing stands in


class Watched(Protocol):
    """What is looked at. `sweep_slot` is the sweep's: where it stands, or NOWHERE."""

    sweep_slot: int

    def look(self, now: float) -> float | None:
        """It may be due. When to look again, in the loop's time; None: not any more."""
        ...


class Sweep:
    """One event loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.began = began_of(loop)
        self.slots: dict[int, set[Watched]] = {}  # for who leaves it, too, as `forget`
        self._order: list[int] = []  # a heap of their numbers
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0  # the slot that the timer is for

    def __len__(self) -> int:
        return sum(map(len, self.slots.values()))

    def watch(self, watched: Watched, due: float) -> None:
        """Look at it when that time has come, instead of when was said before."""
        slot = int(due / SLOT_S) + 1
        former = watched.sweep_slot
        if former == slot:
            return
        if former:
            self.slots[former].discard(watched)
        watched.sweep_slot = slot
        ones = self.slots.get(slot)
        if ones is None:
            self.slots[slot] = {watched}
            heappush(self._order, slot)
            if not self._next or slot < self._next:
                self._set_timer()
        else:
            ones.add(watched)

    def watch_sooner(self, watched: Watched, due: float) -> None:
        """Look at it then at the latest: what it said before may be sooner."""
        if not watched.sweep_slot or due < watched.sweep_slot * SLOT_S - SLOT_S:
            self.watch(watched, due)

    def forget(self, watched: Watched) -> None:
        if watched.sweep_slot:
            self.slots[watched.sweep_slot].discard(watched)
            watched.sweep_slot = NOWHERE

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._next = self._order[0] if self._order else 0
        if self._next:
            self._timer = self.loop.call_at(self._next * SLOT_S, self._look)

    def _look(self) -> None:
        """At what is due, for one turn; what is left is looked at when all others have had theirs."""
        turn_ends = time.perf_counter() + TURN_S
        now, order = self.loop.time(), self._order
        try:
            while order and order[0] * SLOT_S <= now:
                slot = order[0]
                ones = self.slots[slot]
                while ones:
                    if time.perf_counter() >= turn_ends:
                        return
                    watched = ones.pop()
                    watched.sweep_slot = NOWHERE
                    due = watched.look(now)
                    if due is not None:
                        self.watch(watched, max(due, now))
                if order[0] == slot:  # else something was put before it meanwhile
                    del self.slots[heappop(order)]
        finally:
            self._set_timer()


class _Here:
    """The sweep of the loop that asked last."""

    sweep: Sweep | None = None


def here() -> Sweep:
    """That of the loop that runs; a process has one loop that lasts."""
    loop, sweep = asyncio.get_running_loop(), _Here.sweep
    if sweep is None or sweep.loop is not loop:
        sweep = _Here.sweep = Sweep(loop)
    return sweep
