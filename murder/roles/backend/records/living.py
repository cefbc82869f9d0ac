"""Which processes of a backend have died: each holds a lock on a file of its name, which the kernel opens then. Who ends in
order removes the file.

The dead are remembered for as long as senders may come again with what a dead process had in hand; that time begins with the
next start, for nobody can come before. Of what a process had done long before its last sign of life all have heard: its file
was changed then (`st_mtime`), and read when a start noticed the death (`st_atime`); who reads it later lengthens that.
"""

import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from murder.durable import sync_folder

HEARD_S: Final = 600.0  # after so long a sender has heard
NOTE_EVERY_S: Final = 30.0
DEAD: Final = "dead-"  # before the name of one whose death a start has noticed
# senders wait for half an hour and more (RFC 5321 §4.5.4.1), some for hours
REMEMBERED_S: Final = 86_400.0


class Living:
    """This one, and what it can say of others."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._folder = folder
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            self._notice(file)
        self._note_at = 0.0
        self.name = secrets.token_hex(8)
        made = folder / f".{self.name}"  # nobody asks for it before it is locked
        self._lock = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.rename(folder / self.name)
        for above in (folder, *folder.parents[:2]):  # who is cut off with the power has died, too
            sync_folder(above)

    def _notice(self, file: Path) -> None:
        """At a start. Other workers start, too."""
        if file.name.startswith(DEAD):
            if not _is_fresh(file):
                file.unlink(missing_ok=True)
        elif not file.name.startswith(".") and _is_open(file):
            with suppress(FileNotFoundError):
                os.utime(file, (time.time(), file.stat().st_mtime))  # the same twice
                file.rename(file.with_name(DEAD + file.name))

    def note(self) -> None:
        """A sign of life. In any thread."""
        now = time.monotonic()
        if now >= self._note_at:
            self._note_at = now + NOTE_EVERY_S
            with suppress(OSError):
                os.utime(self._lock)

    def has_died(self, name: str, at: float) -> bool:
        """Whether that process has died, and not ended in order, so soon after this time that its sender may not have heard
        of what it did then; for so long after the next start."""
        file, dead = self._folder / name, self._folder / (DEAD + name)
        if _is_open(file):
            with suppress(FileNotFoundError):  # else another start has just noticed
                return at > file.stat().st_mtime - HEARD_S
        with suppress(FileNotFoundError):
            return _is_fresh(dead) and at > dead.stat().st_mtime - HEARD_S
        return False

    def close(self) -> None:
        with suppress(OSError):
            (self._folder / self.name).unlink()
        os.close(self._lock)


def _is_open(file: Path) -> bool:
    """Whether it is there, and nobody holds it."""
    try:
        lock = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _is_fresh(file: Path) -> bool:
    try:
        return file.stat().st_atime > time.time() - REMEMBERED_S
    except FileNotFoundError:
        return False
