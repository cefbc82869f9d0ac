"""Which mailboxes are selected in which worker of a backend: counters in a file of each, mapped into the memory of all.

An id has a place by its hash, which it may share: then a mailbox seems to be selected that is not. What a worker has
counted stays when it dies, until its successor begins. A look costs less than a microsecond, and nobody is asked.
"""

import mmap
import os
from pathlib import Path
from typing import Final
from zlib import crc32

from murder.net.own_folder import make_own_folder

PLACES: Final = 65536
OCTETS: Final = 2  # of a counter, which stops at its end
MOST: Final = 65535
FILE_MODE: Final = 0o600
MOST_BITS: Final = 62  # of an integer that SQLite keeps; workers beyond that share the last


class Presence:
    """One worker's view of all of them."""

    def __init__(self, folder: Path, worker: int, workers: int) -> None:
        self._folder = folder
        self._worker = worker
        self._workers = workers
        self._maps: list[mmap.mmap] = []
        self._counts: list[memoryview] = []

    @property
    def bit(self) -> int:
        return 1 << min(self._worker, MOST_BITS)

    def start(self) -> None:
        """Nobody has selected anything here yet."""
        make_own_folder(self._folder)
        for worker in range(self._workers):
            path = self._folder / f"worker-{worker}.selected"
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(path, flags, FILE_MODE)
            try:
                os.ftruncate(descriptor, PLACES * OCTETS)
                if worker == self._worker:
                    _fill(descriptor)
                mapped = mmap.mmap(descriptor, PLACES * OCTETS)
            finally:
                os.close(descriptor)
            self._maps.append(mapped)
            self._counts.append(memoryview(mapped).cast("H"))

    def stop(self) -> None:
        for counts in self._counts:
            counts.release()
        for mapped in self._maps:
            mapped.close()
        self._counts.clear()
        self._maps.clear()

    def enter(self, mailbox_id: str) -> None:
        self._count(mailbox_id, 1)

    def leave(self, mailbox_id: str) -> None:
        self._count(mailbox_id, -1)

    def _count(self, mailbox_id: str, step: int) -> None:
        if self._counts:
            counts, place = self._counts[self._worker], _place(mailbox_id)
            if counts[place] < MOST:  # at its end nobody knows how many there are
                counts[place] = max(0, counts[place] + step)

    def elsewhere(self, mailbox_id: str) -> int:
        """The bits of the other workers in which somebody may have it selected."""
        place, workers = _place(mailbox_id), 0
        for worker, counts in enumerate(self._counts):
            if worker != self._worker and counts[place]:
                workers |= 1 << min(worker, MOST_BITS)
        return workers


def _fill(descriptor: int) -> None:
    """With zeros, by writing: a hole that is written to by the map ends the process (SIGBUS) where the disk is full."""
    rest = memoryview(bytes(PLACES * OCTETS))
    while rest:
        rest = rest[os.pwrite(descriptor, rest, PLACES * OCTETS - len(rest)) :]


def _place(mailbox_id: str) -> int:
    return crc32(mailbox_id.encode()) % PLACES
