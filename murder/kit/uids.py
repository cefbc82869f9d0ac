"""The UIDs of a mailbox. To read a million takes a second, so those of a large one are known from one session to the next:
in the memory of a process and, for the next process, in the database; what came and went since is read.

What is written down is worth nothing but time: it is not flushed, and where it does not add up all is read again.
"""

import sqlite3
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from murder.kit.root import Root
from murder.model.message import Uid
from murder.model.pieces import let_go, pieces, set_of
from murder.model.seqset import compress

FEW: Final = 500  # rows are read rather than counted again
MAX_COUNTS: Final = 40  # ranges counted; a mailbox with more gaps is read
STALE: Final = 10_000  # so many have come and gone: it is written down again
RANGES, SINGLE = b"R", b"S"


class Known(NamedTuple):
    """What was known when the mailbox stood at `modseq`; it may hold some that came later."""

    modseq: int
    uids: "array[int]"


def known_uids(root: Root, box_id: int, modseq: int) -> "tuple[array[int], Known | None]":
    """All UIDs, for a mailbox that stands at `modseq` or later; and what is to be written down, if anything. In a
    thread."""
    kept = root.kept_uids.get(box_id)
    uids = None if kept is None else _brought_up_to(root.reader, box_id, Known(*kept))
    draft = None
    if uids is None:
        stored = _stored(root.reader, box_id)
        uids = None if stored is None else _brought_up_to(root.reader, box_id, stored)
        if uids is None:
            uids = all_uids(root.reader, box_id)
        if stored is None or abs(len(uids) - len(stored.uids)) > STALE:
            draft = Known(modseq, uids)
    root.keep_uids(box_id, modseq, uids)
    return array("I", uids), draft


def write_down(box_id: int, known: Known, db: sqlite3.Connection) -> None:
    """For other processes, and the next start."""
    db.execute(
        "INSERT OR REPLACE INTO known_uids SELECT id, ?, ? FROM mailbox WHERE id=?",
        (known.modseq, pack(known.uids), box_id),
    )


def _stored(reader: sqlite3.Connection, box_id: int) -> Known | None:
    row = reader.execute(
        "SELECT modseq, uids FROM known_uids WHERE mailbox=?", (box_id,)
    ).fetchone()
    try:
        return None if row is None else Known(row[0], unpack(row[1]))
    except (zlib.error, ValueError, OverflowError):
        return None


def pack(uids: "array[int]") -> bytes:
    """Ranges (first, how many), or each by itself where that is shorter."""
    ranges = compress(uids)
    if 2 * len(ranges) < len(uids):
        numbers = array("I", (number for low, high in ranges for number in (low, high - low + 1)))
        return RANGES + zlib.compress(numbers.tobytes(), 1)
    return SINGLE + zlib.compress(uids.tobytes(), 1)


def unpack(octets: bytes) -> "array[int]":
    """The reverse. Raises zlib.error, ValueError or OverflowError for anything else."""
    numbers = array("I")
    numbers.frombytes(zlib.decompress(octets[1:]))
    if octets[:1] == SINGLE:
        return numbers
    uids = array("I")
    for low, count in zip(numbers[0::2], numbers[1::2], strict=True):
        for some in pieces(range(low, low + count)):
            uids.extend(some)
    return uids


def _brought_up_to(reader: sqlite3.Connection, box_id: int, known: Known) -> "array[int] | None":
    """With what came and went since; None where that does not add up."""
    if not known.uids:
        return None
    uids = array("I", known.uids)
    new = reader.execute(
        "SELECT uid FROM message WHERE mailbox=? AND uid>? ORDER BY uid", (box_id, uids[-1])
    )
    rows = new.fetchall()
    uids.extend(uid for (uid,) in rows)
    let_go(rows)
    sql = "SELECT uid FROM expunged WHERE mailbox=? AND modseq>?"
    gone = read_uids(reader, sql, (box_id, known.modseq))
    if len(gone) > FEW:
        doomed = set_of(gone)
        uids = array("I", (uid for uid in uids if uid not in doomed))
    else:
        for uid in gone:
            at = bisect_left(uids, uid)
            if at < len(uids) and uids[at] == uid:
                del uids[at]
    count, last = reader.execute(
        "SELECT messages, (SELECT max(uid) FROM message WHERE mailbox=mailbox.id) FROM mailbox "
        "WHERE id=?",
        (box_id,),
    ).fetchone() or (0, None)
    return uids if len(uids) == count and (not uids or uids[-1] == last) else None


def read_uids(reader: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> Sequence[Uid]:
    """Rows that are a UID each."""
    rows = reader.execute(sql, values).fetchall()
    uids = array("I", (uid for (uid,) in rows))
    let_go(rows)
    return uids


def all_uids(reader: sqlite3.Connection, box_id: int) -> "array[int]":
    """Counted rather than read, range by range, where a range has no gap: a tenth of the time."""
    count = reader.execute
    where = "FROM message WHERE mailbox=? AND uid BETWEEN ? AND ?"
    low, high, total = count(
        "SELECT min(uid), max(uid), count(*) FROM message WHERE mailbox=?", (box_id,)
    ).fetchone()
    uids = array("I")
    waiting = [(low, high, total)] if total else []
    looks = MAX_COUNTS
    while waiting:
        low, high, total = waiting.pop()
        if total == high - low + 1:
            for some in pieces(range(low, high + 1)):
                uids.extend(some)
        elif total <= FEW or not looks:
            rows = count(f"SELECT uid {where} ORDER BY uid", (box_id, low, high))
            uids.extend(uid for (uid,) in rows)
        else:
            looks -= 1
            middle = (low + high) // 2
            (left,) = count(f"SELECT count(*) {where}", (box_id, low, middle)).fetchone()
            waiting.append((middle + 1, high, total - left))
            waiting.append((low, middle, left))
    return uids
