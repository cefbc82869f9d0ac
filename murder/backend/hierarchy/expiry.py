"""Mailboxes that were deleted and are kept for a while (`[backend] delete = "delayed"`): removed when their time has come.

Worker 0 looks every few minutes. The time of deletion stands in the name (`model.name.deleted_name`), as with Cyrus.
"""

import asyncio
import time
from typing import Final

from murder.backend.shared import Backend
from murder.errors import Refusal, UpstreamFailure
from murder.log import logger
from murder.model.name import before_deletion, display, is_deleted

LOOK_EVERY_S: Final = 300.0


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


async def keep_expiring(backend: Backend) -> None:
    """For ever, or until cancelled."""
    expiry_log = logger(role="backend")
    while True:
        try:
            await expire(backend, time.time())
        except (Refusal, UpstreamFailure) as problem:
            expiry_log.info("mailbox.not_expired", problem=str(problem))
        except Exception as error:  # noqa: BLE001 - the end of a round of a task
            expiry_log.error("mailbox.not_expired", exc_info=error)
        await asyncio.sleep(LOOK_EVERY_S)
