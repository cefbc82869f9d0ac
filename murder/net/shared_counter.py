"""What the workers of a role count together: connections by address and by user, wrong passwords by user and by address;
and which password of a user was right last.

Each worker writes its own part of a piece of shared memory and reads all parts, so nobody waits for a lock, and what a
worker counted is gone with it: its successor begins with its part empty. Knows no protocol.
"""

import functools
import hashlib
import ipaddress
import math
import mmap
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from murder.model.address import address_in

RECORD: Final = struct.Struct("=QIfdd")  # key, count, level, when, pardoned
KEY: Final = struct.Struct("=Q")
SAID: Final = struct.Struct("=QI")  # the beginning of a record
RECORD_OCTETS: Final = RECORD.size
_key_at, _said_at, _put_record = KEY.unpack_from, SAID.unpack_from, RECORD.pack_into
SLOTS: Final = 65536  # of a part: three times the connections that a worker takes by default
PROBES: Final = 64  # slots that are looked at for a key
# behind a part's slots, on a page of its own: the newest `when` in it
STAMP: Final = struct.Struct("=d")
STAMP_AT: Final = SLOTS * RECORD.size
TOTAL: Final = struct.Struct("=Q")  # behind that: how many there are in all
TOTAL_AT: Final = STAMP_AT + STAMP.size
PART_OCTETS: Final = STAMP_AT + mmap.PAGESIZE
TABLES: Final = 5
KEY_OCTETS: Final = 32  # at the end of all: what only these workers know
IPV6_PREFIX: Final = 64  # one customer's


@dataclass(frozen=True, slots=True)
class Row:
    """What one worker has on a key. The times are those of the monotonic clock, which all processes share."""

    count: int
    when: float = 0.0
    pardoned: float = 0.0
    level: float = 0.0  # of what runs off, as it was at `when`


class SharedTable:
    """One row a key and worker. A row that `is_dead` makes room for others."""

    def __init__(
        self, memory: mmap.mmap, at: int, parts: int, own: int, is_dead: Callable[[Row], bool]
    ) -> None:
        self._memory = self.memory = memory
        self._parts = [at + part * PART_OCTETS for part in range(parts)]
        self._own = self.own_at = self._parts[own]
        self.others_at = tuple(part for part in self._parts if part != self._own)
        self._is_dead = is_dead
        memory.madvise(mmap.MADV_REMOVE, self._own, PART_OCTETS)  # of whoever was here before

    def rows(self, key: str, *, of_others: bool = False) -> Iterator[Row]:
        """What all workers have on it."""
        digest = _digest(key)
        for part in self._parts:
            if not (of_others and part == self._own):
                row = self._row(part, digest)
                if row is not None:
                    yield row

    def newest(self) -> float:
        """When anything was put here last, by any worker: mostly so long ago that no key need be looked for. The clock
        begins when the machine does, so what never was is -inf."""
        memory, stamps = self.stamps
        return max(float(STAMP.unpack_from(memory, at)[0]) for at in stamps) or -math.inf

    @property
    def stamps(self) -> tuple[mmap.mmap, tuple[int, ...]]:
        """Where each worker says that (`STAMP`)."""
        return self._memory, tuple(part + STAMP_AT for part in self._parts)

    def of_other(self, part: int, digest: int) -> int:
        """What another worker has of it."""
        row = self._row(part, digest)
        return row.count if row is not None else 0

    def own(self, key: str) -> Row:
        return self._row(self._own, _digest(key)) or Row(0)

    def put(self, key: str, row: Row) -> None:
        """In place of this worker's own. Where all is full, the oldest of the rows nearby is forgotten."""
        digest = _digest(key)
        at, kept = self._place(digest)
        if kept != digest:
            RECORD.pack_into(self._memory, at, kept, 0, 0.0, 0.0, 0.0)
        RECORD.pack_into(self._memory, at, digest, row.count, row.level, row.when, row.pardoned)
        if row.when:
            STAMP.pack_into(self._memory, self._own + STAMP_AT, row.when)

    def _row(self, part: int, digest: int) -> Row | None:
        for at in _places(part, digest):
            kept, count, level, when, pardoned = RECORD.unpack_from(self._memory, at)
            if kept == digest:
                return Row(count, when, pardoned, level)
            if not kept:
                break
        return None

    def _place(self, digest: int) -> tuple[int, int]:
        """Where its row stands or may stand, and whose that is now."""
        free: tuple[int, int] | None = None
        oldest: tuple[float, int, int] | None = None
        for at in _places(self._own, digest):
            kept, count, level, when, pardoned = RECORD.unpack_from(self._memory, at)
            if kept in (digest, 0):
                return (at, kept) if kept or free is None else free
            if free is None and self._is_dead(Row(count, when, pardoned, level)):
                free = (at, kept)
            latest = max(when, pardoned)
            if oldest is None or latest < oldest[0]:
                oldest = (latest, at, kept)
        assert oldest is not None
        return free or oldest[1:]


def place_of(address: str) -> str:
    """What counts as one address: of IPv6 what one customer has."""
    if ":" not in address:
        return address
    try:
        parsed = address_in(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))


def _places(part: int, digest: int) -> Iterator[int]:
    for slot in range(digest, digest + PROBES):
        yield part + (slot % SLOTS) * RECORD.size


# of 150 octets: a key is asked for when somebody comes and when they go
@functools.lru_cache(maxsize=4096)
def _digest(key: str) -> int:
    octets = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int(KEY.unpack(octets)[0]) or 1


