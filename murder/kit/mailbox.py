"""One open mailbox, as one reader sees it: reads from the read connection, changes through the root's writer."""

import asyncio
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from murder.api import FlagChange, NewMessage, Retained, Stored
from murder.api import Mailbox as AnyMailbox
from murder.api.disk import DamagedMessageError
from murder.api.store import Numbers
from murder.errors import Code, Refusal
from murder.kit.bodies import Bodies, Copying
from murder.kit.expunged import Keeper, Keeping, let_go, may_let_go, remove_kept
from murder.kit.flags import FlagEdit
from murder.kit.incoming import FileIncoming, ours
from murder.kit.mapped import map_message
from murder.kit.numbers import numbers_now, read_numbers
from murder.kit.pages import read_changes
from murder.kit.retained import restore, retained
from murder.kit.root import Root, T, Work
from murder.kit.rows import (
    INSERT_MESSAGE,
    MOST_KEYWORDS,
    Box,
    as_list,
    claim_recent,
    insert_body,
    known_keywords,
    load_box,
    spelled,
)
from murder.kit.schema import (
    DELETED_BIT,
    MESSAGE_COLUMNS,
    SEEN_BIT,
    Read,
    Reader,
    to_bits,
    to_flagged,
    to_keywords,
    to_message,
    to_seconds,
)
from murder.kit.sizes import note_size, told_octets, with_sizes
from murder.kit.uids import all_uids, known_uids, read_uids, write_down
from murder.model.message import Changes, Flagged, MailboxStatus, Message, ModSeq, Uid, UidValidity
from murder.model.name import MailboxName

IN_THREAD: Final = 5_000  # more rows than this are read in a thread: they take longer than 10 ms
# of a message: first where it is there, then where it is kept after it was expunged
OF_BODY: Final = tuple(
    f"SELECT {{}} FROM {table} JOIN body ON body.id={table}.body WHERE mailbox=? AND uid=?"
    for table in ("message", "gone")
)
OCTETS_OF: Final = tuple(select.format("file, octets, size") for select in OF_BODY)
SUMMARY_OF: Final = tuple(select.format("summary") for select in OF_BODY)
BODY_OF: Final = tuple(select.format("body.id") for select in OF_BODY)
MANY: Final = 50_000  # messages whose UIDs are kept for the next session


