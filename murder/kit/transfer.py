"""What crosses mailboxes: COPY, MOVE, and renames from one root to another.

Within a root it is one transaction. Across roots the target commits first, together with an *intent* that names what is
to go from the source; then the source lets go; then the intent is cleared. A crash in between leaves the intent, which
the next start finishes: at no moment is a message in neither root, and in the end it is in one. A source that refuses
to let go (it is about to leave for another server) makes the target give its copies back, together with the intent.
"""

import asyncio
import json
import os
import random
import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from murder.api import NewMessage
from murder.api.disk import disk_error
from murder.durable import sync_folder
from murder.errors import Code, Refusal
from murder.kit.expunged import NOT_KEPT, Keeping
from murder.kit.incoming import IncomingArea
from murder.kit.mailbox import RowMailbox
from murder.kit.root import Root, make_folder
from murder.kit.rows import (
    INSERT_MESSAGE,
    NEW_BOX_ID,
    as_list,
    box_of,
    insert_body,
    load_box,
    remove_mailbox,
    remove_messages,
    spelled,
)
from murder.kit.schema import BUSY_MS, MESSAGE_COLUMNS, SEEN_BIT, connect
from murder.kit.sizes import note_size, size_of
from murder.model.message import Uid
from murder.model.name import MailboxName, exists_already, no_such_mailbox
from murder.model.pieces import let_go

INSERT_KEPT: Final = "INSERT INTO gone VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
INTENTS: Final = "intents"  # file in a process's area: roots that may hold unfinished intents
HELD_MS: Final = 200  # that a rename waits for its source while it keeps others from its target


class _HeldError(Refusal):
    """Somebody else writes in the source: perhaps a rename the other way, which waits for this one's target."""


@dataclass(slots=True)
class Linked:
    """Files that a transaction has brought into the target root, each with its witness."""

    area: IncomingArea
    target: Root
    names: list[str] = field(default_factory=list)

    def bring(self, source: Path) -> str:
        name = secrets.token_hex(16)
        witness = self.area.folder / self.target.folder.name / name
        witness.parent.mkdir(mode=0o700, exist_ok=True)
        os.link(source, witness)
        self.names.append(name)
        file = self.target.file_of(name)
        make_folder(file.parent)
        os.link(source, file)
        sync_folder(file.parent)
        return name

    def dropped(self) -> None:
        """The target has not committed: these files are nobody's."""
        for name in self.names:
            self.target.file_of(name).unlink(missing_ok=True)
        self.settled()

    def settled(self) -> None:
        for name in self.names:
            (self.area.folder / self.target.folder.name / name).unlink(missing_ok=True)


@dataclass(slots=True)
class Leaving:
    """A mailbox on its way out of a root, which nobody else changes until the target has decided: what somebody adds to the
    mailbox meanwhile, and is told so, would be removed with it."""

    root: Root
    db: sqlite3.Connection | None = None
    mailbox_id: str = ""
    ending: "asyncio.Future[None] | None" = None

    def begin(self) -> sqlite3.Connection:
        """The root's database, as it is until `decided`. Raises _HeldError, and what `disk_error` makes of it."""
        try:
            self.db = connect(self.root.file, for_writing=True)
            self.db.execute(f"PRAGMA busy_timeout={HELD_MS}")
            self.db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise _HeldError(Code.UNAVAILABLE, str(error)) from error
            raise disk_error(error, self.root.file) from error
        return self.db

    def decided(self, error: BaseException | None) -> None:
        """Let go of the mailbox, where the target has it; of the root in any case. Also where nobody waits any more."""
        if self.db is not None:
            loop = asyncio.get_running_loop()
            try:
                self.ending = loop.run_in_executor(None, self._end, self.db, error is None)
            except RuntimeError:  # no thread is left: here, rather than never
                self.ending = loop.create_future()
                try:
                    self._end(self.db, error is None)
                    self.ending.set_result(None)
                except sqlite3.Error as problem:
                    self.ending.set_exception(problem)

    def _end(self, db: sqlite3.Connection, is_done: bool) -> None:
        with closing(db):
            if is_done:
                _remove_by_id(db, self.mailbox_id)
                db.execute("COMMIT")

    async def end(self) -> None:
        """Raises what `disk_error` makes of it: then the next start lets go of the mailbox, or who tries again."""
        if self.ending is not None:
            try:
                await asyncio.shield(self.ending)
            except sqlite3.Error as error:
                raise disk_error(error, self.root.file) from error