class SharedCounter:
    """How many there are of each, in this worker and, on a board, in all. Without limits nothing is written there. Every
    session comes here twice and goes twice: the board is written and read in one function, where the key stands where it
    is looked for first."""

    def __init__(self, board: SharedTable | None = None) -> None:
        self._of: dict[str, int] = {}
        self._table = board
        self._is_public = False

    def enter(self, key: str, most: int) -> bool:
        """One more, unless there are `most` already (0: no limit)."""
        own = self._of.get(key, 0) + 1
        table = self._table
        if most and own > most:
            return False
        if most and table is not None:
            if not self._is_public:
                self.publish()
            # said first and looked at then: of two workers at the same instant at most one finds the last place free
            memory, at, digest = table.memory, table.own_at, _digest(key)
            first = digest % SLOTS * RECORD_OCTETS
            kept = _key_at(memory, at + first)[0]
            if kept == digest or not kept:
                _put_record(memory, at + first, digest, own, 0.0, 0.0, 0.0)
            else:
                table.put(key, Row(own))
            total = own
            for part in table.others_at:
                kept, there = _said_at(memory, part + first)
                if kept == digest:
                    total += there
                elif kept:
                    total += table.of_other(part, digest)
            if total > most:
                table.put(key, Row(own - 1))
                return False
        self._of[key] = own
        return True

    def leave(self, key: str) -> None:
        left = self._of.get(key, 0) - 1
        table = self._table
        if self._is_public and table is not None:
            count, digest = left if left > 0 else 0, _digest(key)
            first = table.own_at + digest % SLOTS * RECORD_OCTETS
            if _key_at(table.memory, first)[0] == digest:
                _put_record(table.memory, first, digest, count, 0.0, 0.0, 0.0)
            else:
                table.put(key, Row(count))
        if left > 0:
            self._of[key] = left
        else:
            self._of.pop(key, None)

    def publish(self) -> None:
        """There is a limit (now): the other workers must know what is here."""
        if self._is_public or self._table is None:
            return
        self._is_public = True
        for key, count in self._of.items():
            self._table.put(key, Row(count))


class Total:
    """How many there are in all, in all workers; `counts` is None where there is one. `memory` is where they say it, each at
    one of the `places`; `here` stands at `own`."""

    def __init__(self, counts: "Counts | None" = None) -> None:
        self.here = self.own = 0
        self.memory: mmap.mmap | None = None
        self.places: list[int] = []
        if counts is not None:
            self.memory, self.places, self.own = counts.totals()
            TOTAL.pack_into(self.memory, self.own, 0)

    def enter(self, most: int) -> bool:
        """One more, unless there are `most` already. Said first and looked at then, as in `SharedCounter`."""
        total = self.here = self.here + 1
        memory = self.memory
        if memory is not None:
            TOTAL.pack_into(memory, self.own, total)
            total = 0
            for place in self.places:
                total += TOTAL.unpack_from(memory, place)[0]
        if total <= most:
            return True
        self.leave()
        return False

    def leave(self) -> None:
        self.here -= 1
        if self.memory is not None:
            TOTAL.pack_into(self.memory, self.own, self.here)


def allocate(parts: int) -> int:
    """The number of a file in memory for so many workers."""
    number = os.memfd_create("murder-counts")
    size = TABLES * parts * PART_OCTETS
    os.ftruncate(number, size + mmap.PAGESIZE)
    os.pwrite(number, secrets.token_bytes(KEY_OCTETS), size)
    return number


class Counts:
    """All boards of a role, as its worker `own` of `parts` has them."""

    def __init__(self, memory: mmap.mmap, parts: int, own: int) -> None:
        self._memory, self.parts, self._own = memory, parts, own

    @classmethod
    def of(cls, number: int, own: int) -> Self:
        """From what `allocate` gave."""
        size = os.fstat(number).st_size
        return cls(mmap.mmap(number, size), size // (TABLES * PART_OCTETS), own)

    @classmethod
    def alone(cls) -> Self:
        """For a role that is in one process."""
        size = TABLES * PART_OCTETS
        memory = mmap.mmap(-1, size + mmap.PAGESIZE)
        memory[size : size + KEY_OCTETS] = secrets.token_bytes(KEY_OCTETS)
        return cls(memory, 1, 0)

    @property
    def key(self) -> bytes:
        """The same in all workers, and known to nobody else."""
        at = TABLES * self.parts * PART_OCTETS
        return self._memory[at : at + KEY_OCTETS]

    def totals(self) -> tuple[mmap.mmap, list[int], int]:
        """Where each worker says how many it has; on the board of `addresses`, which is made first."""
        places = [part * PART_OCTETS + TOTAL_AT for part in range(self.parts)]
        return self._memory, places, places[self._own]

    @property
    def workers(self) -> int:
        """How many there are; the parts are one more (`workers.serve`)."""
        return max(1, self.parts - 1)

    def addresses(self) -> SharedTable:
        return self._table(0, lambda row: not row.count)

    def users(self) -> SharedTable:
        return self._table(1, lambda row: not row.count)

    def failures(self, is_dead: Callable[[Row], bool]) -> SharedTable:
        """Wrong passwords of a user from an address."""
        return self._table(2, is_dead)

    def guesses(self, is_dead: Callable[[Row], bool]) -> SharedTable:
        """Wrong passwords from an address."""
        return self._table(3, is_dead)

    def passwords(self, is_dead: Callable[[Row], bool]) -> SharedTable:
        """Which one of a user was right, and when that was asked; `count` is not the password, but tells it from others."""
        return self._table(4, is_dead)

    def _table(self, number: int, is_dead: Callable[[Row], bool]) -> SharedTable:
        at = number * self.parts * PART_OCTETS
        return SharedTable(self._memory, at, self.parts, self._own, is_dead)
