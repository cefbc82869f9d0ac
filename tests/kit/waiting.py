"""Waiting for what happens elsewhere, and the only places in tests where time is let pass (tests/test_shape.py).

What tells of itself is waited for: a line of a log, an answer, an event of asyncio. What tells nobody is asked again and
again (`until`, `until_soon`). What happens in the next turns of the event loop needs no time (`turns`). Where a test plays
somebody who takes time, or an accident at any moment, that is a `pause`, with its reason.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

LIMIT_S: Final = 120.0
EVERY_S: Final = 0.02


def until(
    is_so: Callable[[], T], what: object = "", limit_s: float = LIMIT_S, every_s: float = EVERY_S
) -> T:
    """Ask until the answer is true, and return it. AssertionError with `what` (called, if it can be) after the limit."""
    end = time.monotonic() + limit_s
    while not (found := is_so()):
        assert time.monotonic() < end, f"never: {what() if callable(what) else what or is_so}"
        time.sleep(every_s)
    return found


async def until_soon(
    is_so: Callable[[], T], what: object = "", limit_s: float = LIMIT_S, every_s: float = 0.0
) -> T:
    """The same on the event loop; as it stands, asked once in each of its turns."""
    end = time.monotonic() + limit_s
    while not (found := is_so()):
        assert time.monotonic() < end, f"never: {what() if callable(what) else what or is_so}"
        await asyncio.sleep(every_s)
    return found


class Naps:
    """A clock that goes on where somebody sleeps by it, and nowhere else: who is to wait has waited at once."""

    def __init__(self) -> None:
        self.taken: list[float] = []  # seconds

    async def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)

    def clock(self) -> float:
        return 1000.0 + sum(self.taken)


async def turns(count: int = 1) -> None:
    """Let everything else on the event loop have so many turns; no time is waited for."""
    for _ in range(count):
        await asyncio.sleep(0)


def pause(seconds: float, why: str) -> None:
    """Let time pass that belongs to what is played: `why` says what, and why nothing can be waited for."""
    assert why
    time.sleep(seconds)


async def pause_here(seconds: float, why: str) -> None:
    """The same on the event loop."""
    assert why
    await asyncio.sleep(seconds)
