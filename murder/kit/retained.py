"""What is kept for its return (murder.api.RestoresExpunged): told, and brought back as new messages."""

import json
import sqlite3
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from murder.api.store import Retained
from murder.errors import Refusal
from murder.kit.bodies import Bodies
from murder.kit.rows import INSERT_MESSAGE, as_list, load_box, release_bodies, spelled
from murder.kit.schema import DELETED_BIT, MESSAGE_COLUMNS, to_message
from murder.kit.sizes import with_sizes
from murder.model.message import Uid

CHOSEN: Final = "mailbox=? AND kept=1 AND uid IN (SELECT value FROM json_each(?))"


def retained(db: sqlite3.Connection, box_id: int, after: Uid, most: int) -> list[Retained]:
    """Of one mailbox, with UIDs above `after`, in their order."""
    rows = db.execute(
        f"SELECT {MESSAGE_COLUMNS}, at FROM gone "
        "WHERE mailbox=? AND kept=1 AND uid>? ORDER BY uid LIMIT ?",
        (box_id, after, most),
    ).fetchall()
    messages = with_sizes(db, rows, [to_message(row[:-1]) for row in rows])
    return [
        Retained(message, datetime.fromtimestamp(row[-1], UTC))
        for message, row in zip(messages, rows, strict=True)
    ]


def restore(
    db: sqlite3.Connection, box_id: int, uids: Sequence[Uid], bodies: Bodies | None
) -> dict[Uid, Uid]:
    """Part of a change: they are messages again, with new UIDs, and without `\\Deleted`; whoever holds one still that was
    expunged reads it on. What has lost its octets is left out."""
    box = load_box(db, box_id)
    rows = db.execute(
        f"SELECT {MESSAGE_COLUMNS}, seen_by FROM gone WHERE {CHOSEN} ORDER BY uid",
        (box_id, as_list(uids)),
    ).fetchall()
    now, back = int(time.time()), {}
    modseq = box.modseq + 1
    for uid, flags, keywords, date, zone, _, size, _, email_id, body, seen_by in rows:
        bits = flags & ~DELETED_BIT
        words = spelled(db, box_id, keywords.split()) if keywords else ""
        try:
            again = _again(db, body, bits, words, bodies)
        except Refusal:
            continue
        new = box.take_uid()
        values = (box_id, new, bits, words, date, zone, now, size, modseq, email_id, again)
        db.execute(INSERT_MESSAGE, values)
        db.executemany(
            "INSERT OR IGNORE INTO seen VALUES (?,?,?)",
            [(box_id, reader, new) for reader in json.loads(seen_by)],
        )
        box.count(bits, size, 1)
        box.modseq = modseq
        back[Uid(uid)] = Uid(new)
    _end_keeping(db, box_id, list(back))
    box.save(db)
    return back


def _again(db: sqlite3.Connection, body: int, bits: int, words: str, bodies: Bodies | None) -> int:
    if bodies is not None:
        return bodies.bring_back(db, body, bits, words)
    db.execute("UPDATE body SET copies=copies+1 WHERE id=?", (body,))
    return body


def _end_keeping(db: sqlite3.Connection, box_id: int, uids: Sequence[Uid]) -> None:
    chosen = box_id, as_list(uids)
    rows = db.execute(f"SELECT body FROM gone WHERE {CHOSEN} AND holders=0", chosen).fetchall()
    db.execute(f"DELETE FROM gone WHERE {CHOSEN} AND holders=0", chosen)
    db.execute(f"UPDATE gone SET kept=0 WHERE {CHOSEN}", chosen)
    release_bodies(db, [body for (body,) in rows])