class RowMailbox:
    """See murder.api.store.Mailbox. Without `bodies` the octets are in rows, and in files of the root."""

    def __init__(
        self,
        root: Root,
        box_id: int,
        name: MailboxName,
        mailbox_id: str,
        reader: str,
        is_own: bool,
        tell: Callable[[str], None],
        transfers: "Copying[RowMailbox]",
        keeper: Keeper,
        bodies: Bodies | None = None,
        opened: AnyMailbox | None = None,
    ) -> None:
        """`opened`: what the reader has, where this is only a part of it."""
        self.keeper = keeper
        self._opened = opened
        self.bodies = bodies
        self.root = root
        self.box_id = box_id
        self._name = name
        self._mailbox_id = mailbox_id
        self.reader = reader
        self.is_own = is_own
        self.tell = tell
        self._transfers = transfers
        self._is_open = True
        root.users += 1

    @property
    def name(self) -> MailboxName:
        return self._name

    @property
    def mailbox_id(self) -> str:
        return self._mailbox_id

    def close(self) -> None:
        self.root.users -= int(self._is_open)
        self._is_open = False

    # --- reading

    def _numbers(self) -> Numbers:
        return read_numbers(self.root, self.box_id)

    def numbers(self) -> Numbers | None:
        """See murder.api.store.TellsAtOnce."""
        return numbers_now(self.root, self.box_id, self._name, self.is_own)

    async def status(self) -> MailboxStatus:
        """Each figure of the same moment: what another process adds between two reads is in none."""
        validity, uid_next, modseq, recent_from, messages, unseen, deleted, octets = self._numbers()
        if not self.is_own:
            (seen,) = self.root.reader.one(
                "SELECT count(*) FROM seen WHERE mailbox=? AND reader=? AND uid<?",
                (self.box_id, self.reader, uid_next),
            )
            unseen = messages - seen
        recent = 0
        if recent_from < uid_next:
            (recent,) = self.root.reader.one(
                "SELECT count(*) FROM message WHERE mailbox=? AND uid>=? AND uid<?",
                (self.box_id, recent_from, uid_next),
            )
        return MailboxStatus(
            messages,
            unseen,
            deleted,
            octets,
            Uid(uid_next),
            UidValidity(validity),
            ModSeq(modseq),
            recent,
        )

    async def _read(self, how: Read[T], size: int, sql: str, values: tuple[Any, ...]) -> T:
        """Rows; in a thread where there may be many."""
        fetch = partial(how, self.root.reader, sql, values)
        return await asyncio.to_thread(fetch) if size > IN_THREAD else fetch()

    async def uids(self) -> Sequence[Uid]:
        numbers = self._numbers()
        if numbers[4] <= MANY:
            read = partial(all_uids, self.root.reader, self.box_id)
            known = await asyncio.to_thread(read) if numbers[4] > IN_THREAD else read()
        else:
            known, draft = await asyncio.to_thread(known_uids, self.root, self.box_id, numbers[2])
            if draft is not None:
                self.root.hint(partial(write_down, self.box_id, draft))
        return known  # type: ignore[return-value] # Uid is int

    async def messages(self, uids: Sequence[Uid] | None = None) -> Sequence[Message]:
        if uids is not None:
            return self._seen_by_reader(await self._chosen(MESSAGE_COLUMNS, "message", uids))
        select = f"SELECT {MESSAGE_COLUMNS} FROM message WHERE mailbox=? ORDER BY uid"
        return self._seen_by_reader(
            await self._read(Reader.all, self._numbers()[4], select, (self.box_id,))
        )

    async def flagged(self, uids: Sequence[Uid]) -> Sequence[Flagged]:
        """See murder.api.store.TellsFlags."""
        rows = await self._chosen("uid, flags, keywords, modseq", "message", uids)
        seen = None if self.is_own else self._seen_uids([row[0] for row in rows])
        if seen is None:
            return to_flagged(rows)
        return to_flagged(
            (uid, _with_seen(bits, uid in seen), words, modseq) for uid, bits, words, modseq in rows
        )

    async def _chosen(
        self, columns: str, tables: str, uids: Sequence[Uid]
    ) -> list[tuple[Any, ...]]:
        """Columns of these messages, in UID order."""
        select = f"SELECT {columns} FROM {tables} WHERE mailbox=? AND uid"
        # a walk, not look-ups
        if uids and max(uids) - min(uids) + 1 == len(uids) == len(set(uids)):
            values: tuple[Any, ...] = (self.box_id, min(uids), max(uids))
            return await self._read(
                Reader.all, len(uids), f"{select} BETWEEN ? AND ? ORDER BY uid", values
            )
        values = (self.box_id, as_list(uids))
        chosen = "IN (SELECT value FROM json_each(?))"
        return await self._read(Reader.all, len(uids), f"{select} {chosen} ORDER BY uid", values)

    def _seen_by_reader(
        self, rows: list[tuple[Any, ...]], db: sqlite3.Connection | None = None
    ) -> list[Message]:
        db = db or self.root.reader
        own_rows = rows
        if not self.is_own:
            seen = self._seen_uids([row[0] for row in rows], db)
            own_rows = [(row[0], _with_seen(row[1], row[0] in seen), *row[2:]) for row in rows]
        return with_sizes(db, rows, [to_message(row) for row in own_rows])

    def _seen_uids(self, uids: list[int], db: sqlite3.Connection | None = None) -> set[int]:
        cursor = (db or self.root.reader).execute(
            "SELECT uid FROM seen WHERE mailbox=? AND reader=? "
            "AND uid IN (SELECT value FROM json_each(?))",
            (self.box_id, self.reader, as_list(uids)),
        )
        return {uid for (uid,) in cursor}

    async def find_by_flag(
        self, flag: str, *, present: bool = True, most: int | None = None
    ) -> Sequence[Uid]:
        """See murder.api.store.FindsByFlag."""
        bit = to_bits([flag])
        if self._has_none(bit, present):
            return ()
        has = "flags & ? <> 0"
        values: tuple[Any, ...] = (self.box_id, bit)
        if bit == SEEN_BIT and not self.is_own:
            has = "uid IN (SELECT uid FROM seen WHERE mailbox=? AND reader=?)"
            values = (self.box_id, self.box_id, self.reader)
        return await self._read(
            read_uids,
            self._numbers()[4],
            f"SELECT uid FROM message WHERE mailbox=? AND {'' if present else 'NOT '}({has}) "
            "ORDER BY uid LIMIT ?",
            (*values, -1 if most is None else most),
        )

    def _has_none(self, bit: int, present: bool) -> bool:
        """Whether the counters tell that there is no such message."""
        numbers = self._numbers()
        messages, unseen, deleted = numbers[4:7]
        if bit == DELETED_BIT:
            return deleted == (0 if present else messages)
        if bit == SEEN_BIT and self.is_own:
            return unseen == (messages if present else 0)
        return False

    async def changes(self, since: ModSeq) -> Changes:
        numbers = self._numbers()
        modseq = numbers[2]
        if modseq <= since:
            return Changes(ModSeq(modseq), (), ())
        see, made = self._seen_by_reader, ModSeq(modseq)
        return await read_changes(self.root.reader, self.box_id, since, made, see)

    def _of_body(self, selects: Sequence[str], uid: Uid) -> Any:
        reader, values = self.root.reader, (self.box_id, uid)
        return reader.one(selects[0], values) or reader.one(selects[1], values)

    async def octets(self, uid: Uid) -> memoryview:
        row = self._of_body(OCTETS_OF, uid)
        if row is None:
            raise Refusal(Code.EXPUNGE_ISSUED, f"Message {uid} is no longer there")
        name, octets, size = row
        if name is None:
            return memoryview(octets)
        path = self.root.file_of(name)
        try:
            return map_message(path, size)
        except FileNotFoundError:
            if await self.messages([uid]):
                raise DamagedMessageError(path, "it is missing") from None
            raise Refusal(Code.EXPUNGE_ISSUED, f"Message {uid} is no longer there") from None

    async def summary(self, uid: Uid) -> bytes | None:
        row = self._of_body(SUMMARY_OF, uid)
        return row[0] if row else None

    async def summaries(self, uids: Sequence[Uid]) -> Mapping[Uid, bytes]:
        """See murder.api.store.TellsSummaries."""
        rows: list[tuple[Any, ...]] = []
        for table in ("message", "gone"):
            if len(rows) < len(uids):
                tables = f"{table} JOIN body ON body.id={table}.body"
                rows += await self._chosen("uid, summary", tables, uids)
        return {uid: summary for uid, summary in rows if summary is not None}

    async def keep_summary(self, uid: Uid, summary: bytes) -> None:
        self.root.hint(
            lambda db: db.execute(
                "UPDATE body SET summary=? WHERE id=(SELECT body FROM message WHERE mailbox=? AND uid=?)",
                (summary, self.box_id, uid),
            )
        )

    async def keep_told_size(self, uid: Uid, size: int) -> None:
        """See murder.api.store.KeepsToldSize."""

        def work(db: sqlite3.Connection) -> None:
            for select in BODY_OF:
                row = db.execute(select, (self.box_id, uid)).fetchone()
                if row is not None:
                    note_size(db, row[0], size)
                    break

        self.root.hint(work)

    async def told_octets(self) -> int:
        """See murder.api.store.KeepsToldSize."""
        return told_octets(self.root.reader, self.box_id)

    async def keywords(self) -> Collection[str]:
        """See murder.api.store.TellsKeywords."""
        rows = self.root.reader.all(
            "SELECT spelled FROM keyword WHERE mailbox=? LIMIT ?", (self.box_id, MOST_KEYWORDS)
        )
        return [spelling for (spelling,) in rows]

    async def recent(self) -> Collection[Uid]:
        """See murder.api.store.TellsRecent."""
        _, uid_next, _, recent_from, messages, *_ = self._numbers()
        return await self._read(
            read_uids,
            min(messages, uid_next - recent_from),
            "SELECT uid FROM message WHERE mailbox=? AND uid>=?",
            (self.box_id, recent_from),
        )

    async def claim_recent(self) -> Collection[Uid]:
        _, uid_next, _, recent_from, *_ = self._numbers()
        if recent_from >= uid_next:
            return ()

        try:
            return await self.write(lambda db: claim_recent(db, self.box_id), durable=False)
        except Refusal as refusal:
            if refusal.code not in (Code.OVER_QUOTA, Code.UNAVAILABLE):
                raise
        return await self.recent()  # the disk takes nothing: reading goes on

    # --- changing

    async def write(
        self,
        work: Callable[[sqlite3.Connection], T],
        settle: Callable[[BaseException | None], None] | None = None,
        *,
        durable: bool = True,
    ) -> T:
        """A change of this mailbox, as `Root.write`, with what its bodies need around it."""
        bodies = self.bodies
        if bodies is None:
            return await self.root.write(work, settle, durable=durable)

        def whole(db: sqlite3.Connection) -> T:
            with bodies.changing(db):
                return work(db)

        return await self.root.write(whole, settle)

    async def replace(
        self, uids: Sequence[Uid], new: NewMessage, target: AnyMailbox
    ) -> tuple[Uid, Sequence[Uid]] | None:
        """See murder.api.store.ReplacesMessages."""
        assert isinstance(target, RowMailbox)
        return await self._transfers.replace(self, uids, new, target)

    async def append(
        self, messages: Sequence[NewMessage], before: Work[object] = lambda _: None
    ) -> Sequence[Uid]:
        """`before` is part of the change."""
        linked: list[tuple[FileIncoming, str]] = []

        def work(db: sqlite3.Connection) -> list[Uid]:
            before(db)
            box = load_box(db, self.box_id)
            box.modseq += 1
            added = [self._add(db, box, new, linked) for new in messages]
            box.save(db)
            return added

        def settle(error: BaseException | None) -> None:
            for incoming, name in linked:
                (incoming.dropped if error else incoming.settled)(self.root, name)
            for incoming in incomings:
                incoming.unpin()
            if error is None:
                self.tell(self._mailbox_id)

        incomings = [ours(new.incoming) for new in messages]
        for incoming in incomings:
            incoming.pin()
        return await self.write(work, settle)

    def _add(
        self,
        db: sqlite3.Connection,
        box: Box,
        new: NewMessage,
        linked: list[tuple[FileIncoming, str]],
    ) -> Uid:
        incoming = ours(new.incoming)
        body = self._add_body(db, new, linked)
        if new.told_size:
            note_size(db, body, new.told_size)
        saved = int(time.time())
        date, zone = to_seconds(new.internal_date) if new.internal_date else (saved, 0)
        bits, uid = self.own_bits(db, to_bits(new.flags), box.uid_next), box.take_uid()
        keywords = spelled(db, self.box_id, to_keywords(new.flags), most=MOST_KEYWORDS)
        row = (bits, keywords, date, zone, saved, incoming.size, box.modseq)
        db.execute(
            INSERT_MESSAGE,
            (self.box_id, uid, *row, new.email_id or secrets.token_hex(10), body),
        )
        box.count(bits, incoming.size, 1)
        return Uid(uid)

    def _add_body(
        self, db: sqlite3.Connection, new: NewMessage, linked: list[tuple[FileIncoming, str]]
    ) -> int:
        """Store the octets: in the row, or in a file that the transaction names."""
        if self.bodies is not None:
            return self.bodies.add(db, new)
        incoming = ours(new.incoming)
        if incoming.is_inline:
            return insert_body(db, incoming.octets(), None)
        file = incoming.link_into(self.root)
        linked.append((incoming, file))
        return insert_body(db, None, file)

    def own_bits(self, db: sqlite3.Connection, bits: int, uid: int) -> int:
        """The bits that stand in the row; another reader's `\\Seen` stands in `seen`."""
        if self.is_own:
            return bits
        if bits & SEEN_BIT:
            db.execute("INSERT OR IGNORE INTO seen VALUES (?,?,?)", (self.box_id, self.reader, uid))
        return bits & ~SEEN_BIT

    async def change_flags(
        self,
        uids: Sequence[Uid],
        change: FlagChange,
        flags: frozenset[str],
        unchanged_since: ModSeq | None = None,
    ) -> Stored:
        modified: list[Uid] = []
        done: list[Uid] = []

        def work(db: sqlite3.Connection) -> tuple[int, list[Message]]:
            modified.clear()
            done.clear()
            box = load_box(db, self.box_id)
            named = to_keywords(flags)
            if change is FlagChange.REMOVE:
                words = known_keywords(db, box.id, named)
            else:
                words = spelled(db, box.id, named, most=MOST_KEYWORDS).split()
            edit = FlagEdit(change, to_bits(flags), words)
            modseq = box.modseq + 1
            rows = db.execute(
                "SELECT uid, flags, keywords, modseq FROM message WHERE mailbox=? "
                "AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid",
                (box.id, as_list(uids)),
            ).fetchall()
            for uid, bits, keywords, at in rows:
                if unchanged_since is not None and at > unchanged_since:
                    modified.append(Uid(uid))
                    continue
                done.append(Uid(uid))
                if self._put_flags(db, box, edit, (uid, bits, keywords), modseq):
                    box.modseq = modseq
            box.save(db)
            rows = db.execute(  # before anybody else changes them
                f"SELECT {MESSAGE_COLUMNS} FROM message WHERE mailbox=? "
                "AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid",
                (box.id, as_list(done)),
            ).fetchall()
            made = modseq if box.modseq == modseq else 0
            return made, self._seen_by_reader(rows, db)

        made, messages = await self.write(work)
        if made:
            self.tell(self._mailbox_id)
        return Stored(messages, tuple(modified), ModSeq(made))

    def _put_flags(
        self,
        db: sqlite3.Connection,
        box: Box,
        edit: FlagEdit,
        row: tuple[int, int, str],
        modseq: int,
    ) -> bool:
        """Change one message; whether anything changed."""
        uid, bits, keywords = row
        own_bits = bits
        if not self.is_own:
            seen = db.execute(
                "SELECT 1 FROM seen WHERE mailbox=? AND reader=? AND uid=?",
                (box.id, self.reader, uid),
            ).fetchone()
            own_bits = (bits & ~SEEN_BIT) | (SEEN_BIT if seen else 0)
        new_shown, new_keywords = edit.bits(own_bits), edit.keywords(keywords)
        if (new_shown, new_keywords) == (own_bits, keywords):
            return False
        stored = new_shown
        if not self.is_own:
            stored = (new_shown & ~SEEN_BIT) | (bits & SEEN_BIT)
            self.own_bits(db, new_shown, uid)
            if not new_shown & SEEN_BIT:
                db.execute(
                    "DELETE FROM seen WHERE mailbox=? AND reader=? AND uid=?",
                    (box.id, self.reader, uid),
                )
        db.execute(
            "UPDATE message SET flags=?, keywords=?, modseq=? WHERE mailbox=? AND uid=?",
            (stored, new_keywords, modseq, box.id, uid),
        )
        box.count_flags(bits, -1)
        box.count_flags(stored, 1)
        if self.bodies is not None:
            self.bodies.flags_changed(db, uid)
        return True

    async def step_modseq(self) -> None:
        """See murder.api.store.StepsModSeq."""

        def work(db: sqlite3.Connection) -> None:
            box = load_box(db, self.box_id)
            box.modseq += 1
            box.save(db)

        await self.write(work)

    async def expunge(self, uids: Sequence[Uid], *, moves: bool = False) -> Sequence[Uid]:
        keeping = self.keeping(moves=moves)

        def work(db: sqlite3.Connection) -> list[Uid]:
            box = load_box(db, self.box_id)
            gone = self.remove(db, box, uids, keeping)
            box.save(db)
            return gone

        gone: list[Uid] = await self.write(work)
        if gone:
            self.tell(self._mailbox_id)
        return gone

    def keeping(self, *, moves: bool = False) -> Keeping:
        """How what this reader is about to expunge, or to move, is kept."""
        return self.keeper.keeping(self._opened or self, self.root.key, moves=moves)

    def remove(
        self, db: sqlite3.Connection, box: Box, uids: Sequence[Uid], keeping: Keeping
    ) -> list[Uid]:
        """Part of a change."""
        return remove_kept(db, box, uids, keeping, self.bodies)

    async def retained(self, after: Uid, most: int) -> Sequence[Retained]:
        """See murder.api.store.TellsRetained."""
        return retained(self.root.reader, self.box_id, after, most)

    async def restore(self, uids: Sequence[Uid]) -> Mapping[Uid, Uid]:
        """See murder.api.store.TellsRetained."""
        back = await self.write(lambda db: restore(db, self.box_id, uids, self.bodies))
        self.tell(self._mailbox_id)
        return back

    async def expunged(self, uids: Sequence[Uid]) -> Sequence[Message]:
        """See murder.api.store.TellsExpunged."""
        rows = await self._chosen(f"{MESSAGE_COLUMNS}, seen_by", "gone", uids)
        own_rows = [row[:-1] for row in rows]
        if not self.is_own:
            seen = [self.reader in json.loads(row[-1]) for row in rows]
            bits = [_with_seen(row[1], is_seen) for row, is_seen in zip(rows, seen, strict=True)]
            own_rows = [(row[0], bit, *row[2:]) for row, bit in zip(own_rows, bits, strict=True)]
        return with_sizes(self.root.reader, rows, [to_message(row) for row in own_rows])

    def let_go(self, up_to: ModSeq, holders: int) -> None:
        """See murder.api.store.TellsExpunged."""
        if may_let_go(self.root.reader, self.box_id, up_to, holders):
            self.root.hint(lambda db: let_go(db, self.box_id, up_to, holders), durable=True)

    async def copy(self, uids: Sequence[Uid], target: AnyMailbox) -> Mapping[Uid, Uid]:
        assert isinstance(target, RowMailbox)
        return await self._transfers.copy(self, uids, target, remove=False)

    async def move(self, uids: Sequence[Uid], target: AnyMailbox) -> Mapping[Uid, Uid]:
        assert isinstance(target, RowMailbox)
        return await self._transfers.copy(self, uids, target, remove=True)


def _with_seen(bits: int, seen: bool) -> int:
    """The flags of a message as a reader who is not the owner sees them."""
    return bits | SEEN_BIT if seen else bits & ~SEEN_BIT
