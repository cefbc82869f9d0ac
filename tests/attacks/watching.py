"""What others feel of an attack: the longest NOOP of who is logged in at each node, what the node spent in that time, its
memory, and whether all its processes are the same behind it.

Whoever says NOOP is a process of their own. The clock tells what the machine's other programs cost, too; CPU does not.
"""

import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from tests.attacks.ground import FORK, Wire
from tests.kit.process import descendants
from tests.kit.waiting import pause

EVERY_S: Final = 0.02
OWN_ADDRESS: Final = "127.0.0.1"
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Wait:
    """The longest NOOP: by the clock, and of it the CPU of the node's process that spent most. `lost` is why it ended."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    where: str = ""
    count: int = 0
    lost: str = ""


def cpu_of(pid: int) -> float:
    """Seconds that all threads of a process have had of processors."""
    try:
        # clock_getcpuclockid(3): the complement of the process, and CPUCLOCK_SCHED
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def processes_of(node: int) -> list[int]:
    return [node, *descendants(node)]


def memory_of(pids: Iterable[int]) -> int:
    """Octets that are resident of all of them."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm") as file:
                total += int(file.read().split()[1]) * PAGE
        except (OSError, IndexError):
            continue
    return total


@dataclass
class Bystander:
    """Somebody who is logged in at a node, and says NOOP every 20 ms."""

    where: str
    node: dict[str, Any]
    user: str
    password: str
    pids: list[int]  # of the nodes that answer
    worst: Wait = Wait()
    count: int = 0

    def connect(self) -> Wire:
        is_master = self.where == "mu"
        wire = Wire(self.node["host"], self.node["port" if is_master else "imap"], OWN_ADDRESS)
        if is_master:
            wire.until_quiet(b"* OK MUPDATE")
            plain = b64encode(f"\0admin\0{self.password}".encode()).decode()
            wire.raw(f'a AUTHENTICATE "PLAIN" "{plain}"\r\n'.encode())
            wire.until_quiet(b"a OK")
        else:
            wire.reply()
            wire.ok(f"LOGIN {self.user} {self.password}")
            wire.ok("SELECT INBOX")
        return wire

    def watch(self, is_over: Callable[[], bool], is_ready: Callable[[], object]) -> None:
        with closing(self.connect()) as wire:
            is_ready()
            try:
                while not is_over():
                    self._noop(wire)
                    pause(EVERY_S, "somebody says NOOP every now and then")
            except (OSError, EOFError) as error:
                why = f"{self.where} lost its session: {type(error).__name__}"
                self.worst = Wait(99.0, 99.0, self.where, self.count, why)

    def _noop(self, wire: Wire) -> None:
        before = [cpu_of(pid) for pid in self.pids]
        start = time.monotonic()
        wire.raw(b"n NOOP\r\n")
        wire.until_quiet(b"n OK")
        seconds = time.monotonic() - start
        self.count += 1
        if seconds > self.worst.seconds:
            spent = max(cpu_of(pid) - was for pid, was in zip(self.pids, before, strict=True))
            self.worst = Wait(seconds, max(spent, 0.0), self.where)


def watch_all(bystanders: list[Bystander], pipe: Connection) -> None:
    """A process's whole life: until it is told to end."""
    over, ready = threading.Event(), threading.Barrier(len(bystanders) + 1)
    threads = [
        threading.Thread(target=each.watch, args=(over.is_set, ready.wait), daemon=True)
        for each in bystanders
    ]
    for thread in threads:
        thread.start()
    ready.wait(60)
    pipe.send("ready")
    pipe.recv()
    over.set()
    for thread in threads:
        thread.join(60)
    for each, thread in zip(bystanders, threads, strict=True):
        if thread.is_alive():
            each.worst = Wait(
                60.0, 60.0, each.where, each.count, f"{each.where}: no answer for 60 s"
            )
    pipe.send([(each.worst, each.count) for each in bystanders])


def beside(bystanders: list[Bystander], run: Callable[[], None]) -> list[Wait]:
    """The worst of each while `run` runs."""
    here, there = FORK.Pipe()
    process = FORK.Process(target=watch_all, args=(bystanders, there), daemon=True)
    process.start()
    try:
        assert here.poll(90), "the bystanders do not get in"
        here.recv()
        run()
        here.send("over")
        assert here.poll(120), "the bystanders do not come back"
        return [
            Wait(worst.seconds, worst.cpu_s, worst.where, count, worst.lost)
            for worst, count in here.recv()
        ]
    finally:
        process.terminate()
        process.join()
