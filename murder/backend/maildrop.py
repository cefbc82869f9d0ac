"""One session at a time in a maildrop (RFC 1939 §4): a lock that all workers of a host respect and no crash leaves."""

import fcntl
import hashlib
import os
from pathlib import Path

from murder.errors import Code, Refusal
from murder.model.name import MailboxName


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
