"""Where tests have their files: in memory, if there is room. A disk is waited for at each `fsync`, thousands of times.

Tests of what is kept when something dies have theirs on a disk: there it matters when a program dies (`on_disk`).
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

AT: Final = Path("/dev/shm")
ROOM: Final = 4 << 30  # octets


def use_memory() -> None:
    """For this process and what it starts. Whoever has said where (TMPDIR) has it there."""
    if "TMPDIR" not in os.environ and _has_room():
        os.environ["TMPDIR"] = str(AT)
        tempfile.tempdir = None  # which is looked for anew


@contextlib.contextmanager
def on_disk() -> Iterator[None]:
    """Where this process and what it starts put files until the end of the block, if they were in memory."""
    if os.environ.get("TMPDIR") != str(AT):
        yield
        return
    del os.environ["TMPDIR"]
    tempfile.tempdir = None
    try:
        yield
    finally:
        os.environ["TMPDIR"] = str(AT)
        tempfile.tempdir = None


def _has_room() -> bool:
    """And programs may be run there: a container's mostly has neither."""
    try:
        found = os.statvfs(AT)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC
