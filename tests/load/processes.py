"""What processes cost: CPU time and memory of whole process trees, from /proc (Linux)."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tests.kit.waiting import pause

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


def system_calls(roots: Iterable[int], work: Callable[[], int]) -> float | None:
    """What the trees ask of the kernel for each of what `work` does; None where there is no strace."""
    if shutil.which("strace") is None:
        return None
    processes = sorted(tree(roots))
    with tempfile.NamedTemporaryFile("r") as told:
        words = [word for process in processes for word in ("-p", str(process))]
        command = ["strace", "-f", "-c", "-o", told.name, *words]
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            while tracer.poll() is None and not all(map(_is_traced, processes)):
                pause(0.05, "strace attaches to one process after the other")
            done = work()
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(30)
        total = next((line for line in told if line.rstrip().endswith(" total")), "")
    return int(total.split()[3]) / done if total else None


def _is_traced(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return True
    return "TracerPid:\t0\n" not in status