class Transfers:
    """See the module."""

    takes_files = False  # with a whole mailbox goes what somebody has put there meanwhile, too

    def __init__(self, area: IncomingArea) -> None:
        self._area = area
        # of the roots that renames go from or to
        self._renaming: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # --- messages

    async def copy(
        self, source: RowMailbox, uids: Sequence[Uid], target: RowMailbox, remove: bool
    ) -> Mapping[Uid, Uid]:
        """COPY or MOVE; source UID to new UID."""
        if source.root is target.root:
            keeping = source.keeping(moves=True) if remove else NOT_KEPT
            copied = await source.root.write(
                lambda db: self.copy_within(db, source, uids, target, remove, keeping)
            )
        else:
            copied = await self._copy_across(source, uids, target, remove)
        if copied:
            target.tell(target.mailbox_id)
            if remove:
                source.tell(source.mailbox_id)
        return copied

    async def replace(
        self, source: RowMailbox, uids: Sequence[Uid], new: NewMessage, target: RowMailbox
    ) -> tuple[Uid, Sequence[Uid]] | None:
        """See murder.api.store.ReplacesMessages: within a root, and where octets are not in it within a mailbox."""
        is_same = source.box_id == target.box_id
        if source.root is not target.root or (source.bodies is not None and not is_same):
            return None
        keeping, gone = source.keeping(), list[Uid]()

        def let_go(db: sqlite3.Connection) -> None:
            box = load_box(db, source.box_id)
            gone[:] = source.remove(db, box, uids, keeping)
            if not gone:
                raise Refusal(Code.NONEXISTENT, "Another session has removed it meanwhile")
            box.save(db)

        (uid,) = await target.append([new], let_go)
        if not is_same:
            source.tell(source.mailbox_id)
        return uid, gone

    async def _copy_across(
        self, source: RowMailbox, uids: Sequence[Uid], target: RowMailbox, remove: bool
    ) -> dict[Uid, Uid]:
        linked = Linked(self._area, target.root)
        intent = secrets.token_hex(8)

        def work(db: sqlite3.Connection) -> dict[Uid, Uid]:
            copied = self.copy_from(db, source, uids, target, linked)
            if remove and copied:
                what = {
                    "root": source.root.key,
                    "mailbox": source.mailbox_id,
                    "into": target.box_id,
                    "by": self._area.folder.name,
                }
                sources, copies = as_list(copied), as_list(copied.values())
                text = f'{json.dumps(what)[:-1]}, "uids": {sources}, "copies": {copies}}}'
                db.execute("INSERT INTO intent VALUES (?,?)", (intent, text))
            return copied

        if remove:
            self.remember(target.root)
        try:
            copied = await target.root.write(work)
        except Exception:
            linked.dropped()
            raise
        linked.settled()
        if remove and copied:
            await self._let_go(source, target, copied, intent)
        return copied

    async def _let_go(
        self, source: RowMailbox, target: RowMailbox, copied: Mapping[Uid, Uid], intent: str
    ) -> None:
        """Of what the target has. A refusal by the source undoes that; a disk that fails may have done it all the same,
        so that the intent stays for the next start."""
        try:
            await source.expunge(list(copied), moves=True)
        except Refusal as refusal:
            if refusal.code is Code.IN_USE:
                await target.write(lambda db: _give_back(db, target, copied.values(), intent))
                target.tell(target.mailbox_id)
            if refusal.code is not Code.NONEXISTENT:  # else it has let go of everything
                raise
        await target.root.write(lambda db: db.execute("DELETE FROM intent WHERE id=?", (intent,)))

    def copy_within(
        self,
        db: sqlite3.Connection,
        source: RowMailbox,
        uids: Sequence[Uid],
        target: RowMailbox,
        remove: bool,
        keeping: Keeping,
    ) -> dict[Uid, Uid]:
        """In one root; part of a transaction. `keeping`: how what is removed is kept."""
        return _copy_within(db, source, uids, target, remove, keeping)

    def copy_from(
        self,
        db: sqlite3.Connection,
        source: RowMailbox,
        uids: Sequence[Uid],
        target: RowMailbox,
        linked: Linked,
    ) -> dict[Uid, Uid]:
        """From another root; part of the target's transaction."""
        return _copy_from(db, source, uids, target, linked)

    def remember(self, root: Root) -> None:
        """Write down, durably, that this root may hold an intent of this process."""
        path = self._area.folder / INTENTS
        with path.open("a") as file:
            file.write(root.key + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._area.folder)

    # --- whole mailboxes

    async def move_mailbox(
        self, source: Root, old: MailboxName, target: Root, new: MailboxName
    ) -> None:
        """A rename from one root to another: UIDs, UIDVALIDITY, mod-sequences and ids stay."""
        first, second = (
            self._renaming.setdefault(key, asyncio.Lock())
            for key in sorted((source.key, target.key))
        )
        async with first, second:  # one at a time; those of other workers wait at their databases
            await self._move_alone(source, old, target, new)

    async def _move_alone(
        self, source: Root, old: MailboxName, target: Root, new: MailboxName
    ) -> None:
        intent = secrets.token_hex(8)
        self.remember(target)
        until = time.monotonic() + BUSY_MS / 1000
        while True:
            try:
                leaving = await self._carry_over(source, old, target, new, intent)
                break
            except _HeldError as held:
                if time.monotonic() >= until:
                    raise disk_error(held.__cause__ or held, source.file) from held
            await asyncio.sleep(random.uniform(0, HELD_MS / 1000))  # not as long as the other one
        await leaving.end()
        await source.write(lambda _: None)  # its files that are nobody's any more go behind this
        await target.write(lambda db: db.execute("DELETE FROM intent WHERE id=?", (intent,)))

    async def _carry_over(
        self, source: Root, old: MailboxName, target: Root, new: MailboxName, intent: str
    ) -> Leaving:
        """The first half: the target has it, and the source is letting go. Raises _HeldError: then nothing has happened."""
        linked, leaving = Linked(self._area, target), Leaving(source)

        def work(db: sqlite3.Connection) -> None:
            self._move_in(db, leaving, old, new, linked, intent)

        try:
            await target.write(work, leaving.decided)
        except Exception:
            linked.dropped()
            await leaving.end()
            raise
        linked.settled()
        return leaving

    def _move_in(
        self,
        db: sqlite3.Connection,
        leaving: Leaving,
        old: MailboxName,
        new: MailboxName,
        linked: Linked,
        intent: str,
    ) -> None:
        """Everything of the source's mailbox into this root, with the intent to let the source go of it."""
        source, theirs = leaving.root, leaving.begin()
        columns = (
            "mailbox_id, uid_validity, uid_next, highest_modseq, recent_from, messages, unseen, "
            "deleted, octets"
        )
        their_row = theirs.execute(
            f"SELECT id, {columns} FROM mailbox WHERE name=?", (old,)
        ).fetchone()
        if their_row is None:
            raise no_such_mailbox(old)
        there, mailbox_id = their_row[0], str(their_row[1])
        leaving.mailbox_id = mailbox_id
        if db.execute("SELECT 1 FROM mailbox WHERE name=?", (new,)).fetchone():
            raise exists_already(new)
        cursor = db.execute(
            f"INSERT INTO mailbox (id, name, {columns}) VALUES ({NEW_BOX_ID},?,?,?,?,?,?,?,?,?,?)",
            (new, *their_row[1:]),
        )
        here = cursor.lastrowid or 0
        db.execute(
            "INSERT INTO meta VALUES ('uid_validity',?) "
            "ON CONFLICT (key) DO UPDATE SET value=max(value, excluded.value)",
            (their_row[2],),
        )
        bodies: dict[int, int] = {}
        for table, insert, which in (
            ("message", INSERT_MESSAGE, ""),
            ("gone", INSERT_KEPT, "AND kept=1"),
        ):
            for row in theirs.execute(
                f"SELECT * FROM {table} WHERE mailbox=? {which} ORDER BY uid", (there,)
            ):
                body = row[10]
                if body in bodies:
                    db.execute("UPDATE body SET copies=copies+1 WHERE id=?", (bodies[body],))
                else:
                    bodies[body] = self.bring_body(db, theirs, body, source, linked, here)
                db.execute(insert, (here, *row[1:10], bodies[body], *row[11:]))
        for table, marks in (("expunged", "?,?,?"), ("seen", "?,?,?"), ("keyword", "?,?,?")):
            rows = theirs.execute(f"SELECT * FROM {table} WHERE mailbox=?", (there,))
            db.executemany(
                f"INSERT INTO {table} VALUES ({marks})", ((here, *row[1:]) for row in rows)
            )
        what = {"root": source.key, "mailbox": mailbox_id, "by": self._area.folder.name}
        if not self.takes_files:
            what["modseq"] = their_row[4]
        db.execute("INSERT INTO intent VALUES (?,?)", (intent, json.dumps(what)))

    def bring_body(
        self,
        db: sqlite3.Connection,
        theirs: sqlite3.Connection,
        body: int,
        source: Root,
        linked: Linked,
        here: int,
    ) -> int:
        """Octets of another root's mailbox, now in mailbox `here`; the new body."""
        return _bring_body(db, theirs, body, source, linked)


