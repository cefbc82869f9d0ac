"""The journal in front of a list: changes that are durable in it, and go into LMDB together, later. A file of fixed size.

It has two halves. Records go into one until its changes are put into LMDB as one commit; meanwhile into the other, which
stands behind it. All records of a half are one `Chapter`: named at random, and behind the chapter that LMDB had last, at the
LMDB commit that it had then. So nothing is ever applied twice, or to another list: whoever opens one takes the
chapters that stand directly behind what is in it, in order, and no other.

A record: `MAGIC`, digest (16) of all behind it, chapter (8), chapter before (8), LMDB's number (8), place in the chapter
(4), length (4), changes. Each begins a block of its own, so that a torn write harms nothing that was durable; what follows a
record that is not whole was never acknowledged. Knows no rows: octets by table and key.
"""

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, cast

from murder.errors import Code, Refusal

NAME: Final = "journal"
BLOCK: Final = 4096
LEAST_BYTES: Final = 64 * BLOCK
FORMAT: Final = 1
_KIND: Final = b"mlj"
MAGIC: Final = _KIND + b"%d" % FORMAT
DIGEST: Final = 16
_HEAD: Final = struct.Struct(">8s8sQII")
_HEAD_AT: Final = len(MAGIC) + DIGEST
_BODY_AT: Final = _HEAD_AT + _HEAD.size
_TABLE: Final = struct.Struct(">BI")  # its number, and how many keys
_REMOVED: Final = 0xFFFFFFFF  # in place of a value's length
NOTHING_BEFORE: Final = bytes(8)
_ZEROS: Final = bytes(1 << 20)

Changes = Sequence[tuple[int, dict[bytes, bytes | None]]]
"""By number of the table: key → value, None where it is removed."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """What one commit of LMDB takes over. `name`, `before`: 8 octets; `stands_on`: LMDB's number then."""

    name: bytes
    before: bytes
    stands_on: int


