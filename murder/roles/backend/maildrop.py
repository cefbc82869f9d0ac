"""One session at a time in a maildrop (RFC 1939 §4): a lock that all workers of a host respect and no crash leaves."""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from murder.errors import Code, Refusal
from murder.model.name import MailboxName

WAITS: Final = 40  # so often who comes looks again whether the session before has ended: one that has lost its client
# does within a turn of the loop; a client that connects anew meets it in its last moments
WAIT_S: Final = 0.1


async def lock_maildrop(
    folder: Path,
    name: MailboxName,
    is_gone: Callable[[], bool],
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> "MaildropLock":
    """Wait a little for whoever has it. Raises Refusal(IN_USE), and ConnectionResetError where `is_gone` says so."""
    for _ in range(WAITS):
        try:
            return MaildropLock(folder, name)
        except Refusal:
            await sleep(WAIT_S)
        if is_gone():
            raise ConnectionResetError("the client has gone")
    return MaildropLock(folder, name)


class MaildropLock:
    """Held from its making to `release`. A file per maildrop, locked by the kernel, gone when it is released."""

    def __init__(self, folder: Path, name: MailboxName) -> None:
        """Raises Refusal(IN_USE)."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / hashlib.sha256(name).hexdigest()[:32]
        self._descriptor = -1
        while self._descriptor < 0:
            self._descriptor = self._try()

    def _try(self) -> int:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who released it just now has unlinked it: then this is a lock on a file that nobody else will find.
            if os.fstat(descriptor).st_ino == os.stat(self._path).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            raise Refusal(Code.IN_USE, "The maildrop is open in another session") from None
        os.close(descriptor)
        return -1

    def release(self) -> None:
        """Twice is fine."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1