def intents_of(root: Root, area: str) -> list[tuple[str, dict[str, Any]]]:
    """What the process of that area has left unfinished in a root (older formats do not say whose it is)."""
    rows = root.reader.execute("SELECT id, what FROM intent").fetchall()
    intents = [(identifier, json.loads(what)) for identifier, what in rows]
    return [(identifier, what) for identifier, what in intents if what.get("by", area) == area]


def rename_intents_of(root: Root, mailbox_id: str) -> list[tuple[str, dict[str, Any]]]:
    """What is unfinished of its rename to this root, whoever has begun that."""
    rows = root.reader.execute("SELECT id, what FROM intent").fetchall()
    intents = [(identifier, json.loads(what)) for identifier, what in rows]
    return [
        (identifier, what)
        for identifier, what in intents
        if what.get("mailbox") == mailbox_id and "uids" not in what
    ]


async def finish_intent(target: Root, identifier: str, what: dict[str, Any], source: Root) -> None:
    """Let the source go of what the target has. Can be done twice. What has gone from the target since stays in the
    source: where its disk failed, both were there for a while. A mailbox to which somebody has added since, under its old
    name, stays as a whole, and the target lets go of it: it is renamed anew."""
    uids = what.get("uids")
    if uids is None:
        await _finish_rename(target, identifier, what, source)
        return
    if "into" in what:
        rows = message_rows(target.reader, what["into"], what["copies"])
        kept = {row[0] for row in rows}
        uids = [uid for uid, copy in zip(uids, what["copies"], strict=True) if copy in kept]

    def let_go(db: sqlite3.Connection) -> None:
        box_id = box_of(db, what["mailbox"])
        if box_id is not None:
            box = load_box(db, box_id)
            remove_messages(db, box, uids)
            box.save(db)

    await source.write(let_go)
    await target.write(lambda db: db.execute("DELETE FROM intent WHERE id=?", (identifier,)))


