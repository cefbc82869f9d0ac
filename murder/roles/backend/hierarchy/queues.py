"""Who waits, in this worker, for a tree that another operation is in: no longer where others wait, too."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from murder.errors import Code, Refusal


class Queues:
    """One for each tree (`intent.tree_of`)."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def alone_in(self, trees: Sequence[str], wait_s: float) -> AsyncIterator[float]:
        """Nobody else of this worker is in these, which are sorted, meanwhile; what is left of the time. Raises
        Refusal(IN_USE) where that is over before: who came first may wait for somebody in another worker, as long."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + wait_s
        locks = [self._locks.setdefault(tree, asyncio.Lock()) for tree in trees]
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout_at(give_up_at):
                    for lock in locks:
                        await held.enter_async_context(lock)
            except TimeoutError:
                text = "Other changes of this mailbox are under way, try again in a moment"
                raise Refusal(Code.IN_USE, text) from None
            yield max(0.0, give_up_at - loop.time())
