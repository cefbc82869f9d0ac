"""What is put into a mailbox while that is stopped for its move to another server: it waits for the end of the stop.

A stop takes some hundredths of a second. The mailbox has left then, and whoever asked goes there (a frontend does so for its
client); or the move has been given up, and what was asked is done.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from murder.api import CarriesMailboxes
from murder.errors import Code, Refusal
from murder.model.name import MailboxName
from murder.roles.backend.imap.dialogue import LONGEST_STOP_S, LOOK_AGAIN_S, BackendImap

T = TypeVar("T")


async def after_stop(
    dialogue: BackendImap, name: MailboxName, change: Callable[[], Awaitable[T]]
) -> T:
    """What `change` gives. It is called again where the mailbox was stopped and has stayed. Raises what it raised last:
    Refusal(IN_USE) where the mailbox has left."""
    give_up_at = dialogue.loop.time() + LONGEST_STOP_S
    while True:
        try:
            return await change()
        except Refusal as refusal:
            if refusal.code is not Code.IN_USE:
                raise
            if not await _has_stayed(dialogue, name, give_up_at):
                raise


async def _has_stayed(dialogue: BackendImap, name: MailboxName, give_up_at: float) -> bool:
    """At the end of a stop. False also where there was none: then something else was in the way."""
    store, mailboxes = dialogue.backend.store, dialogue.backend.mailboxes
    if not isinstance(store, CarriesMailboxes):
        return False
    was_stopped = False
    while mailboxes.find(name) is not None and dialogue.loop.time() < give_up_at:
        if dialogue.connection.is_lost:
            return False
        if not await store.is_frozen(name):
            return was_stopped
        was_stopped = True
        await asyncio.sleep(LOOK_AGAIN_S)
    return False
