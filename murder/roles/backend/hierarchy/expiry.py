"""What was deleted or expunged, and is kept for a while: removed when its time has come.

Worker 0 looks every few minutes for mailboxes (`[backend] delete = "delayed"`): the time of deletion stands in the name
(`model.name.deleted_name`), as with Cyrus. Expunged messages are the store's, which is asked
more rarely, and once a day the rules of age act (`policies`).
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from murder.api.store import RestoresExpunged
from murder.errors import Refusal, UpstreamFailure
from murder.log import logger
from murder.model.name import before_deletion, display, is_deleted
from murder.roles.backend.hierarchy.policies import today, told
from murder.roles.backend.shared import Backend
from murder.roles.backend.traced import Unattended
from murder.trail.audit import AuditLog

LOOK_EVERY_S: Final = 300.0
DAY_S: Final = 86_400.0  # each user's mail is looked at, which costs a million users some minutes


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
    purged = await backend.store.purge()
    if purged:
        expiry_log = logger(role="backend")
        expiry_log.info("expunged.purged", messages=purged)
    return purged


async def apply_policies(backend: Backend, audit: AuditLog) -> int:
    """What the rules of age ask for; how many messages have gone. Raises Refusal."""
    expiry_log, messages = logger(role="backend"), 0
    by = Unattended(backend.mail_log, {"protocol": "expiry"})
    async for expired in backend.policies.apply(today(), acts=True, by=by):
        messages += expired.messages
        if expired.problem:
            expiry_log.info("expiry.not_applied", **told(expired), problem=expired.problem)
        if expired.messages:
            expiry_log.info("expiry.applied", **told(expired))
            audit.note("EXPIRE", {"user": "", **told(expired, backend.shown)})
    return messages


async def keep_expiring(backend: Backend, folder: Path, audit: AuditLog) -> None:
    """For ever, or until cancelled."""
    purging, applying = Daily(folder / "purged_at"), Daily(folder / "expiry_applied_at")
    while True:
        now = time.time()
        keep_s = backend.config.expunged_keep_s
        await _once(lambda: expire(backend, time.time()))
        if purging.is_due(now, min(DAY_S, max(LOOK_EVERY_S, keep_s / 8))):
            await _once(lambda: purge(backend))
            purging.done(now)
        if not backend.policies.has_rules:
            applying.forget()
        elif applying.is_due(now, DAY_S):
            await _once(lambda: apply_policies(backend, audit))
            applying.done(now)
        await asyncio.sleep(LOOK_EVERY_S)


async def _once(work: Callable[[], Awaitable[object]]) -> None:
    expiry_log = logger(role="backend")
    try:
        await work()
    except (Refusal, UpstreamFailure) as problem:
        expiry_log.info("mailbox.not_expired", problem=str(problem))
    except Exception as error:  # noqa: BLE001 - the end of a round of a task
        expiry_log.error("mailbox.not_expired", exc_info=error)


class Daily:
    """When something was last done: in the date of a file, so that restarts neither repeat it nor put it off."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def is_due(self, now: float, every_s: float) -> bool:
        """The first time it is not: a day passes before anything acts. Nor where a clock was set back by less."""
        try:
            at = self._file.stat().st_mtime
        except OSError:
            self.done(now)
            return False
        if at > now:
            self.done(now)
            return False
        return now - at >= every_s

    def forget(self) -> None:
        """As if nothing had been done ever."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)

    def done(self, now: float) -> None:
        with contextlib.suppress(OSError):  # a full disk: it is done again
            self._file.touch(mode=0o600)
            os.utime(self._file, (now, now))
