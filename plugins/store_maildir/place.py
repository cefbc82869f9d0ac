"""Where the trees of one setting are, as long as it is there."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

from murder.api.disk import disk_error


class Place:
    """The folder that has all trees of a template (`/srv/mail/%d/%n`: `/srv/mail`). Other software's, too: nothing of ours
    is written into it by which it would be known again."""

    def __init__(self, template: str) -> None:
        self.folder: Final = Path(template.partition("%")[0].rpartition("/")[0] or "/")
        self._known: tuple[int, int] | None = None

    def note(self) -> None:
        """It has trees, or is about to."""
        with contextlib.suppress(OSError):
            self._known = _identity(self.folder)

    def need(self) -> None:
        """Asked before anybody hears that a tree is not there, or a new one is made. Raises Refusal where all trees have
        gone, as with a file system that is not mounted any more: what is empty, and was something else before."""
        try:
            self._look()
        except OSError as error:
            raise disk_error(error, self.folder) from error

    def _look(self) -> None:
        """Raises OSError as `need` a Refusal."""
        if self._known is None:
            return
        if _identity(self.folder) == self._known or any(os.scandir(self.folder)):
            return
        raise FileNotFoundError(errno.ENOENT, "It is empty", str(self.folder))

    def check(self) -> None:
        """As `need`, and whether its file system is writable and has room; nothing is written. Raises OSError that names the
        folder."""
        self._look()
        if self._known is None:
            return
        system = os.statvfs(self.folder)
        room = system.f_bavail if os.geteuid() else system.f_bfree
        if system.f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self.folder))
        if system.f_blocks and not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def has(self, folder: Path) -> bool:
        """Whether there is a tree. Raises Refusal."""
        try:
            there = folder.is_dir()
        except OSError as error:
            raise disk_error(error, folder) from error
        if not there:
            self.need()
        elif self._known is None:
            self.note()
        return there


def _identity(folder: Path) -> tuple[int, int]:
    """Raises OSError."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino
