"""Whole mailboxes on their way to and from other servers (murder.api.CarriesMailboxes), as work on a root's database.

A frozen mailbox has a mark in `meta`, which every change looks for in its own transaction (`rows.load_box`).
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, cast

from murder.api.carry import CarriedMessage, CarriedRetained
from murder.api.store import Incoming
from murder.api.turns import behind
from murder.errors import Code, Refusal
from murder.kit.expunged import keep_carried, keep_no_others
from murder.kit.incoming import FileIncoming, link_many
from murder.kit.root import Root
from murder.kit.rows import (
    FROZEN,
    INSERT_MESSAGE,
    NEW_BOX_ID,
    Box,
    as_list,
    insert_body,
    load_box,
    release_bodies,
    spelled,
)
from murder.kit.schema import MESSAGE_COLUMNS, to_bits, to_keywords, to_message, to_seconds
from murder.kit.sizes import note_size
from murder.kit.uids import all_uids
from murder.model.carried import CarriedIdentity, Held, Portrait
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import MailboxName, display, no_such_mailbox
from murder.model.seqset import compress
from murder.model.uidset import UidSet

Find = Callable[[MailboxName], tuple[Root, int, str] | None]
FileOf = Callable[[Incoming | None], str | None]  # None: its octets go into the row

AT_ONCE: Final = 10_000  # tombstones written by one statement


class Carrier:
    """See the module. `find` is the store's: root, row number and id of a mailbox."""

    def __init__(self, find: Find, root_of: Callable[[MailboxName], Root]) -> None:
        self._find_in = find
        self._root_of = root_of

    def _find(self, name: MailboxName) -> tuple[Root, int, str]:
        row = self._find_in(name)
        if row is None:
            raise no_such_mailbox(name)
        return row

    # --- leaving

    async def portrait(self, name: MailboxName, since: ModSeq) -> Portrait:
        """In a thread: what was expunged, or others have seen, may be much."""
        root, box_id, mailbox_id = self._find(name)
        with root.in_use():
            return await behind(self._portrait, root, box_id, mailbox_id, name, since)

    def _portrait(
        self, root: Root, box_id: int, mailbox_id: str, name: MailboxName, since: ModSeq
    ) -> Portrait:
        read = root.reader.execute
        row = read(
            "SELECT uid_validity, uid_next, highest_modseq, recent_from FROM mailbox WHERE id=?",
            (box_id,),
        ).fetchone()
        if row is None:
            raise no_such_mailbox(name)
        gone = read(
            "SELECT modseq, uid FROM expunged WHERE mailbox=? AND modseq>? ORDER BY modseq, uid",
            (box_id, since),
        )
        expunged = [(ModSeq(modseq), Uid(uid)) for modseq, uid in gone.fetchall()]
        seen: dict[str, list[Uid]] = {}
        rows = read("SELECT reader, uid FROM seen WHERE mailbox=? ORDER BY reader, uid", (box_id,))
        for reader, uid in rows.fetchall():
            seen.setdefault(reader, []).append(Uid(uid))
        identity = CarriedIdentity(mailbox_id, UidValidity(row[0]))
        return Portrait(identity, Uid(row[1]), ModSeq(row[2]), expunged, seen, Uid(row[3]))

    def rows(self, name: MailboxName, since: ModSeq, after: Uid, most: int) -> list[Message]:
        root, box_id, _ = self._find(name)
        # the first time all are wanted, in the table's own order; later the few that changed
        index = "" if not since else "INDEXED BY message_modseq"
        cursor = root.reader.execute(
            f"SELECT {MESSAGE_COLUMNS} FROM message {index} "
            "WHERE mailbox=? AND modseq>? AND uid>? ORDER BY uid LIMIT ?",
            (box_id, since, after, most),
        )
        return [to_message(row) for row in cursor.fetchall()]

    async def freeze(self, name: MailboxName, frozen: bool) -> None:
        root, _, mailbox_id = self._find(name)
        sql = "DELETE FROM meta WHERE key=?"
        if frozen:
            sql = "INSERT OR IGNORE INTO meta VALUES (?,1)"
        await root.write(lambda db: db.execute(sql, (FROZEN + mailbox_id,)))

    def is_frozen(self, name: MailboxName) -> bool:
        root, _, mailbox_id = self._find(name)
        mark = root.reader.execute("SELECT 1 FROM meta WHERE key=?", (FROZEN + mailbox_id,))
        return mark.fetchone() is not None

    # --- arriving

    async def hold(self, name: MailboxName, identity: CarriedIdentity) -> Held:
        root = self._root_of(name)
        with root.in_use():
            await root.write(lambda db: self._make(db, root, name, identity))
            box_id, modseq = root.reader.execute(
                "SELECT id, highest_modseq FROM mailbox WHERE name=?", (name,)
            ).fetchone()
            uids = await behind(all_uids, root.reader, box_id)
        return Held(ModSeq(modseq), cast(Sequence[Uid], uids))

    def _make(
        self, db: sqlite3.Connection, root: Root, name: MailboxName, identity: CarriedIdentity
    ) -> bool:
        """Whether it was not there. Raises Refusal(ALREADY_EXISTS)."""
        row = db.execute(
            "SELECT mailbox_id, uid_validity FROM mailbox WHERE name=?", (name,)
        ).fetchone()
        if row == (identity.mailbox_id, identity.uid_validity):
            return False
        if row is not None:
            raise Refusal(Code.ALREADY_EXISTS, f"Another {display(name)} is here already")
        make_box(db, name, identity)
        return True

    async def receive(self, name: MailboxName, messages: Sequence[CarriedMessage]) -> None:
        root, box_id, _ = self._find(name)

        def put(db: sqlite3.Connection, file_of: FileOf) -> set[str | None]:
            box = load_box(db, box_id, even_frozen=True)
            used = {
                file
                for carried in messages
                if put_message(db, box, carried, file := file_of(carried.incoming))
            }
            box.save(db)
            return used

        await _take_in(root, [carried.incoming for carried in messages], put)

    async def receive_retained(
        self, name: MailboxName, after: Uid, up_to: Uid, messages: Sequence[CarriedRetained]
    ) -> None:
        """See murder.api.carry.CarriesRetained."""
        root, box_id, _ = self._find(name)
        uids = [carried.message.uid for carried in messages]

        def put(db: sqlite3.Connection, file_of: FileOf) -> set[str | None]:
            keep_no_others(db, box_id, after, up_to, uids)
            return {
                file
                for carried in messages
                if keep_carried(db, box_id, carried, file := file_of(carried.incoming))
            }

        await _take_in(root, [carried.incoming for carried in messages], put)

    async def complete(self, name: MailboxName, portrait: Portrait) -> None:
        root, box_id, _ = self._find(name)
        await root.write(lambda db: take_portrait(db, box_id, portrait))


async def _take_in(
    root: Root,
    incomings: Sequence[Incoming | None],
    put: Callable[[sqlite3.Connection, "FileOf"], set[str | None]],
) -> None:
    """One change, with the octets that come for it. `put` is told in which file those are that go to none of its rows, and
    says which it has used."""
    come = [incoming for incoming in incomings if isinstance(incoming, FileIncoming)]
    for incoming in come:
        incoming.pin()
    large = [incoming for incoming in come if not incoming.is_inline]
    linking = behind(link_many, large, root)
    with root.in_use():
        try:
            names = await asyncio.shield(linking)
        except BaseException:
            linking.add_done_callback(lambda ended: _give_up(root, ended, large, come))
            raise
        files = dict(zip(map(id, large), names, strict=True))
        used: set[str | None] = set()

        def work(db: sqlite3.Connection) -> None:
            used.clear()
            used.update(put(db, lambda incoming: files.get(id(incoming))))

        def settle(error: BaseException | None) -> None:
            for incoming, file in zip(large, names, strict=True):
                if error or file not in used:
                    incoming.dropped(root, file)
            _let_go(come)

        await root.write(work, settle)
    await behind(_settle, root, large, names)


def _give_up(
    root: Root,
    linking: "asyncio.Future[list[str]]",
    large: Sequence[FileIncoming],
    come: Sequence[FileIncoming],
) -> None:
    """Nobody waits for the files any more that were being linked."""
    if linking.exception() is None:
        for incoming, file in zip(large, linking.result(), strict=True):
            incoming.dropped(root, file)
    _let_go(come)


def _let_go(come: Sequence[FileIncoming]) -> None:
    for incoming in come:
        incoming.unpin()


def _settle(root: Root, large: Sequence[FileIncoming], names: Sequence[str]) -> None:
    for incoming, file in zip(large, names, strict=True):
        incoming.settled(root, file)


