"""How many messages the store has, and of how many octets: for a monitoring system, counted behind everything else.

A store answers for one mailbox at a time, so all are asked one after the other, in turns, by one worker for all. Which there
are is known by this server's list, in its order: a store of one database a user has each opened once. What is told is of the
last whole count; a store of many mailboxes is counted the more rarely, so that counting stays a small part of what its node
does.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from murder.api.store import MailboxStore
from murder.errors import Refusal
from murder.log import logger
from murder.model.name import MailboxName
from murder.roles.backend.records.quota import statuses_of

EVERY_S: Final = 300.0
SHARE: Final = 50  # a count is begun when it has rested so many times as long as the last one took

Sleep = Callable[[float], Awaitable[object]]


class Totals:
    """See the module. `messages` and `octets` are None until all have been counted once."""

    def __init__(self, store: MailboxStore, names: Callable[[], Iterable[MailboxName]]) -> None:
        """`names`: of all mailboxes that the store should have, those of a user side by side."""
        self.messages: int | None = None
        self.octets: int | None = None
        self._store = store
        self._names = names

    async def count(self) -> None:
        """Once. Raises Refusal where the store tells nothing, or a mailbox goes at the moment that it is asked."""
        messages = octets = 0
        async for status in statuses_of(self._store, self._names()):
            messages += status.messages
            octets += status.size
        self.messages, self.octets = messages, octets

    async def keep_counting(self, sleep: Sleep = asyncio.sleep) -> None:
        """For ever, or until cancelled."""
        totals_log = logger(role="backend")
        while True:
            began = time.monotonic()
            try:
                await self.count()
            except (Refusal, OSError) as problem:
                totals_log.warning("store.not_counted", problem=str(problem))
            except Exception as error:  # noqa: BLE001 - the end of a round of a task
                totals_log.error("store.not_counted", problem=str(error), exc_info=error)
            await sleep(max(EVERY_S, SHARE * (time.monotonic() - began)))
