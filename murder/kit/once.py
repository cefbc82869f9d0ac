"""Marks of deliveries that are done, in the same transaction as what they have added: a process that dies before it could
say so leaves them to whoever takes the sender's next try. A table of its own, made where it is first wanted: an older
version leaves it alone.
"""

import sqlite3
import time
from functools import partial
from typing import Final

from murder.api.store import NewMessage, Once
from murder.errors import Code, Refusal
from murder.kit.mailbox import RowMailbox
from murder.kit.root import Root
from murder.model.message import Uid

KEEP_S: Final = 600  # of a process that lives: its sender has heard long before
PRUNE_EVERY_S: Final = 600.0
TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS once (key BLOB PRIMARY KEY, at INTEGER NOT NULL, by TEXT NOT NULL) "
    "STRICT, WITHOUT ROWID"
)


class _IsDoneError(Refusal):
    """By somebody who has died."""


async def append_once(mailbox: RowMailbox, message: NewMessage, once: Once) -> Uid | None:
    """See murder.api.store.AppendsOnce."""
    while True:
        try:
            (uid,) = await mailbox.append([message], partial(_begin, mailbox.root, once))
        except _IsDoneError:
            if await mailbox.root.write(partial(_take, once)):
                return None
            continue  # what the dead one did was told for another message that is the same, a moment ago
        return uid


def _begin(root: Root, once: Once, db: sqlite3.Connection) -> None:
    """Part of the change. Raises _IsDoneError."""
    db.execute(TABLE)
    now = time.monotonic()
    if now >= root.prune_at:
        root.prune_at = now + PRUNE_EVERY_S
        _prune(once, db)
    if _is_of_the_dead(once, db):
        raise _IsDoneError(Code.ALREADY_EXISTS, "It has been delivered")
    _mark(once, db)


def _take(once: Once, db: sqlite3.Connection) -> bool:
    """Whether it is for this message that somebody who has died has left the mark; for no other one from here on."""
    if not _is_of_the_dead(once, db):
        return False
    _mark(once, db)
    return True


def _is_of_the_dead(once: Once, db: sqlite3.Connection) -> bool:
    row = db.execute("SELECT by, at FROM once WHERE key=?", (once.key,)).fetchone()
    return row is not None and row[0] != once.by and once.has_died(*row)


def _mark(once: Once, db: sqlite3.Connection) -> None:
    db.execute("REPLACE INTO once VALUES (?,?,?)", (once.key, int(time.time()), once.by))


def _prune(once: Once, db: sqlite3.Connection) -> None:
    before = int(time.time()) - KEEP_S
    last = "SELECT by, max(at) FROM once WHERE at<? GROUP BY by"
    for by, at in db.execute(last, (before,)).fetchall():
        if by == once.by or not once.has_died(by, at):
            db.execute("DELETE FROM once WHERE at<? AND by=?", (before, by))
