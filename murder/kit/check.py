"""What `murder ctl store check` finds in one root, and `repair` mends: rows, counters, files.

Safe while the node runs: rows are read in one snapshot, each fault of a file is looked at twice, and what is mended is
mended in the root's own transactions. No octets are ever removed: what no mailbox has goes to `lost/`. A database whose
pages are damaged is rebuilt by `salvage`, for which the node must be stopped.
"""

import heapq
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from murder.durable import sync_folder
from murder.kit.root import make_folder
from murder.kit.rows import load_box, next_uid_validity, remove_messages
from murder.kit.schema import DELETED_BIT, FILE_MODE, SEEN_BIT, connect
from murder.model.name import MailboxName, display

LOST: Final = "lost"
FREE_PAGES: Final = 256  # 1 MiB: less is not worth the writing
MAX_TOLD: Final = 100  # faults of one kind in one root that are told one by one
COUNTERS: Final = ("messages", "unseen", "deleted", "octets")


@dataclass(slots=True)
class Checked:
    """One root while it is checked. `lost` is where octets go that no mailbox has; `in_flight` tells of files that a
    live process is about to commit."""

    folder: Path
    lost: Path
    in_flight: Callable[[str], bool]
    repair: bool
    database: str = "mail.db"

    @property
    def file(self) -> Path:
        """Its database."""
        return self.folder / self.database

    def file_of(self, name: str) -> Path:
        """Of a message that is not in the database."""
        return self.folder / "files" / name[:2] / name


