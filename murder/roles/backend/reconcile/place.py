"""Whether the store can keep mail now, and how much room is left for it: looked at each half a minute, so that the log
has it though nobody asks, and when somebody does (`/readyz`, `status`), each few seconds at most.

In a thread of its own, which a server of files that does not answer may hold for ever; the loop waits a little.
"""

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Final

from murder.api.store import ChecksPlace, MailboxStore, Room, TellsRoom
from murder.errors import Refusal
from murder.log import logger

LOOK_EVERY_S: Final = 5.0
KEEP_EVERY_S: Final = 30.0
WAIT_S: Final = 2.0  # who asks a node waits for 5 s in all
LATE_S: Final = 15.0  # a disk that is busy may take so long


class PlaceWatch:
    """`problem`: why mail cannot be kept, as of the look that has ended last; empty where it can, None where the store does
    not say. `room`: of the disk of its mail, None where it is on none, or is not known now."""

    def __init__(self, store: MailboxStore) -> None:
        self._store = store if isinstance(store, ChecksPlace) else None
        self.problem: str | None = None if self._store is None else ""
        self.room: Room | None = None
        self._looking: asyncio.Future[_Look] | None = None
        self._began = -LOOK_EVERY_S
        self._log = logger(role="backend")

    async def keep_looking(self) -> None:
        """Until cancelled."""
        while self._store is not None:
            await self.look()
            await asyncio.sleep(KEEP_EVERY_S)

    async def look(self) -> None:
        """Within seconds, whatever the disk does. Raises nothing."""
        store, now = self._store, time.monotonic()
        if store is None:
            return
        if self._looking is None:
            if now - self._began < LOOK_EVERY_S:
                return
            self._began, self._looking = now, asyncio.get_running_loop().create_future()
            arguments = store, self._looking
            try:
                threading.Thread(target=_run, args=arguments, name="place", daemon=True).start()
            except RuntimeError:  # none can be had now: that tells nothing of the disk
                self._looking = None
                return
        looking = self._looking
        await asyncio.wait([looking], timeout=WAIT_S)
        if looking.done():
            self._take(looking)
        elif time.monotonic() - self._began >= LATE_S:
            self.room = None
            self._say("the disk that mail is kept on does not answer")

    def _take(self, looked: asyncio.Future["_Look"]) -> None:
        """Who waited for the same look has perhaps taken it."""
        if self._looking is looked:
            self._looking = None
            look = looked.result()
            self.room = look.room
            self._say(look.problem)

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            self._log.error("store.away", problem=problem)
        elif self.problem and not problem:
            self._log.warning("store.back")
        self.problem = problem


@dataclass(frozen=True, slots=True)
class _Look:
    problem: str
    room: Room | None


def _run(store: ChecksPlace, looked: asyncio.Future[_Look]) -> None:
    problem, room = "", None
    try:
        if isinstance(store, TellsRoom):
            with contextlib.suppress(OSError):  # the other look says what is the matter
                room = store.room()
        store.check_place()
    except Refusal as refusal:
        problem = refusal.text
    except Exception as error:  # noqa: BLE001 - the end of a thread's task
        problem = f"its store cannot say whether mail can be kept: {error!r}"
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
        looked.get_loop().call_soon_threadsafe(_settle, looked, _Look(problem, room))


def _settle(looked: asyncio.Future[_Look], look: _Look) -> None:
    if not looked.done():
        looked.set_result(look)
