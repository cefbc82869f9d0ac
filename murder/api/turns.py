"""Between two long pieces of work: who makes many (a store that reads pages of rows) rests after each. And threads for work
that goes on for minutes, as mailboxes that move, which give way to all others."""

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

BEHIND: Final = 4  # threads
# nice(2) of theirs: while another thread wants a processor they have a quarter of it. A higher one may keep others waiting:
# whichever of these threads is not given a processor may have the interpreter
NICENESS: Final = 5


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


def behind(function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> asyncio.Future[T]:
    """Run it in one of few threads that have less of the processors than all others, as have the threads that it starts.
    Nobody else stands in their queue."""
    run = functools.partial(function, *arguments, **named)
    return asyncio.get_running_loop().run_in_executor(_threads(), run)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(BEHIND, "behind", _give_way)


def _give_way() -> None:
    """In a new thread. Where the system does not allow that, it has as much as any other."""
    with contextlib.suppress(OSError):
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + NICENESS
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
