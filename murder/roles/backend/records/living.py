"""Which processes of a backend live: each holds a lock on a file of its name, which the kernel opens when it dies."""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path


class Living:
    """This one, and what it can say of others."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._folder = folder
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            if not file.name.startswith(".") and self.is_gone(file.name):
                file.unlink(missing_ok=True)
        self.name = secrets.token_hex(8)
        made = folder / f".{self.name}"  # nobody asks for it before it is locked
        self._lock = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.rename(folder / self.name)

    def is_gone(self, name: str) -> bool:
        """Whether that process has died, or ended."""
        try:
            lock = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True

    def close(self) -> None:
        with suppress(OSError):
            (self._folder / self.name).unlink()
        os.close(self._lock)
