"""What a transaction does to the rows of a root: add, remove, count. Plain functions of a write connection.

The counters of a mailbox change with its messages in the same transaction, so STATUS never counts.
"""

import json
import sqlite3
import time
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from murder.errors import Code, Refusal
from murder.kit.schema import DELETED_BIT, SEEN_BIT
from murder.model.message import MAX_UID, Uid, UidValidity
from murder.model.name import MailboxName, exists_already
from murder.model.pieces import let_go, pieces

WAS: Final = "was:"  # with a mailbox's former id: its row number
# in `meta`, with the mailbox's id: it is about to leave for another server
FROZEN: Final = "frozen/"
_IS_FROZEN: Final = f"EXISTS (SELECT 1 FROM meta WHERE key='{FROZEN}' || mailbox_id)"
MOST_KEYWORDS: Final = 1000  # in one mailbox: FLAGS names them all, some 20 kB; Cyrus has 128
INSERT_MESSAGE: Final = "INSERT INTO message VALUES (?,?,?,?,?,?,?,?,?,?,?)"


@dataclass(slots=True)
class Box:
    """A mailbox's numbers, as they are at the beginning of a transaction and are written back at its end."""

    id: int
    uid_next: int
    modseq: int
    messages: int
    unseen: int
    deleted: int
    octets: int

    def save(self, db: sqlite3.Connection) -> None:
        """Counters and numbers into the mailbox's row, in the caller's transaction."""
        db.execute(
            "UPDATE mailbox SET uid_next=?, highest_modseq=?, messages=?, unseen=?, deleted=?, octets=? "
            "WHERE id=?",
            (
                *(self.uid_next, self.modseq, self.messages),
                *(self.unseen, self.deleted, self.octets, self.id),
            ),
        )

    def take_uid(self) -> int:
        """The next UID, never given again. Raises Refusal where there is none left."""
        if self.uid_next >= MAX_UID:
            raise Refusal(
                Code.LIMIT, "This mailbox has used up its UIDs: copy its mail to a new one"
            )
        self.uid_next += 1
        return self.uid_next - 1

    def count(self, bits: int, size: int, sign: int) -> None:
        """One message more (`sign` 1) or fewer (-1)."""
        self.messages += sign
        self.octets += sign * size
        self.count_flags(bits, sign)

    def count_flags(self, bits: int, sign: int) -> None:
        """Likewise, of a message that stays: what its flags add to or take off."""
        if not bits & SEEN_BIT:
            self.unseen += sign
        if bits & DELETED_BIT:
            self.deleted += sign


def load_box(db: sqlite3.Connection, box_id: int, *, even_frozen: bool = False) -> Box:
    """Raises Refusal(NONEXISTENT) where it has been deleted meanwhile, IN_USE where it is frozen for a move."""
    row = db.execute(
        "SELECT id, uid_next, highest_modseq, messages, unseen, deleted, octets, "
        f"{_IS_FROZEN} FROM mailbox WHERE id=?",
        (box_id,),
    ).fetchone()
    if row is None:
        raise Refusal(Code.NONEXISTENT, "This mailbox has been deleted")
    if row[7] and not even_frozen:
        raise Refusal(
            Code.IN_USE, "This mailbox is moving to another server: try again in a moment"
        )
    return Box(*row[:7])


def claim_recent(db: sqlite3.Connection, box_id: int) -> Sequence[Uid]:
    """What no session has been told is `\\Recent`. None where it is frozen: whoever follows it to its next server claims
    there, which does not hear any more of what is claimed here."""
    row = db.execute(
        f"SELECT recent_from FROM mailbox WHERE id=? AND NOT {_IS_FROZEN}", (box_id,)
    ).fetchone()
    if row is None:
        return []
    db.execute("UPDATE mailbox SET recent_from=uid_next WHERE id=?", (box_id,))
    rows = db.execute("SELECT uid FROM message WHERE mailbox=? AND uid>=?", (box_id, *row))
    return array("I", (uid for (uid,) in rows))  # type: ignore[return-value] # an array of them


