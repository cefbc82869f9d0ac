"""Operations that failed and could not be undone for long, as on a disk that stays full: undone when that is possible. Until
then their trees are locked; it needs no restart, which would do the same (`Announcer.repair`)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from murder.errors import Refusal
from murder.log import logger
from murder.model.name import display
from murder.roles.backend.changes.events import Events, MasterMayDiffer
from murder.roles.backend.hierarchy.intent import Intent

RETRY_S: Final = 5.0


class Left:
    """Those of this process. `settle` may be done twice, and raises Refusal where it cannot be done now."""

    def __init__(
        self,
        is_held: Callable[[Intent], bool],
        settle: Callable[[Intent], Awaitable[None]],
        events: Events,
    ) -> None:
        self._is_held = is_held
        self._settle = settle
        self._events = events
        self._intents: dict[Intent, Intent] = {}  # what is locked, and what is to be settled of it
        self._task: asyncio.Task[None] | None = None
        self._log = logger(role="backend")

    @contextmanager
    def noting(self, intent: Intent) -> Iterator[None]:
        """Around an operation: if its lock still stands in the list when it has failed, nobody is at it any more."""
        try:
            yield
        except Exception:
            if self._is_held(intent):
                self.note(intent, intent)
            raise

    def note(self, intent: Intent, settled_as: Intent) -> None:
        """Nobody is at it any more. What was noted first counts: whoever fails knows best what has been done."""
        self._intents.setdefault(intent, settled_as)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """What is left then is for the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._intents:
            await asyncio.sleep(RETRY_S)
            for intent in list(self._intents):
                await self._try(intent)

    async def _try(self, intent: Intent) -> None:
        mailbox, operation = display(intent.moves[0][0]), intent.operation.value
        try:
            if self._is_held(intent):  # else it was let go of all the same, and others may be there
                await self._settle(self._intents[intent])
        except (Refusal, OSError):
            return
        except Exception as error:  # noqa: BLE001 - the end of a task's round
            self._log.error("announce.not_repaired", mailbox=mailbox, exc_info=error)
        else:
            self._log.warning("announce.repaired", operation=operation, mailbox=mailbox)
            self._events.publish(MasterMayDiffer(tuple(intent.names)))
        del self._intents[intent]