async def _finish_rename(target: Root, identifier: str, what: dict[str, Any], source: Root) -> None:
    mailbox_id = what["mailbox"]

    def let_go(db: sqlite3.Connection) -> bool:
        row = db.execute(
            "SELECT highest_modseq FROM mailbox WHERE id=?", (box_of(db, mailbox_id),)
        ).fetchone()
        has_changed = row is not None and row[0] != what.get("modseq", row[0])
        if not has_changed:
            _remove_by_id(db, mailbox_id)
        return has_changed

    has_it = box_of(target.reader, mailbox_id) is not None  # else it has gone back since
    has_changed = has_it and await source.write(let_go)

    def forget(db: sqlite3.Connection) -> None:
        if has_changed:
            _remove_by_id(db, mailbox_id)
        db.execute("DELETE FROM intent WHERE id=?", (identifier,))

    await target.write(forget)


def _give_back(
    db: sqlite3.Connection, target: RowMailbox, copies: Iterable[Uid], intent: str
) -> None:
    """As if they had never come, but for their UIDs."""
    box = load_box(db, target.box_id, even_frozen=True)
    remove_messages(db, box, copies)
    box.save(db)
    db.execute("DELETE FROM intent WHERE id=?", (intent,))


def _remove_by_id(db: sqlite3.Connection, mailbox_id: str) -> None:
    box_id = box_of(db, mailbox_id)
    if box_id is not None:
        remove_mailbox(db, box_id)


