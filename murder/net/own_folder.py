"""Folders whose sockets only this node's processes may put there: whoever else could would hear and say what they do."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MAX_PATH_OCTETS: Final = 100  # sun_path has 108, with the zero behind it


def make_own_folder(folder: Path) -> None:
    """Make it, for its owner only. One that is there belongs to us, or to whom the folder around it belongs to, and nobody
    else may write in it. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = os.lstat(folder)
    if not stat.S_ISDIR(seen.st_mode):
        wrong = "is no folder, but leads to one"
    elif seen.st_uid not in (os.geteuid(), os.stat(folder.parent).st_uid):
        wrong = f"belongs to user id {seen.st_uid}, not to {os.geteuid()}"
    elif seen.st_mode & 0o022:
        wrong = f"can be written by others (mode {stat.S_IMODE(seen.st_mode):04o})"
    else:
        return
    raise PermissionError(errno.EPERM, f"{wrong}; remove it", str(folder))


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path of a socket for `bind` and `connect` that is short enough, whatever the folder's is. Raises OSError."""
    if len(os.fsencode(path)) <= MAX_PATH_OCTETS or not Path("/proc/self/fd").is_dir():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
