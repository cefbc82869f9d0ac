"""Disks that are soon full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import cannot_run


@contextmanager
def small_disk(disk: Path, size: str) -> Iterator[Path]:
    """A folder that is a file system of its own, as large as mount(8) takes it for tmpfs: `900k`, `12m`."""
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    made = subprocess.run(mount, check=False, capture_output=True)
    if made.returncode:
        cannot_run(f"a small file system cannot be mounted here: {made.stderr.decode()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> Path:
    """Take all that is free there. Returns the file whose removal gives it back."""
    filler, room = disk / "filler", os.statvfs(disk)
    filler.write_bytes(bytes(room.f_bfree * room.f_frsize))
    return filler
