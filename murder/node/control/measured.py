"""What a process takes of its host: memory, descriptors, its disk."""

import os
import resource
import shutil
import time
from pathlib import Path
from typing import Final

MEMORY_EVERY_S: Final = 10.0


def disk_of(folder: Path) -> tuple[int, int]:
    """Octets left and in all; 0 and 0 where the system does not tell (its file system is gone): all else that is asked for
    is told then, too."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return 0, 0
    return usage.free, usage.total


def descriptors() -> int:
    """Open now, where the system tells."""
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0


class Memory:
    """What this process needs, read again when it is a while old: the kernel walks through all of its pages, which takes a
    process of a gigabyte milliseconds."""

    def __init__(self) -> None:
        self._read_at = -MEMORY_EVERY_S
        self._kib = 0

    def kib(self) -> int:
        now = time.monotonic()
        if now - self._read_at >= MEMORY_EVERY_S:
            self._read_at, self._kib = now, _memory_kib()
        return self._kib


def _memory_kib() -> int:
    """This process's own share (PSS), where the system tells; else its peak."""
    try:
        for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
