"""Between two long pieces of work: who makes many (a store that reads pages of rows) rests after each."""

import asyncio
from collections.abc import Awaitable, Callable


async def _sleep() -> None:
    await asyncio.sleep(0)


class _Resting:
    how: Callable[[], Awaitable[None]] = staticmethod(_sleep)


async def rest() -> None:
    """Let all others have a turn. In a server, of all work that rests one goes on in each turn of the event loop, so that
    many such works together hold it no longer than one of them does; `asyncio.sleep(0)` would not see to that."""
    await _Resting.how()


def set_rest(how: Callable[[], Awaitable[None]]) -> None:
    """What `rest` does from now on, in this process: the server's own line."""
    _Resting.how = staticmethod(how)
