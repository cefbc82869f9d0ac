"""Whose turn is next, of what few can do at a time: one key after the other, however much each has waiting.

The hash of a password takes a processor for tens of milliseconds, on purpose. Five hundred attempts from one address then
are one turn in two for everybody else, not half a minute's wait. So with a site's programs, by user. Knows no passwords.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turnstile:
    """Lets `width` through at a time. Who waits `first` is before all others, in a ring of its own."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._rings: tuple[_Ring, _Ring] = (OrderedDict(), OrderedDict())  # first, others

    @property
    def is_full(self) -> bool:
        return self._free <= 0

    @asynccontextmanager
    async def turn(self, key: str, *, first: bool = False) -> AsyncIterator[None]:
        """While it is `key`'s turn."""
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait(self._rings[0 if first else 1], key)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, ring: "_Ring", key: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ring.setdefault(key, deque()).append(mine)
        try:
            await mine
        except BaseException:
            if mine.done() and not mine.cancelled():
                self._pass_on()  # it was our turn in the same moment
            else:
                self._give_up(ring, key, mine)
            raise

    @staticmethod
    def _give_up(ring: "_Ring", key: str, mine: "asyncio.Future[None]") -> None:
        line = ring.get(key)
        if line is not None and mine in line:
            line.remove(mine)
            if not line:
                del ring[key]

    def _pass_on(self) -> None:
        """The next key has its turn, and goes to the end of its ring if it has more."""
        for ring in self._rings:
            while ring:
                key, line = ring.popitem(last=False)
                mine = line.popleft()
                if line:
                    ring[key] = line
                if not mine.done():
                    mine.set_result(None)
                    return
        self._free += 1


_Ring = OrderedDict[str, "deque[asyncio.Future[None]]"]
