"""How many messages the store has, and of how many octets: for a monitoring system, counted behind everything else.

A store answers for one mailbox at a time, so all are asked one after the other, in turns, by one worker for all. What is
told is of the last whole count; a store of many mailboxes is counted the more rarely, so that counting stays a small part
of what its node does.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from murder.api.store import MailboxStore
from murder.errors import Refusal
from murder.log import logger
from murder.net.turns import Turn

EVERY_S: Final = 300.0
SHARE: Final = 50  # a count is begun when it has rested so many times as long as the last one took
NOBODY: Final = ""  # reads: what is \\Seen does not count

Sleep = Callable[[float], Awaitable[object]]


class Totals:
    """See the module. `messages` and `octets` are None until all have been counted once."""

    def __init__(self, store: MailboxStore) -> None:
        self.messages: int | None = None
        self.octets: int | None = None
        self._store = store

    async def count(self) -> None:
        """Once. Mailboxes that go meanwhile are left out; raises Refusal where the store tells nothing."""
        messages = octets = 0
        turn = Turn()
        for stored in await self._store.mailboxes():
            try:
                mailbox = await self._store.open(stored.name, NOBODY)
            except Refusal:
                continue
            try:
                status = await mailbox.status()
                messages += status.messages
                octets += status.size
            except Refusal:
                continue
            finally:
                mailbox.close()
            if turn.is_over:
                await turn.rest()
        self.messages, self.octets = messages, octets

    async def keep_counting(self, sleep: Sleep = asyncio.sleep) -> None:
        """For ever, or until cancelled."""
        log = logger(role="backend")
        while True:
            began = time.monotonic()
            try:
                await self.count()
            except (Refusal, OSError) as problem:
                log.warning("store.not_counted", problem=str(problem))
            await sleep(max(EVERY_S, SHARE * (time.monotonic() - began)))
