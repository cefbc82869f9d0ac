"""Folders whose sockets only this node's processes may put there: whoever else could would hear and say what they do."""

import errno
import os
import stat
from pathlib import Path


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