def spelled(
    db: sqlite3.Connection, box_id: int, keywords: Iterable[str], *, most: int | None = None
) -> str:
    """Keywords as they were first written in this mailbox. Raises Refusal(LIMIT) where one would be more than `most`."""
    words = []
    for keyword in keywords:
        key = (box_id, keyword.lower())
        added = db.execute("INSERT OR IGNORE INTO keyword VALUES (?,?,?)", (*key, keyword))
        if added.rowcount and most is not None and _count_keywords(db, box_id, most) > most:
            _forget_keywords(db, box_id, key[1])
            if _count_keywords(db, box_id, most) > most:
                raise Refusal(Code.LIMIT, f"This mailbox has {most} keywords: remove some first")
        cursor = db.execute("SELECT spelled FROM keyword WHERE mailbox=? AND folded=?", key)
        words.append(cursor.fetchone()[0])
    return " ".join(sorted(set(words)))


def known_keywords(db: sqlite3.Connection, box_id: int, keywords: Iterable[str]) -> list[str]:
    """Those of the keywords that this mailbox has, as they are spelled there."""
    spellings = (
        db.execute(
            "SELECT spelled FROM keyword WHERE mailbox=? AND folded=?", (box_id, keyword.lower())
        ).fetchone()
        for keyword in keywords
    )
    return [row[0] for row in spellings if row is not None]


def _count_keywords(db: sqlite3.Connection, box_id: int, most: int) -> int:
    """Up to one more than `most`."""
    among = "SELECT 1 FROM keyword WHERE mailbox=? LIMIT ?"
    (count,) = db.execute(f"SELECT count(*) FROM ({among})", (box_id, most + 1)).fetchone()
    return int(count)


def _forget_keywords(db: sqlite3.Connection, box_id: int, fresh: str) -> None:
    """Those that no message has any more, but for one that is just being given."""
    used = {fresh}
    for (words,) in db.execute(
        "SELECT DISTINCT keywords FROM message WHERE mailbox=? AND keywords<>''", (box_id,)
    ):
        used.update(words.lower().split())
    known = db.execute("SELECT folded FROM keyword WHERE mailbox=?", (box_id,)).fetchall()
    db.executemany(
        "DELETE FROM keyword WHERE mailbox=? AND folded=?",
        [(box_id, folded) for (folded,) in known if folded not in used],
    )


def insert_body(db: sqlite3.Connection, octets: bytes | memoryview | None, file: str | None) -> int:
    """The row number of these octets, in the row or in a file; one message has them."""
    cursor = db.execute("INSERT INTO body (copies, file, octets) VALUES (1,?,?)", (file, octets))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def as_list(numbers: Iterable[int]) -> str:
    """For `IN (SELECT value FROM json_each(?))`."""
    return f"[{', '.join([json.dumps(some)[1:-1] for some in pieces(numbers)])}]"


def remove_messages(
    db: sqlite3.Connection, box: Box, uids: Iterable[Uid], kept: Collection[int] = ()
) -> list[Uid]:
    """Expunge: rows, counters, tombstones, octets that no other message shares and that are not `kept`. The caller saves
    the box."""
    chosen = as_list(uids)
    where = "mailbox=? AND uid IN (SELECT value FROM json_each(?))"
    rows = db.execute(
        f"SELECT uid, flags, size, body FROM message WHERE {where} ORDER BY uid", (box.id, chosen)
    ).fetchall()
    if not rows:
        return []
    box.modseq += 1
    db.execute(f"DELETE FROM message WHERE {where}", (box.id, chosen))
    db.execute(f"DELETE FROM seen WHERE {where}", (box.id, chosen))
    db.executemany(
        "INSERT INTO expunged VALUES (?,?,?)", ((box.id, box.modseq, row[0]) for row in rows)
    )
    for _, bits, size, _ in rows:
        box.count(bits, size, -1)
    release_bodies(db, [row[3] for row in rows if row[0] not in kept])
    removed = [Uid(row[0]) for row in rows]
    let_go(rows)
    return removed


