"""Whether the store is an older copy of itself, put back from a backup: a number tells it that store and master keep.

While mail changes the number grows with each ping to the master, first in the store, then there. A store whose number is
smaller than the master's has lost what clients were told: before anybody opens it, each of its mailboxes gets a new
UIDVALIDITY, so that no UID means another message than it did; and what was noted of deliveries is forgotten, for their
messages may be lost, too. A Cyrus master keeps no such number.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from murder.api.store import KeepsEpoch
from murder.errors import Refusal, UpstreamFailure
from murder.log import logger

# for the master, at a start; what it knows is looked at later where it is away
START_WAIT_S: Final = 5.0
STOP_WAIT_S: Final = 2.0  # likewise
PAUSE_S: Final = 0.1
PATIENCE: Final = 600  # pauses in which another worker renews


class EpochMaster(Protocol):
    """The master as this file needs it."""

    async def epoch(self, server: str, number: int) -> int | None:
        """The largest number that it has been given for that server, this one among them; None where it keeps none.
        Raises UpstreamFailure."""
        ...


class Epochs:
    """See the module. `changes` counts what has happened in the store; it need not be exact. `forget`: what was noted of
    deliveries; durable on return."""

    def __init__(
        self,
        store: KeepsEpoch,
        master: EpochMaster,
        server: str,
        changes: Callable[[], int],
        forget: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._master = master
        self._server = server
        self._changes = changes
        self._forget = forget
        self._seen = changes()
        self._log = logger(role="backend")

    async def start(self, *, is_first: bool) -> None:
        """Before anybody is let in; the first worker sees to the store, the others wait for it. Raises Refusal."""
        try:
            async with asyncio.timeout(START_WAIT_S):
                if is_first:
                    await self._compare(await self._store.epoch())
                    return
                theirs = await self._master.epoch(self._server, 0) or 0
        except (UpstreamFailure, TimeoutError) as problem:
            self._log.warning("store.epoch_unknown", problem=str(problem) or "no answer")
            return
        for _ in range(PATIENCE):
            if await self._store.epoch() >= theirs:
                return
            await asyncio.sleep(PAUSE_S)

    async def beat(self) -> None:
        """With each ping to the master: one step further where mail has changed since. Raises UpstreamFailure, Refusal."""
        changes = self._changes()
        if changes == self._seen:
            return
        number = await self._store.epoch() + 1
        await self._store.set_epoch(number)
        await self._compare(number)
        self._seen = changes

    async def stop(self) -> None:
        """The last of it, where the master is there: what happened since the last ping would not be known else."""
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                await self.beat()
        except (UpstreamFailure, Refusal, TimeoutError) as problem:
            self._log.info("store.epoch_unknown", problem=str(problem) or "no answer")

    async def _compare(self, ours: int) -> None:
        theirs = await self._master.epoch(self._server, ours)
        if theirs is None or theirs <= ours:
            return
        await self._forget()
        await self._store.renew(theirs + 1)
        self._log.error(
            "store.restored",
            ours=ours,
            known=theirs,
            problem="the store is an older copy: its mailboxes have new UIDVALIDITYs, clients read them anew",
        )
        await self._master.epoch(self._server, theirs + 1)
