"""Rows that commands have put down are worked off behind their backs, by one process of a backend. They stay until they are
done: a crash costs nothing but a second try.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from murder.net.seconds import until_look

T = TypeVar("T")

POLL_S: Final = 2.0  # other workers put rows down without a word
AT_ONCE: Final = 4


class Worklist(Generic[T]):
    """`due` gives at most so many rows whose time has come, `work_off` does one of them and raises nothing that the row is
    to blame for, `failed` tells of what it raises else."""

    def __init__(
        self,
        due: Callable[[int], Awaitable[Sequence[T]]],
        work_off: Callable[[T], Awaitable[None]],
        failed: Callable[[Exception], None],
    ) -> None:
        self._due = due
        self._work_off = work_off
        self._failed = failed
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on."""
        self._task = asyncio.create_task(self._keep_working())

    async def stop(self) -> None:
        """What is under way is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def wake(self) -> None:
        """Something has been put down."""
        self._arrived.set()

    async def _keep_working(self) -> None:
        while True:
            try:
                async with asyncio.timeout(until_look(POLL_S)):
                    await self._arrived.wait()
            except TimeoutError:
                pass
            self._arrived.clear()
            try:
                while rows := await self._due(AT_ONCE):
                    # all to their ends: a row that is still worked off is due, too
                    ends = await asyncio.gather(*map(self._work_off, rows), return_exceptions=True)
                    failures = [end for end in ends if isinstance(end, Exception)]
                    for failure in failures:
                        self._failed(failure)
                    if failures:
                        break
            except Exception as error:  # noqa: BLE001 - the end of a task's turn; the rows stay
                self._failed(error)