def release_bodies(db: sqlite3.Connection, bodies: Sequence[int]) -> None:
    """One message fewer has each of these; what nobody has is removed, its file behind the commit."""
    db.executemany("UPDATE body SET copies=copies-1 WHERE id=?", ((body,) for body in bodies))
    unused = "copies<=0 AND id IN (SELECT value FROM json_each(?))"
    chosen = as_list(bodies)
    db.execute(
        f"INSERT OR IGNORE INTO garbage SELECT file FROM body WHERE file IS NOT NULL AND {unused}",
        (chosen,),
    )
    db.execute(f"DELETE FROM body WHERE {unused}", (chosen,))
    db.execute(
        "DELETE FROM told WHERE body IN (SELECT value FROM json_each(?)) "
        "AND body NOT IN (SELECT id FROM body)",
        (chosen,),
    )


# The id of a new mailbox: never one that another has had, or whoever has that one open would be in the new one.
NEW_BOX_ID: Final = (
    "(SELECT 1 + max(coalesce(max(id), 0), "
    "coalesce((SELECT value FROM meta WHERE key='last_mailbox'), 0)) FROM mailbox)"
)


def box_of(db: sqlite3.Connection, mailbox_id: str) -> int | None:
    """The row number of the mailbox that has this id, or had it before its root was found to be an older copy."""
    row = db.execute(
        "SELECT id FROM mailbox WHERE mailbox_id=? OR id=(SELECT value FROM meta WHERE key=? || ?)",
        (mailbox_id, WAS, mailbox_id),
    ).fetchone()
    return row[0] if row else None


def remove_mailbox(db: sqlite3.Connection, box_id: int) -> None:
    """A mailbox with everything in it."""
    bodies = [
        body
        for table in ("message", "gone")
        for (body,) in db.execute(f"SELECT body FROM {table} WHERE mailbox=?", (box_id,))
    ]
    for table in ("message", "gone", "expunged", "seen", "keyword", "known_uids"):
        db.execute(f"DELETE FROM {table} WHERE mailbox=?", (box_id,))
    db.execute(
        "DELETE FROM meta WHERE key=(SELECT ? || mailbox_id FROM mailbox WHERE id=?)",
        (FROZEN, box_id),
    )
    release_bodies(db, bodies)
    db.execute("DELETE FROM mailbox WHERE id=?", (box_id,))
    db.execute(
        "INSERT INTO meta VALUES ('last_mailbox',?) "
        "ON CONFLICT (key) DO UPDATE SET value=max(value, excluded.value)",
        (box_id,),
    )


def new_box(db: sqlite3.Connection, name: MailboxName, mailbox_id: str) -> UidValidity:
    """An empty mailbox with this id; the UIDVALIDITY that it got. Raises Refusal(ALREADY_EXISTS)."""
    if db.execute("SELECT 1 FROM mailbox WHERE name=?", (name,)).fetchone():
        raise exists_already(name)
    validity = next_uid_validity(db, int(time.time()))
    db.execute(
        f"INSERT INTO mailbox (id, name, mailbox_id, uid_validity) VALUES ({NEW_BOX_ID},?,?,?)",
        (name, mailbox_id, validity),
    )
    return UidValidity(validity)


def next_uid_validity(db: sqlite3.Connection, now: int) -> int:
    """Never given twice in this root: the time, or one more than the last."""
    row = db.execute("SELECT value FROM meta WHERE key='uid_validity'").fetchone()
    value = max(now, (row[0] if row else 0) + 1)
    db.execute("INSERT OR REPLACE INTO meta VALUES ('uid_validity',?)", (value,))
    return value
