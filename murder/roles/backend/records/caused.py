"""What clients have done by IMAP that a script is to see (imapsieve): put down before the client hears OK, and worked off.

The rows stand in the file of `records.deliveries`, and are written by its thread.
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from murder.model.message import Uid
from murder.model.name import MailboxName
from murder.roles.backend.records import tallies

MAX_ROWS: Final = 100_000  # that wait; what comes then is not seen by scripts
MAX_ROWS_OF_USER: Final = 5000  # so that nobody takes the others' room
CHUNK: Final = 500  # messages of a row
COLUMNS: Final = "user,mailbox,mailbox_id,uids,cause,origin,flags,script"
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS caused (id INTEGER PRIMARY KEY AUTOINCREMENT, next_at REAL NOT NULL, "
    "tries INTEGER NOT NULL, done INTEGER NOT NULL, user TEXT NOT NULL, mailbox BLOB NOT NULL, "
    "mailbox_id TEXT NOT NULL, uids TEXT NOT NULL, "
    "cause TEXT NOT NULL, origin BLOB, flags TEXT NOT NULL, script TEXT NOT NULL) STRICT",
    "CREATE INDEX IF NOT EXISTS caused_due ON caused (next_at)",
    "CREATE INDEX IF NOT EXISTS caused_user ON caused (user)",
)


@dataclass(frozen=True, slots=True)
class Caused:
    """`user` has done it to these messages. `origin`: the mailbox they were copied from. `flags`: those that changed.
    `script`: of the user's own, which an annotation named then; "" for none. `done`: so many of the messages have been seen
    to."""

    user: str
    mailbox: MailboxName
    mailbox_id: str
    uids: Sequence[Uid]
    cause: str
    origin: MailboxName | None = None
    flags: tuple[str, ...] = ()
    script: str = ""
    id: int = 0
    tries: int = 0
    done: int = 0


def put(db: sqlite3.Connection, caused: Sequence[Caused]) -> int:
    """How many of them find room."""
    left = MAX_ROWS - tallies.entries_of(db, "caused")[0]
    own: dict[str, int] = {}
    room: list[Caused] = []
    for waiting in caused:
        user = waiting.user
        if user not in own:
            own[user] = tallies.entries_of(db, "caused", user)[0]
        if len(room) < left and own[user] < MAX_ROWS_OF_USER:
            own[user] += 1
            room.append(waiting)
    db.executemany(
        f"INSERT INTO caused (next_at,tries,done,{COLUMNS}) VALUES (?,0,0,?,?,?,?,?,?,?,?)",
        [
            (
                *(time.time(), waiting.user, bytes(waiting.mailbox), waiting.mailbox_id),
                *(json.dumps([int(uid) for uid in waiting.uids]), waiting.cause, waiting.origin),
                *(json.dumps(waiting.flags), waiting.script),
            )
            for waiting in room
        ],
    )
    return len(room)


def due(db: sqlite3.Connection, most: int) -> list[Caused]:
    """Those whose time has come, of each user the oldest; who has waited longest first."""
    rows = db.execute(
        f"SELECT id,tries,done,{COLUMNS} FROM caused WHERE id IN "
        "(SELECT min(id) FROM caused WHERE next_at<=? GROUP BY user) ORDER BY next_at, id LIMIT ?",
        (time.time(), most),
    )
    return [
        Caused(
            user,
            MailboxName(mailbox),
            mailbox_id,
            json.loads(uids),
            cause,
            MailboxName(origin) if origin is not None else None,
            tuple(json.loads(flags)),
            script,
            id_,
            tries,
            done,
        )
        for id_, tries, done, user, mailbox, mailbox_id, uids, cause, origin, flags, script in rows
    ]


def advance(db: sqlite3.Connection, id_: int, done: int) -> None:
    """So many of its messages are done; it waits behind the others."""
    values = (done, time.time(), id_)
    db.execute("UPDATE caused SET done=?, tries=0, next_at=? WHERE id=?", values)


def later(db: sqlite3.Connection, id_: int, wait_s: float) -> None:
    """Once more, then."""
    db.execute("UPDATE caused SET tries=tries+1, next_at=? WHERE id=?", (time.time() + wait_s, id_))


def end(db: sqlite3.Connection, id_: int) -> None:
    """It is all done."""
    db.execute("DELETE FROM caused WHERE id=?", (id_,))
