"""RFC822.SIZE of the few messages of which it is not the number of their octets (murder.api.KeepsToldSize), by body."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from murder.kit.rows import as_list
from murder.model.message import Message

BODY: Final = 9  # where it stands in MESSAGE_COLUMNS


def note_size(db: sqlite3.Connection, body: int, size: int) -> None:
    """The size that is told of these octets; 0: their number."""
    if size:
        db.execute("INSERT OR REPLACE INTO told VALUES (?,?)", (body, size))
    else:
        db.execute("DELETE FROM told WHERE body=?", (body,))


def size_of(db: sqlite3.Connection, body: int) -> int:
    """0 where it is the number of the octets."""
    row = db.execute("SELECT size FROM told WHERE body=?", (body,)).fetchone()
    return row[0] if row else 0


def with_sizes(
    db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], messages: list[Message]
) -> list[Message]:
    """Messages that were made of these rows (which begin with MESSAGE_COLUMNS)."""
    if db.execute("SELECT 1 FROM told LIMIT 1").fetchone() is None:
        return messages
    chosen = as_list(row[BODY] for row in rows)
    cursor = db.execute(
        "SELECT body, size FROM told WHERE body IN (SELECT value FROM json_each(?))", (chosen,)
    )
    sizes = dict(cursor.fetchall())
    return [
        replace(message, told_size=sizes[row[BODY]]) if row[BODY] in sizes else message
        for row, message in zip(rows, messages, strict=True)
    ]


def told_octets(db: sqlite3.Connection, box_id: int) -> int:
    """See murder.api.store.KeepsToldSize."""
    (more,) = db.execute(
        "SELECT coalesce(sum(told.size-message.size), 0) FROM told JOIN message ON message.body=told.body "
        "WHERE message.mailbox=? AND told.size>0",
        (box_id,),
    ).fetchone()
    return int(more)
