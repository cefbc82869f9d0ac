"""What scripts have seen, and to whom they have replied, for so long: each kind of each user's has so many entries at most,
and the oldest go first (RFC 5230 §4.2, RFC 7352 §6). A flood of the one leaves the others alone.

The rows stand in the file of `records.deliveries`, and are written by its thread. `books` says whose they are: a table of
its own, for an older version writes to `seen`, too; what that writes goes by its age alone.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from murder.roles.backend.records import tallies

MAX_ENTRIES: Final = 10_000  # of one kind and user: a reply to as many senders; RFC 5230 wants 1000
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS seen (key BLOB PRIMARY KEY, at REAL NOT NULL, until REAL NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS books (book TEXT NOT NULL, at REAL NOT NULL, key BLOB NOT NULL, until REAL NOT NULL, "
    "PRIMARY KEY (book, at, key)) STRICT, WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A `key` that is seen for so many seconds. `book`: of what kind, and whose."""

    key: bytes
    period_s: float
    book: str


def book_of(kind: str, whose: str) -> str:
    """The book of such entries of that user, or shared mailbox."""
    return f"{kind} {whose}"


def see(db: sqlite3.Connection, entry: Entry, now: float) -> None:
    """Note it, from now on; the oldest of its book goes where that is full."""
    until = now + entry.period_s
    db.execute(
        "DELETE FROM books WHERE book=?1 AND key=?2 AND at=(SELECT at FROM seen WHERE key=?2)",
        (entry.book, entry.key),
    )
    db.execute("INSERT OR REPLACE INTO seen VALUES (?,?,?)", (entry.key, now, until))
    db.execute("INSERT INTO books VALUES (?,?,?,?)", (entry.book, now, entry.key, until))
    too_many = tallies.entries_of(db, "books", entry.book)[0] - MAX_ENTRIES
    if too_many <= 0:
        return
    oldest = db.execute(
        "SELECT at, key FROM books WHERE book=? ORDER BY at, key LIMIT ?", (entry.book, too_many)
    ).fetchall()
    for at, key in oldest:
        db.execute("DELETE FROM books WHERE book=? AND at=? AND key=?", (entry.book, at, key))
        db.execute("DELETE FROM seen WHERE key=? AND at=?", (key, at))


def is_seen(db: sqlite3.Connection, key: bytes, now: float, period_s: float) -> bool:
    """Whether it was noted within the period."""
    row = db.execute("SELECT at FROM seen WHERE key=?", (key,)).fetchone()
    return row is not None and row[0] > now - period_s


def expire(db: sqlite3.Connection, now: float) -> None:
    """What has been seen for long enough is forgotten."""
    db.execute("DELETE FROM seen WHERE until<?", (now,))
    db.execute("DELETE FROM books WHERE until<?", (now,))