def message_rows(db: sqlite3.Connection, box_id: int, uids: Sequence[Uid]) -> list[tuple[Any, ...]]:
    """MESSAGE_COLUMNS of those that are there, by UID."""
    return db.execute(
        f"SELECT {MESSAGE_COLUMNS} FROM message WHERE mailbox=? "
        "AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid",
        (box_id, as_list(uids)),
    ).fetchall()


def shown_bits(
    db: sqlite3.Connection, source: RowMailbox, rows: list[tuple[Any, ...]]
) -> dict[int, int]:
    """The flag bits of each message as the source's reader sees them."""
    if source.is_own:
        return {row[0]: row[1] for row in rows}
    cursor = db.execute(
        "SELECT uid FROM seen WHERE mailbox=? AND reader=?", (source.box_id, source.reader)
    )
    seen = {uid for (uid,) in cursor}
    return {row[0]: (row[1] & ~SEEN_BIT) | (SEEN_BIT if row[0] in seen else 0) for row in rows}


def _copy_within(
    db: sqlite3.Connection,
    source: RowMailbox,
    uids: Sequence[Uid],
    target: RowMailbox,
    remove: bool,
    keeping: Keeping,
) -> dict[Uid, Uid]:
    """In one root the octets are shared."""
    rows = message_rows(db, source.box_id, uids)
    if not rows:
        load_box(db, target.box_id)
        return {}
    bits = shown_bits(db, source, rows)
    copied = insert_copies(db, rows, bits, target, [row[9] for row in rows])
    db.executemany("UPDATE body SET copies=copies+1 WHERE id=?", ((row[9],) for row in rows))
    let_go(rows)
    if remove:
        box = load_box(db, source.box_id)
        source.remove(db, box, list(copied), keeping)
        box.save(db)
    return copied


def _copy_from(
    db: sqlite3.Connection,
    source: RowMailbox,
    uids: Sequence[Uid],
    target: RowMailbox,
    linked: Linked,
) -> dict[Uid, Uid]:
    """From another root: large octets are linked, small ones copied one at a time."""
    theirs = connect(source.root.file, for_writing=False)
    try:
        theirs.execute("BEGIN")
        rows = message_rows(theirs, source.box_id, uids)
        bits = shown_bits(theirs, source, rows)
        bodies = [_bring_body(db, theirs, row[9], source.root, linked) for row in rows]
    finally:
        theirs.close()
    copied = insert_copies(db, rows, bits, target, bodies)
    let_go(rows)
    return copied


def _bring_body(
    db: sqlite3.Connection, theirs: sqlite3.Connection, body: int, source: Root, linked: Linked
) -> int:
    file, octets = theirs.execute("SELECT file, octets FROM body WHERE id=?", (body,)).fetchone()
    if file is None:
        new = insert_body(db, octets, None)
    else:
        new = insert_body(db, None, linked.bring(source.file_of(file)))
    note_size(db, new, size_of(theirs, body))
    return new


def insert_copies(
    db: sqlite3.Connection,
    rows: list[tuple[Any, ...]],
    bits_by_uid: dict[int, int],
    target: RowMailbox,
    bodies: list[int],
) -> dict[Uid, Uid]:
    box = load_box(db, target.box_id)
    if not rows:
        return {}
    box.modseq += 1
    now, copied = int(time.time()), {}
    for row, body in zip(rows, bodies, strict=True):
        uid, _, keywords, date, zone, _, size, _, email_id, _ = row
        bits = target.own_bits(db, bits_by_uid[uid], box.uid_next)
        new = box.take_uid()
        words = spelled(db, box.id, keywords.split()) if keywords else ""
        values = (box.id, new, bits, words, date, zone, now, size, box.modseq, email_id, body)
        db.execute(INSERT_MESSAGE, values)
        box.count(bits, size, 1)
        copied[Uid(uid)] = Uid(new)
    box.save(db)
    return copied