def check_root(checked: Checked) -> list[str]:
    """One sentence for each fault. Raises sqlite3.DatabaseError where pages are damaged."""
    if not checked.file.exists():
        orphans = _lose_orphans(checked, None)
        return [f"{checked.file} is missing", *orphans] if orphans else []
    db = connect(checked.file, for_writing=True)
    try:
        damage = [row[0] for row in db.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
        if damage:
            raise sqlite3.DatabaseError("; ".join(damage))
        db.execute("BEGIN IMMEDIATE" if checked.repair else "BEGIN")
        problems = [*_check_rows(db, checked), *_check_files(db, checked)]
        problems += _check_copies(db, checked)
        problems += check_mailboxes(db, checked)
        db.execute("COMMIT")
        if checked.repair:
            _give_back(db)
        return problems + _lose_orphans(checked, db)
    finally:
        db.close()


def _give_back(db: sqlite3.Connection) -> None:
    """Pages of expunged mail are used again by new mail; where they are many, the file system gets them."""
    (free,), (pages,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count")
    )
    if free > FREE_PAGES and free * 2 > pages:
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


# --- rows


def _check_rows(db: sqlite3.Connection, checked: Checked) -> Iterator[str]:
    """Rows that point at nothing."""
    for box_id, count in db.execute(
        "SELECT mailbox, count(*) FROM message WHERE mailbox NOT IN (SELECT id FROM mailbox) "
        "GROUP BY mailbox"
    ).fetchall():
        name = _recovered_name(checked, box_id)
        problem = f"{checked.file}: {count} messages are in a mailbox that is gone"
        if checked.repair:
            _make_mailbox(db, box_id, name)
            problem += f"; they are in {display(name)} now"
        yield problem
    rows = db.execute(
        "SELECT message.mailbox, uid, size FROM message LEFT JOIN body ON body.id=message.body "
        "WHERE body.id IS NULL"
    ).fetchall()
    yield from _remove(db, checked, rows, "has no octets in the database")
    for table in ("seen", "expunged", "keyword", "gone"):
        where = f"FROM {table} WHERE mailbox NOT IN (SELECT id FROM mailbox)"
        (count,) = db.execute(f"SELECT count(*) {where}").fetchone()
        if count:
            yield f"{checked.file}: {count} rows of `{table}` belong to no mailbox"
            if checked.repair:
                db.execute(f"DELETE {where}")
    wrong = (
        "FROM message JOIN body ON body.id=message.body WHERE file IS NULL AND length(octets)<>size"
    )
    for box_id, uid, size, real in db.execute(
        f"SELECT message.mailbox, uid, size, length(octets) {wrong}"
    ).fetchall():
        yield _message(db, box_id, uid) + f" has {real} octets, its row says {size}"
        _set_size(db, checked, box_id, uid, real)


def _recovered_name(checked: Checked, box_id: int) -> MailboxName:
    """Below the name that the folder tells, where it does."""
    root = unquote_to_bytes(checked.folder.name)
    return MailboxName(
        (b"recovered" if root.startswith(b"~") else root) + b".Recovered-%d" % box_id
    )


def _make_mailbox(db: sqlite3.Connection, box_id: int, name: MailboxName) -> None:
    validity = next_uid_validity(db, int(time.time()))
    db.execute(
        "INSERT INTO mailbox (id, name, mailbox_id, uid_validity) VALUES (?,?,?,?)",
        (box_id, name, secrets.token_hex(10), validity),
    )


def _remove(
    db: sqlite3.Connection, checked: Checked, rows: list[tuple[Any, ...]], why: str
) -> Iterator[str]:
    """Messages whose octets are gone for good."""
    for number, (box_id, uid, size) in enumerate(rows):
        if number == MAX_TOLD:
            yield f"{checked.file}: … and {len(rows) - number} more like this"
        if number < MAX_TOLD:
            yield (
                _message(db, box_id, uid)
                + f" ({size} octets) {why}"
                + ("; it has been expunged" if checked.repair else "")
            )
        if checked.repair:
            box = load_box(db, box_id)
            remove_messages(db, box, [uid])
            box.save(db)


def _message(db: sqlite3.Connection, box_id: int, uid: int) -> str:
    row = db.execute("SELECT name FROM mailbox WHERE id=?", (box_id,)).fetchone()
    return f"{display(bytes(row[0])) if row else f'mailbox {box_id}'}: message {uid}"


def _set_size(db: sqlite3.Connection, checked: Checked, box_id: int, uid: int, real: int) -> None:
    if checked.repair:
        where = (box_id, uid)
        db.execute("UPDATE message SET size=? WHERE mailbox=? AND uid=?", (real, *where))
        db.execute(
            "UPDATE body SET summary=NULL WHERE id=(SELECT body FROM message WHERE mailbox=? AND uid=?)",
            where,
        )


def _check_copies(db: sqlite3.Connection, checked: Checked) -> Iterator[str]:
    """How many messages share a body; bodies that no message has."""
    rows = db.execute(
        "SELECT id, copies, count(one.body) AS real FROM body LEFT JOIN "
        "(SELECT body FROM message UNION ALL SELECT body FROM gone) AS one ON one.body=body.id "
        "GROUP BY body.id HAVING copies<>real"
    ).fetchall()
    unused = [body for body, _, real in rows if not real]
    if len(rows) > len(unused):
        yield f"{checked.file}: {len(rows) - len(unused)} bodies count their messages wrong"
    if checked.repair:
        db.executemany(
            "UPDATE body SET copies=? WHERE id=?", [(real, body) for body, _, real in rows if real]
        )
    for body in unused:
        problem = f"{checked.file}: body {body} is in no mailbox"
        if checked.repair:
            problem += f"; kept as {_lose_body(db, checked, body)}"
        yield problem


def _lose_body(db: sqlite3.Connection, checked: Checked, body: int) -> Path:
    file, octets = db.execute("SELECT file, octets FROM body WHERE id=?", (body,)).fetchone()
    kept = keep_lost(checked, file or f"body-{body}", octets)
    db.execute("DELETE FROM body WHERE id=?", (body,))
    db.execute("DELETE FROM told WHERE body=?", (body,))
    return kept


def keep_lost(checked: Checked, name: str, octets: bytes | None = None) -> Path:
    """Octets that no mailbox has: as a file in `lost/`, durable. Without `octets` it is the file of that name."""
    make_folder(checked.lost)
    kept = checked.lost / f"{name}.eml"
    if octets is None:
        checked.file_of(name).rename(kept)
    else:
        descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(checked.lost)
    return kept


def check_mailboxes(db: sqlite3.Connection, checked: Checked) -> Iterator[str]:
    """Counters (which quota and STATUS show) against the messages."""
    for row in db.execute(
        "SELECT id, name, uid_next, highest_modseq, messages, unseen, deleted, octets FROM mailbox"
    ).fetchall():
        box_id, name, uid_next, modseq = row[:4]
        counted, real = row[4:], _count(db, box_id)
        (last, newest, removed) = db.execute(
            "SELECT (SELECT max(uid) FROM message WHERE mailbox=:box), "
            "(SELECT max(modseq) FROM message WHERE mailbox=:box), "
            "(SELECT max(modseq) FROM expunged WHERE mailbox=:box)",
            {"box": box_id},
        ).fetchone()
        wrong = [
            f"{counter} {says}, should be {is_}"
            for counter, says, is_ in zip(COUNTERS, counted, real, strict=True)
            if says != is_
        ]
        least_uid = max(uid_next, (last or 0) + 1)
        least_modseq = max(modseq, newest or 0, removed or 0)
        if least_uid != uid_next:
            wrong.append(f"UIDNEXT {uid_next}, should be {least_uid}")
        if least_modseq != modseq:
            wrong.append(f"HIGHESTMODSEQ {modseq}, should be {least_modseq}")
        if not wrong:
            continue
        yield f"{display(bytes(name))}: {'; '.join(wrong)}"
        if checked.repair:
            db.execute(
                "UPDATE mailbox SET messages=?, unseen=?, deleted=?, octets=?, uid_next=?, "
                "highest_modseq=? WHERE id=?",
                (*real, least_uid, least_modseq, box_id),
            )


def _count(db: sqlite3.Connection, box_id: int) -> tuple[int, ...]:
    counts: tuple[int, ...] = db.execute(
        f"SELECT count(*), coalesce(sum(flags & {SEEN_BIT} = 0), 0), "
        f"coalesce(sum(flags & {DELETED_BIT} <> 0), 0), coalesce(sum(size), 0) "
        "FROM message WHERE mailbox=?",
        (box_id,),
    ).fetchone()
    return counts


# --- files


def _check_files(db: sqlite3.Connection, checked: Checked) -> Iterator[str]:
    """Every message in a file has it, with so many octets."""
    missing: list[tuple[Any, ...]] = []
    rows = db.execute(
        "SELECT message.mailbox, uid, size, file FROM message JOIN body ON body.id=message.body "
        "WHERE file IS NOT NULL"
    )
    wrong: list[tuple[int, int, int, int]] = []
    for box_id, uid, size, name in rows:
        try:
            real = checked.file_of(name).stat().st_size
        except FileNotFoundError:
            if checked.repair or not _is_gone_meanwhile(checked, box_id, uid):
                missing.append((box_id, uid, size))
            continue
        if real != size:
            wrong.append((box_id, uid, size, real))
    yield from _remove(db, checked, missing, "has lost its file")
    for box_id, uid, size, real in wrong:
        yield _message(db, box_id, uid) + f": its file has {real} octets, its row says {size}"
        _set_size(db, checked, box_id, uid, real)


def _is_gone_meanwhile(checked: Checked, box_id: int, uid: int) -> bool:
    """Whether it has been expunged since the snapshot (a check does not hold writers back)."""
    fresh = connect(checked.file, for_writing=False)
    try:
        where = "SELECT 1 FROM message WHERE mailbox=? AND uid=?"
        return fresh.execute(where, (box_id, uid)).fetchone() is None
    finally:
        fresh.close()


def files_on_disk(checked: Checked) -> Iterator[str]:
    """Names of all files, ascending."""
    top = checked.folder / "files"
    for spread in sorted(os.listdir(top)) if top.is_dir() else []:
        yield from sorted(os.listdir(top / spread))


def _lose_orphans(checked: Checked, db: sqlite3.Connection | None) -> list[str]:
    """Files that no row names: walked along with the rows in order, so that memory does not grow with their number."""
    problems = []
    named: Iterator[str] = iter(())
    if db is not None:
        rows = db.execute(
            "SELECT file FROM body WHERE file IS NOT NULL UNION SELECT file FROM garbage ORDER BY 1"
        )
        named = (row[0] for row in rows)
    marked = heapq.merge(
        ((name, 0) for name in named), ((name, 1) for name in files_on_disk(checked))
    )
    last_named = ""
    for name, is_file in marked:
        if not is_file:
            last_named = name
        elif name != last_named and _is_orphan(checked, name):
            problem = f"{checked.file_of(name)} is in no mailbox"
            if checked.repair:
                problem += f"; kept as {keep_lost(checked, name)}"
            problems.append(problem)
    return problems


def _is_orphan(checked: Checked, name: str) -> bool:
    """Looked at again: it may be on its way in, or have been committed or removed since."""
    if checked.in_flight(name):
        return False
    if not checked.file.exists():
        return True
    fresh = connect(checked.file, for_writing=False)
    try:
        known = fresh.execute(
            "SELECT 1 FROM body WHERE file=? UNION ALL SELECT 1 FROM garbage WHERE file=?",
            (name, name),
        ).fetchone()
    finally:
        fresh.close()
    return known is None and checked.file_of(name).exists()
