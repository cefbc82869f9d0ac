"""What was deleted or expunged, and is kept for a while: removed when its time has come.

Worker 0 looks every few minutes for mailboxes (`[backend] delete = "delayed"`): the time of deletion stands in the name
(`model.name.deleted_name`), as with Cyrus. Expunged messages are the store's, which is asked more rarely.
"""

import asyncio
import time
from typing import Final

from murder.api.store import RestoresExpunged
from murder.backend.shared import Backend
from murder.errors import Refusal, UpstreamFailure
from murder.log import logger
from murder.model.name import before_deletion, display, is_deleted

LOOK_EVERY_S: Final = 300.0
PURGE_EVERY_S: Final = (
    86_400.0  # at most: each user's mail is looked at, which costs a million users some minutes
)


async def expire(backend: Backend, now: float) -> int:
    """Remove what was deleted too long ago; how many. Raises Refusal, UpstreamFailure."""
    doomed = []
    for entry in backend.mailboxes.list.walk():
        before = before_deletion(entry.name) if is_deleted(entry.name) else None
        if (
            before is not None
            and entry.is_active
            and before[1] + backend.config.deleted_keep_s < now
        ):
            doomed.append(entry.name)
    expiry_log = logger(role="backend")
    for name in doomed:
        await backend.announcer.delete([name])
        expiry_log.info("mailbox.expired", mailbox=display(name))
    return len(doomed)


async def purge(backend: Backend) -> int:
    """Remove what was expunged too long ago; how many messages. Raises Refusal."""
    if not isinstance(backend.store, RestoresExpunged):
        return 0
    found = await backend.store.purge()
    if found:
        logger(role="backend").info("expunged.purged", messages=found)
    return found


async def keep_expiring(backend: Backend) -> None:
    """For ever, or until cancelled."""
    expiry_log = logger(role="backend")
    purged_at = time.monotonic()  # a start has looked at what is there already
    while True:
        try:
            await expire(backend, time.time())
            every_s = min(PURGE_EVERY_S, max(LOOK_EVERY_S, backend.config.expunged_keep_s / 8))
            if time.monotonic() - purged_at >= every_s:
                await purge(backend)
                purged_at = time.monotonic()
        except (Refusal, UpstreamFailure) as problem:
            expiry_log.info("mailbox.not_expired", problem=str(problem))
        except Exception as error:  # noqa: BLE001 - the end of a round of a task
            expiry_log.error("mailbox.not_expired", exc_info=error)
        await asyncio.sleep(LOOK_EVERY_S)