def make_box(db: sqlite3.Connection, name: MailboxName, identity: CarriedIdentity) -> None:
    """An empty mailbox with the identity that it had elsewhere."""
    db.execute(
        f"INSERT INTO mailbox (id, name, mailbox_id, uid_validity, highest_modseq) VALUES ({NEW_BOX_ID},?,?,?,0)",
        (name, identity.mailbox_id, identity.uid_validity),
    )
    db.execute(
        "INSERT INTO meta VALUES ('uid_validity',?) "
        "ON CONFLICT (key) DO UPDATE SET value=max(value, excluded.value)",
        (identity.uid_validity,),
    )


def put_message(
    db: sqlite3.Connection, box: Box, carried: CarriedMessage, file: str | None
) -> bool:
    """Add a message, its octets in a file or not, or bring its row up to date; whether it was added."""
    message = carried.message
    bits = to_bits(message.flags)
    words = spelled(db, box.id, to_keywords(message.flags))
    date, zone = to_seconds(message.internal_date)
    saved = int(message.save_date.timestamp()) if message.save_date else date
    old = db.execute(
        "SELECT flags, size, body FROM message WHERE mailbox=? AND uid=?", (box.id, message.uid)
    ).fetchone()
    if old is not None:
        box.count_flags(old[0], -1)
        box.count_flags(bits, 1)
        db.execute(
            "UPDATE message SET flags=?, keywords=?, internal_date=?, zone=?, save_date=?, modseq=?, "
            "email_id=? WHERE mailbox=? AND uid=?",
            (bits, words, date, zone, saved, message.modseq, message.email_id, box.id, message.uid),
        )
        return False
    incoming = carried.incoming
    if incoming is None:
        raise Refusal(Code.CANNOT, f"The octets of message {message.uid} were not received")
    assert isinstance(incoming, FileIncoming)
    body = insert_body(db, incoming.octets() if file is None else None, file)
    if message.told_size:
        note_size(db, body, message.told_size)
    db.execute(
        INSERT_MESSAGE,
        (
            box.id,
            message.uid,
            bits,
            words,
            date,
            zone,
            saved,
            incoming.size,
            message.modseq,
            message.email_id,
            body,
        ),
    )
    box.count(bits, incoming.size, 1)
    box.uid_next = max(box.uid_next, message.uid + 1)
    return True


def take_portrait(db: sqlite3.Connection, box_id: int, portrait: Portrait) -> None:
    """What was expunged, the numbers, what other readers have seen: of messages that are here."""
    box = load_box(db, box_id, even_frozen=True)
    expunge_told(db, box, portrait.expunged)
    box.uid_next = max(box.uid_next, portrait.uid_next)
    box.modseq = portrait.highest_modseq
    box.save(db)
    recent = (portrait.recent_from, box_id)
    db.execute("UPDATE mailbox SET recent_from=max(recent_from, ?) WHERE id=?", recent)
    db.execute("DELETE FROM seen WHERE mailbox=?", (box_id,))
    db.executemany(
        "INSERT OR IGNORE INTO seen SELECT ?, ?, uid FROM message WHERE mailbox=? AND uid BETWEEN ? AND ?",
        (
            (box_id, reader, box_id, low, high)
            for reader, uids in portrait.seen.items()
            for low, high in (uids.ranges if isinstance(uids, UidSet) else compress(uids))
        ),
    )


def expunge_told(db: sqlite3.Connection, box: Box, expunged: Sequence[tuple[ModSeq, Uid]]) -> None:
    """As at the source, with its own mod-sequences."""
    for start in range(0, len(expunged), AT_ONCE):
        some = expunged[start : start + AT_ONCE]
        chosen = as_list(uid for _, uid in some)
        where = "mailbox=? AND uid IN (SELECT value FROM json_each(?))"
        rows = db.execute(
            f"SELECT flags, size, body FROM message WHERE {where}", (box.id, chosen)
        ).fetchall()
        db.execute(f"DELETE FROM message WHERE {where}", (box.id, chosen))
        for bits, size, _ in rows:
            box.count(bits, size, -1)
        release_bodies(db, [row[2] for row in rows])
        db.executemany(
            "INSERT OR IGNORE INTO expunged VALUES (?,?,?)",
            [(box.id, modseq, uid) for modseq, uid in some],
        )