class Journal:
    """The file, and the lock on it: who holds it is the only one that writes the list."""

    def __init__(self, folder: Path, *, bound: int = 0, read_only: bool = False) -> None:
        """`bound`: octets that it may have; 0: no records are written here. Raises OSError; FileNotFoundError for reading
        only where there is none."""
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        self._file = os.open(folder / NAME, flags, 0o600)
        self._waiting_room = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.half = max(bound, LEAST_BYTES) // 2 // BLOCK * BLOCK if bound else 0
        self._side = 1
        self._at = 0  # where the next record goes, in its half
        self._place = 0
        self._is_flushed = True
        self.chapter = Chapter(b"", b"", 0)
        if bound and os.fstat(self._file).st_size != 2 * self.half:
            self._pending_size = 2 * self.half
        else:
            self._pending_size = 0
        self._folder = folder

    def close(self) -> None:
        os.close(self._file)
        os.close(self._waiting_room)

    def lock(self, *, shared: bool = False) -> bool:
        """Whether it is ours now."""
        return _lock(self._file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def lock_when_free(self) -> None:
        """Wait for it; who has it sees that (`is_wanted`)."""
        if self.lock():
            return
        fcntl.flock(self._waiting_room, fcntl.LOCK_SH)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._waiting_room, fcntl.LOCK_UN)

    def is_wanted(self) -> bool:
        """Whether another process waits for it."""
        if not _lock(self._waiting_room, fcntl.LOCK_EX):
            return True
        fcntl.flock(self._waiting_room, fcntl.LOCK_UN)
        return False

    def unlock(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    # Writing

    def make_room(self) -> None:
        """Have all of the file on the disk, so that a record moves no other block: while nothing in it counts."""
        if not self._pending_size:
            return
        os.ftruncate(self._file, 0)
        for at in range(0, self._pending_size, len(_ZEROS)):
            os.pwrite(self._file, _ZEROS[: self._pending_size - at], at)
        os.fsync(self._file)
        os.fsync(self._waiting_room)
        self._pending_size = 0

    def begin(self, chapter: Chapter) -> None:
        """From here on in the other half, whose chapter is in LMDB."""
        self.chapter = chapter
        self._side = 1 - self._side
        self._at = self._place = 0

    def fits(self, octets: int) -> bool:
        """Whether a record with so many octets of changes goes into the half."""
        return octets <= self.room

    @property
    def room(self) -> int:
        """Octets of changes for which there is room in it."""
        return self.half - self._at - _BODY_AT

    @property
    def used(self) -> int:
        """Octets of the half."""
        return self._at

    def append(self, body: bytes, *, flush: bool = True) -> None:
        """Durable when it returns, or (without `flush`) with the next one that is flushed. Where it raises (OSError) the
        record may be there: begin nothing behind it."""
        chapter = self.chapter
        head = _HEAD.pack(chapter.name, chapter.before, chapter.stands_on, self._place, len(body))
        digest = blake2b(head, digest_size=DIGEST)
        digest.update(body)
        octets = b"".join((MAGIC, digest.digest(), head, body))
        at = self._side * self.half + self._at
        written = os.pwrite(self._file, octets, at)
        while written < len(octets):
            written += os.pwrite(self._file, octets[written:], at + written)
        self._is_flushed = False
        if flush:
            self.flush()
        self._at += -(-len(octets) // BLOCK) * BLOCK
        self._place += 1

    def flush(self) -> None:
        """All that was appended is durable. Raises OSError."""
        if not self._is_flushed:
            os.fdatasync(self._file)
            self._is_flushed = True

    def void(self) -> None:
        """Nothing in it counts any more, whatever becomes of the list. Raises OSError."""
        size = os.fstat(self._file).st_size
        if not size:
            return
        for at in (0, size // 2 // BLOCK * BLOCK):
            os.pwrite(self._file, bytes(BLOCK), at)
        os.fdatasync(self._file)

    # Reading

    @property
    def is_empty(self) -> bool:
        """Whether nobody has ever written a record."""
        return not os.fstat(self._file).st_size

    def left(self, before: bytes, stands_on: int) -> Iterator[tuple[Chapter, Iterator[Changes]]]:
        """The chapters behind what LMDB has (`before`, at its commit `stands_on`), in order, with their records."""
        half = os.fstat(self._file).st_size // 2 // BLOCK * BLOCK
        if not half:
            return
        chapters: dict[tuple[bytes, int], tuple[Chapter, int]] = {}
        for side in range(2):
            record = self._record(side * half, (side + 1) * half)
            if record is not None and record[1] == 0:
                chapters[record[0].before, record[0].stands_on] = (record[0], side)
        while (chapter_of_side := chapters.pop((before, stands_on), None)) is not None:
            chapter, side = chapter_of_side
            yield chapter, self._records(chapter, side * half, (side + 1) * half)
            before, stands_on = chapter.name, stands_on + 1

    def _records(self, chapter: Chapter, at: int, end: int) -> Iterator[Changes]:
        place = 0
        while (record := self._record(at, end)) is not None:
            if record[0] != chapter or record[1] != place:
                return
            yield parse_changes(record[2])
            place += 1
            at += -(-(_BODY_AT + len(record[2])) // BLOCK) * BLOCK

    def _record(self, at: int, end: int) -> tuple[Chapter, int, bytes] | None:
        """The record there, if one is there and whole: its chapter, place and changes."""
        if at >= end:
            return None
        block = os.pread(self._file, BLOCK, at)
        if len(block) < _BODY_AT or not block.startswith(_KIND):
            return None
        if not block.startswith(MAGIC):
            raise Refusal(
                Code.UNAVAILABLE,
                f"{self._folder / NAME} has format {block[len(_KIND) : len(MAGIC)].decode('ascii', 'replace')}, this "
                f"version reads {FORMAT}: use the newer version of murder that wrote it",
            )
        name, before, stands_on, place, length = _HEAD.unpack_from(block, _HEAD_AT)
        if at + _BODY_AT + length > end:
            return None
        octets = block[_HEAD_AT : _BODY_AT + length]
        if len(octets) < _HEAD.size + length:
            octets = os.pread(self._file, _HEAD.size + length, at + _HEAD_AT)
        if blake2b(octets, digest_size=DIGEST).digest() != block[len(MAGIC) : _HEAD_AT]:
            return None
        return Chapter(name, before, stands_on), place, octets[_HEAD.size :]


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def format_changes(changes: Iterable[tuple[int, dict[bytes, bytes | None]]]) -> bytes:
    """A record's changes: by table its number, how many keys, their lengths, those of the values, keys, values. Tables
    without changes are left out."""
    pieces: list[bytes] = []
    for number, changed in changes:
        if not changed:
            continue
        count = len(changed)
        lengths: Iterable[int]
        if None in changed.values():
            values = [b"" if value is None else value for value in changed.values()]
            lengths = [_REMOVED if value is None else len(value) for value in changed.values()]
        else:
            values = cast(list[bytes], list(changed.values()))
            lengths = map(len, values)
        pieces += (
            _TABLE.pack(number, count),
            struct.pack(f">{count}H", *map(len, changed)),
            struct.pack(f">{count}I", *lengths),
            b"".join(changed),
            b"".join(values),
        )
    return b"".join(pieces)


def parse_changes(octets: bytes) -> Changes:
    """The reverse."""
    changes = []
    at = 0
    while at < len(octets):
        number, count = _TABLE.unpack_from(octets, at)
        at += _TABLE.size
        key_lengths = struct.unpack_from(f">{count}H", octets, at)
        at += 2 * count
        value_lengths = struct.unpack_from(f">{count}I", octets, at)
        at += 4 * count
        keys = []
        for length in key_lengths:
            keys.append(octets[at : at + length])
            at += length
        changed: dict[bytes, bytes | None] = {}
        for key, length in zip(keys, value_lengths, strict=True):
            if length == _REMOVED:
                changed[key] = None
                continue
            changed[key] = octets[at : at + length]
            at += length
        changes.append((number, changed))
    return changes
