"""What processes cost: CPU time and memory of whole process trees, from /proc (Linux)."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

TICK: Final = os.sysconf("SC_CLK_TCK")


def tree(roots: Iterable[int]) -> set[int]:
    """These processes and all their descendants, as they are now."""
    parent: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent[int(name)] = int(_stat(int(name))[1])
        except OSError:
            continue
    found = set(roots)
    while more := {child for child, above in parent.items() if above in found} - found:
        found |= more
    return found


def cpu_s(roots: Iterable[int]) -> float:
    """CPU seconds that the trees have used, with those of children that have ended (and been waited for).

    Of the living to the nanosecond, as the scheduler counts: by ticks, a process that wakes often and runs briefly may
    seem to use none.
    """
    total_s = 0.0
    for process in tree(roots):
        try:
            fields = [int(field) / TICK for field in _stat(process)[11:15]]
            total_s += max(_ran_s(process), sum(fields[:2])) + sum(fields[2:])
        except OSError:
            continue
    return total_s


def _ran_s(process: int) -> float:
    """What its threads have run; those that have ended are not among them."""
    files = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def ran_s(roots: Iterable[int]) -> float:
    """CPU seconds of the threads that live now, to the nanosecond: for a while in which none ends."""
    return sum(_ran_s(process) for process in tree(roots))


def pss_kib(roots: Iterable[int]) -> int:
    """Proportional set size: shared pages are shared out among who maps them."""
    total = 0
    for process in tree(roots):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def _stat(process: int) -> list[str]:
    """From the state on: parent is [1], utime, stime, cutime, cstime are [11:15]."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
