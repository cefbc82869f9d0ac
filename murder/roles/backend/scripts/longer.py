"""Long work of scripts, one user after the other: an expression over a mail may take half a minute, and each of a hundred
mails to one user may have one.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from murder.auth.turnstile import Turnstile
from murder.net.turns import aside_for_scripts

T = TypeVar("T")

_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile]] = WeakKeyDictionary()


async def aside_for(whose: str, work: Callable[[], T]) -> T:
    """What `work` returns, done in the thread of scripts when it is the turn of `whose`: a user's, a shared mailbox's, the
    site's ("")."""
    turnstile = _turns.setdefault(asyncio.get_running_loop(), Turnstile(1))
    has_begun = False

    async def in_turn() -> T:
        nonlocal has_begun
        async with turnstile.turn(whose):
            has_begun = True
            return await aside_for_scripts(work)

    task = asyncio.ensure_future(in_turn())
    try:
        # a thread is not interrupted: the turn lasts until it is done, whoever has given up
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not has_begun:
            task.cancel()
        raise
