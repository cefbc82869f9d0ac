"""A root's database whose pages are damaged: everything that can still be read goes into a new one.

The old one stays beside it, renamed. Rows are read up to the damage from both ends and, in between, one by one by their
keys, which an index may still tell. What no row names any more (`check` finds that next) is kept in `lost/`.
"""

import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from murder.durable import sync_folder
from murder.kit.rows import next_uid_validity
from murder.kit.schema import connect

MOST_PROBED: Final = 1_000_000  # keys tried one by one between two readable ends

# table -> its key
TABLES: Final = {
    "meta": ("key",),
    "mailbox": ("id",),
    "message": ("mailbox", "uid"),
    "body": ("id",),
    "gone": ("mailbox", "uid"),
    "told": ("body",),
    "expunged": ("mailbox", "modseq", "uid"),
    "seen": ("mailbox", "reader", "uid"),
    "keyword": ("mailbox", "folded"),
    "subscription": ("name",),
    "garbage": ("file",),
    "intent": ("id",),
}


def salvage(file: Path) -> list[str]:
    """Rebuild the database; a sentence for each table that lost rows, and where the damaged file is kept."""
    draft = file.with_name("mail.db.salvaged")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{draft}{suffix}").unlink(missing_ok=True)
    problems = _copy_readable(file, draft)
    kept = file.with_name(f"mail.db.damaged-{int(time.time())}")
    for suffix in ("-wal", "-shm"):
        beside = Path(f"{file}{suffix}")
        if beside.exists():
            beside.rename(f"{kept}{suffix}")
    file.rename(kept)
    draft.rename(file)
    sync_folder(file.parent)
    return [*problems, f"{file} was damaged and has been rebuilt; the old one is kept as {kept}"]


def _copy_readable(file: Path, draft: Path) -> list[str]:
    problems = []
    old = sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)
    new = connect(draft, for_writing=True)
    new.execute("BEGIN")
    try:
        for table, key in TABLES.items():
            count, is_whole = 0, True
            names = _columns(old, table)
            for row in _rows(old, table, key):
                if row is None:
                    is_whole = False
                    continue
                marks = ",".join("?" * len(row))
                count += new.execute(
                    f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", row
                ).rowcount
            if table == "mailbox" and not is_whole:
                count += _names_from_index(old, new)
            if not is_whole:
                problems.append(f"{file}: of `{table}` only {count} rows could be read")
        new.execute("COMMIT")
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        new.close()
        old.close()
    Path(f"{draft}-wal").unlink(missing_ok=True)
    Path(f"{draft}-shm").unlink(missing_ok=True)
    return problems


def _columns(old: sqlite3.Connection, table: str) -> str:
    """Of an older format there may be fewer."""
    try:
        return ", ".join(row[1] for row in old.execute(f"PRAGMA table_info({table})"))
    except sqlite3.Error:
        return ""


def _rows(
    old: sqlite3.Connection, table: str, key: tuple[str, ...]
) -> Iterator[tuple[Any, ...] | None]:
    """All rows that can be read; None where some may be lost."""
    try:
        places = [
            at
            for at, row in enumerate(old.execute(f"PRAGMA table_info({table})").fetchall())
            if row[1] in key
        ]
    except sqlite3.Error:
        yield None
        return
    ends: list[tuple[Any, ...] | None] = []
    for direction in ("", " DESC"):
        last: tuple[Any, ...] | None = None
        order = ", ".join(f"{column}{direction}" for column in key)
        try:
            for row in old.execute(f"SELECT * FROM {table} ORDER BY {order}"):
                last = tuple(row[at] for at in places)
                yield row
            return
        except sqlite3.Error:
            ends.append(last)
    yield None
    for values in _keys_between(old, table, ends):
        where = " AND ".join(f"{column}=?" for column in key)
        try:
            row = old.execute(f"SELECT * FROM {table} WHERE {where}", values).fetchone()
        except sqlite3.Error:
            continue
        if row is not None:
            yield row


def _keys_between(
    old: sqlite3.Connection, table: str, ends: list[tuple[Any, ...] | None]
) -> Iterator[tuple[Any, ...]]:
    """Keys that the damage may hide."""
    if table == "message":
        try:
            yield from old.execute("SELECT mailbox, uid FROM message INDEXED BY message_modseq")
        except sqlite3.Error:
            pass
    if table not in ("message", "body"):
        return
    low, high = ends
    first = low[-1] + 1 if low else 1
    beyond = high[-1] if high else first + MOST_PROBED
    boxes = {low[0] if low else 1, high[0] if high else 1} if table == "message" else {None}
    for box in boxes:
        for number in range(first, min(beyond, first + MOST_PROBED)):
            yield (number,) if box is None else (box, number)


def _names_from_index(old: sqlite3.Connection, new: sqlite3.Connection) -> int:
    """Mailboxes whose row is lost: their name stands in an index too. They get a new UIDVALIDITY."""
    try:
        named = old.execute(
            "SELECT id, name FROM mailbox INDEXED BY sqlite_autoindex_mailbox_1 ORDER BY name"
        ).fetchall()
    except sqlite3.Error:
        return 0
    count = 0
    for box_id, name in named:
        validity = next_uid_validity(new, int(time.time()))
        count += new.execute(
            "INSERT OR IGNORE INTO mailbox (id, name, mailbox_id, uid_validity) VALUES (?,?,?,?)",
            (box_id, name, secrets.token_hex(10), validity),
        ).rowcount
    return count
