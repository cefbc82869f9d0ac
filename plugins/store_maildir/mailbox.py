"""One open mailbox of a Maildir++ tree: rows of the kit, octets in files, and a look at the folder before each read."""

import contextlib
import mmap
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final

from murder.api import FlagChange, NewMessage, Retained, Stored
from murder.api import Mailbox as AnyMailbox
from murder.api.disk import disk_error
from murder.api.store import Numbers
from murder.api.turns import rest
from murder.errors import Code, Refusal
from murder.kit.expunged import Keeper, Keeping
from murder.kit.incoming import FileIncoming, ours
from murder.kit.mailbox import RowMailbox
from murder.kit.root import Root
from murder.kit.rows import insert_body, load_box
from murder.kit.schema import SEEN_BIT, connect, to_bits, to_keywords
from murder.kit.sizes import note_size, size_of
from murder.kit.transfer import Leaving, Linked, Transfers, insert_copies, message_rows, shown_bits
from murder.model.message import Changes, Flagged, MailboxStatus, Message, ModSeq, Uid
from murder.model.name import MailboxName
from murder.model.pieces import let_go
from plugins.store_maildir.files import (
    FILE_MODE,
    KEPT,
    add_keywords,
    join_name,
    letters_of,
    new_base,
    open_plain,
    read_keywords,
    sizes_of,
    split_name,
    to_crlf,
)
from plugins.store_maildir.sync import changing, synchronise
from plugins.store_maildir.tree import ASIDE, FOLLOWED, Tree, add_todo, plan_rename

ATTEMPTS: Final = 5  # to open a file that is renamed whenever its flags change


class MaildirBodies:
    """The files of one mailbox; see murder.kit.mailbox.Bodies. All of it runs in the tree's writer."""

    def __init__(self, tree: Tree, box_id: int, is_own: bool) -> None:
        self.tree = tree
        self.box_id = box_id
        self.is_own = is_own

    def changing(self, db: sqlite3.Connection) -> AbstractContextManager[object]:
        """Files are moved along."""
        return changing(db, self.tree, self.box_id)

    def add(self, db: sqlite3.Connection, new: NewMessage) -> int:
        """See murder.kit.mailbox.Bodies."""
        folder = self.tree.folder_of(db, self.box_id)
        date = new.internal_date.timestamp() if new.internal_date else None
        base = self.write_octets(folder, ours(new.incoming), date)
        bits = to_bits(new.flags) & ~(0 if self.is_own else SEEN_BIT)
        letters = self._letters(folder, bits, to_keywords(new.flags))
        file = _place(self.box_id, base, letters)
        add_todo(db, f"{self.box_id}/tmp/{base}", file)
        return insert_body(db, None, file)

    def write_octets(self, folder: bytes, incoming: FileIncoming, date: float | None) -> str:
        """A message into `tmp`, with LF line ends where the same octets can be made of that again; its base name."""
        octets = bytes(incoming.octets())
        stored, virtual = octets.replace(b"\r\n", b"\n"), len(octets)
        if to_crlf(stored) == octets:
            base = new_base(len(stored), virtual)
        else:
            stored, base = octets, new_base(len(octets), None)
        self._write_file(folder, base, stored, date)
        return base

    def letters_for(self, folder: bytes, flags: Collection[str]) -> str:
        """All flags of a message that arrives as letters of its file's name."""
        return self._letters(folder, to_bits(flags), to_keywords(flags))

    def _letters(self, folder: bytes, bits: int, keywords: Sequence[str]) -> str:
        known = read_keywords(folder) if keywords else []
        return letters_of(bits, keywords, add_keywords(folder, known, keywords))

    def _write_file(self, folder: bytes, base: str, octets: bytes, date: float | None) -> None:
        """Into `tmp`, durable before the commit."""
        path = folder + b"/tmp/" + base.encode("latin-1")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            if date is not None:
                os.utime(file.fileno(), (date, date))
        self.tree.file_is_coming(path, is_written=True)

    def flags_changed(self, db: sqlite3.Connection, uid: int) -> None:
        """The file is called as the row's flags are now."""
        bits, keywords, body, file = db.execute(
            "SELECT flags, keywords, body, file FROM message JOIN body ON body.id=message.body "
            "WHERE mailbox=? AND uid=?",
            (self.box_id, uid),
        ).fetchone()
        folder = self.tree.folder_of(db, self.box_id)
        base, letters = split_name(file.split("/", 2)[2])
        known = read_keywords(folder)
        foreign = [
            letter for letter in letters if letter not in "DFRST" and not _is_known(letter, known)
        ]
        now = self._letters(folder, bits, keywords.split())
        new = f"{self.box_id}/cur/{join_name(base, [*foreign, *now])}"
        if new != file:
            add_todo(db, file, new)
            db.execute("UPDATE body SET file=? WHERE id=?", (new, body))

    def set_aside(self, db: sqlite3.Connection, body: int, *, is_kept: bool) -> None:
        """See murder.kit.bodies.Bodies. In `tmp` other software sees no message, and removes it after 36 hours at last; what
        is kept longer has a folder that it does not know."""
        (file,) = db.execute("SELECT file FROM body WHERE id=?", (body,)).fetchone()
        if file is None:
            return
        aside = f"{self.box_id}/{KEPT if is_kept else ASIDE}/{file.split('/', 2)[2]}"
        add_todo(db, file, aside)
        db.execute("UPDATE body SET file=? WHERE id=?", (aside, body))

    def bring_back(self, db: sqlite3.Connection, body: int, bits: int, keywords: str) -> int:
        """See murder.kit.bodies.Bodies. Under another name: to other software the old one has the old UID."""
        (file,) = db.execute("SELECT file FROM body WHERE id=?", (body,)).fetchone()
        folder = self.tree.folder_of(db, self.box_id)
        source = self.tree.locate(folder, file) if file else None
        new = self.bring(db, source, (0, bits, keywords), bits)
        note_size(db, new, size_of(db, body))
        return new

    def bring(
        self, db: sqlite3.Connection, source: bytes | None, row: tuple[Any, ...], bits: int
    ) -> int:
        """A file of another folder as a message to be of this one; the new body."""
        for _ in range(FOLLOWED):
            if source is None:
                break
            try:
                return self._bring(db, source, row, bits)
            except FileNotFoundError:  # somebody has just given it other flags
                source = self.tree.locate_again(source)
        raise Refusal(Code.EXPUNGE_ISSUED, f"Message {row[0]} is no longer there")

    def _bring(self, db: sqlite3.Connection, source: bytes, row: tuple[Any, ...], bits: int) -> int:
        """Raises FileNotFoundError."""
        folder = self.tree.folder_of(db, self.box_id)
        letters = self._letters(folder, bits & ~(0 if self.is_own else SEEN_BIT), row[2].split())
        name = os.path.basename(source).decode("latin-1")
        size, virtual = sizes_of(split_name(name)[0])
        base = new_base(os.stat(source).st_size if size is None else size, virtual)
        path = folder + b"/tmp/" + base.encode("latin-1")
        try:
            os.link(source, path)
            self.tree.file_is_coming(path, is_written=False)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or a limit of links
            with open_plain(source) as file:
                self._write_file(folder, base, file.read(), os.fstat(file.fileno()).st_mtime)
        file_name = _place(self.box_id, base, letters)
        add_todo(db, f"{self.box_id}/tmp/{base}", file_name)
        return insert_body(db, None, file_name)


class MaildirMailbox:
    """See murder.api.store.Mailbox: rows of the kit, files of the tree, and a look at the folder before each read."""

    def __init__(
        self,
        tree: Tree,
        box_id: int,
        name: MailboxName,
        mailbox_id: str,
        reader: str,
        is_own: bool,
        tell: Callable[[str], None],
        transfers: Transfers,
        keeper: Keeper,
    ) -> None:
        self.tree = tree
        self.box_id = box_id
        self.tell = tell
        self.bodies = MaildirBodies(tree, box_id, is_own)
        seen_by = reader, is_own
        self.rows = RowMailbox(
            tree, box_id, name, mailbox_id, *seen_by, tell, transfers, keeper, self.bodies, self
        )
        self._converted: tuple[str, memoryview] | None = None

    @property
    def name(self) -> MailboxName:
        return self.rows.name

    @property
    def mailbox_id(self) -> str:
        return self.rows.mailbox_id

    def close(self) -> None:
        self.rows.close()

    # --- reading

    def numbers(self) -> Numbers | None:
        """See murder.api.store.TellsAtOnce."""
        numbers = self.rows.numbers()
        if numbers is not None:
            try:
                return None if self.tree.is_dirty(self.box_id) else numbers
            except Refusal:  # whoever asks in the ordinary way is told so
                return None
        return None

    async def refresh(self) -> None:
        """Notice what other software did. Where that cannot be written down (a full disk), reading goes on."""
        if not self.tree.is_dirty(self.box_id):
            return
        try:
            has_changed = await self.tree.write(self._look)
        except Refusal as refusal:
            if refusal.code is Code.NONEXISTENT:
                raise
            return
        if has_changed:
            self.tell(self.mailbox_id)

    def _look(self, db: sqlite3.Connection) -> bool:
        before = db.total_changes
        if self.box_id in self.tree.synchronised:
            return False
        (modseq,) = db.execute(
            "SELECT highest_modseq FROM mailbox WHERE id=?", (self.box_id,)
        ).fetchone() or (0,)
        with changing(db, self.tree, self.box_id):
            pass
        (after,) = db.execute(
            "SELECT highest_modseq FROM mailbox WHERE id=?", (self.box_id,)
        ).fetchone()
        return bool(after != modseq and db.total_changes != before)

    async def status(self) -> MailboxStatus:
        await self.refresh()
        return await self.rows.status()

    async def uids(self) -> Sequence[Uid]:
        await self.refresh()
        return await self.rows.uids()

    async def messages(self, uids: Sequence[Uid] | None = None) -> Sequence[Message]:
        await self.refresh()
        return await self.rows.messages(uids)

    async def find_by_flag(
        self, flag: str, *, present: bool = True, most: int | None = None
    ) -> Sequence[Uid]:
        await self.refresh()
        return await self.rows.find_by_flag(flag, present=present, most=most)

    async def changes(self, since: ModSeq) -> Changes:
        await self.refresh()
        changes = await self.rows.changes(since)
        (first,) = self.tree.reader.execute(
            "SELECT first_modseq FROM folder WHERE mailbox=?", (self.box_id,)
        ).fetchone() or (0,)
        if since >= first:
            return changes
        return replace(changes, complete=False)

    async def octets(self, uid: Uid) -> memoryview:
        for _ in range(ATTEMPTS):
            row = self._where(uid, "message") or self._where(uid, "gone")
            if row is None or row[2] is None:
                raise Refusal(Code.EXPUNGE_ISSUED, f"Message {uid} is no longer there")
            folder, size, file = self.tree.path_of(row[0]), row[1], row[2]
            if self._converted is not None and self._converted[0] == file:
                return self._converted[1]
            octets = self._mapped(folder, file)
            if octets is not None:
                break
            await rest()
        else:
            raise Refusal(Code.EXPUNGE_ISSUED, f"Message {uid} is no longer there")
        if len(octets) == size:
            return octets
        converted = memoryview(to_crlf(bytes(octets)))
        self._converted = (file, converted)
        if len(converted) != size:  # the name told it wrong
            self.tree.hint(lambda db: _set_size(db, self.box_id, uid, len(converted)))
        return converted

    def _where(self, uid: Uid, table: str) -> tuple[Any, ...] | None:
        """Name of the mailbox, size, file."""
        row: tuple[Any, ...] | None = self.tree.reader.execute(
            f"SELECT mailbox.name, size, body.file FROM {table} JOIN body ON body.id={table}.body "
            f"JOIN mailbox ON mailbox.id={table}.mailbox WHERE {table}.mailbox=? AND uid=?",
            (self.box_id, uid),
        ).fetchone()
        return row

    def _mapped(self, folder: bytes, file: str) -> memoryview | None:
        """The octets of a file; None where it is not found, or was renamed (its flags have changed) just then."""
        path = self.tree.locate(folder, file)
        try:
            return None if path is None else _map(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_error(error, self.tree.folder) from error

    async def flagged(self, uids: Sequence[Uid]) -> Sequence[Flagged]:
        """See murder.api.store.TellsFlags."""
        return await self.rows.flagged(uids)

    async def summary(self, uid: Uid) -> bytes | None:
        return await self.rows.summary(uid)

    async def summaries(self, uids: Sequence[Uid]) -> Mapping[Uid, bytes]:
        """See murder.api.store.TellsSummaries."""
        return await self.rows.summaries(uids)

    async def keep_summary(self, uid: Uid, summary: bytes) -> None:
        await self.rows.keep_summary(uid, summary)

    async def expunged(self, uids: Sequence[Uid]) -> Sequence[Message]:
        """See murder.api.store.TellsExpunged."""
        return await self.rows.expunged(uids)

    def let_go(self, up_to: ModSeq, holders: int) -> None:
        """See murder.api.store.TellsExpunged."""
        self.rows.let_go(up_to, holders)

    async def retained(self, after: Uid, most: int) -> Sequence[Retained]:
        """See murder.api.store.TellsRetained."""
        return await self.rows.retained(after, most)

    async def restore(self, uids: Sequence[Uid]) -> Mapping[Uid, Uid]:
        """See murder.api.store.TellsRetained."""
        await self.refresh()
        return await self.rows.restore(uids)

    async def keep_told_size(self, uid: Uid, size: int) -> None:
        """See murder.api.store.KeepsToldSize."""
        await self.rows.keep_told_size(uid, size)

    async def told_octets(self) -> int:
        """See murder.api.store.KeepsToldSize."""
        return await self.rows.told_octets()

    async def keywords(self) -> Collection[str]:
        """See murder.api.store.TellsKeywords."""
        return await self.rows.keywords()

    async def recent(self) -> Collection[Uid]:
        """See murder.api.store.TellsRecent."""
        return await self.rows.recent()

    async def claim_recent(self) -> Collection[Uid]:
        """Also takes new files from `new` to `cur`, as a reader of a maildir does."""
        await self.refresh()
        claimed = await self.rows.claim_recent()
        if claimed:
            with contextlib.suppress(Refusal):  # of a disk that takes nothing
                await self.tree.write(lambda db: _take_new(db, self.box_id, min(claimed)))
        return claimed

    # --- changing

    async def append(self, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        return await self.rows.append(messages)

    async def replace(
        self, uids: Sequence[Uid], new: NewMessage, target: AnyMailbox
    ) -> tuple[Uid, Sequence[Uid]] | None:
        assert isinstance(target, MaildirMailbox)
        return await self.rows.replace(uids, new, target.rows)

    async def change_flags(
        self,
        uids: Sequence[Uid],
        change: FlagChange,
        flags: frozenset[str],
        unchanged_since: ModSeq | None = None,
    ) -> Stored:
        return await self.rows.change_flags(uids, change, flags, unchanged_since)

    async def expunge(self, uids: Sequence[Uid]) -> Sequence[Uid]:
        return await self.rows.expunge(uids)

    async def step_modseq(self) -> None:
        """See murder.api.store.StepsModSeq."""
        await self.rows.step_modseq()

    async def copy(self, uids: Sequence[Uid], target: AnyMailbox) -> Mapping[Uid, Uid]:
        assert isinstance(target, MaildirMailbox)
        await self.refresh()
        return await self.rows.copy(uids, target.rows)

    async def move(self, uids: Sequence[Uid], target: AnyMailbox) -> Mapping[Uid, Uid]:
        assert isinstance(target, MaildirMailbox)
        await self.refresh()
        return await self.rows.move(uids, target.rows)


class MaildirTransfers(Transfers):
    """COPY and MOVE between folders: files are linked."""

    takes_files = True

    def copy_within(
        self,
        db: sqlite3.Connection,
        source: RowMailbox,
        uids: Sequence[Uid],
        target: RowMailbox,
        remove: bool,
        keeping: Keeping,
    ) -> dict[Uid, Uid]:
        bodies = _bodies_of(target)
        tree = bodies.tree
        if source.box_id != target.box_id:
            folder = tree.folder_of(db, source.box_id)
            if source.box_id not in tree.synchronised:
                tree.synchronised.add(source.box_id)
                synchronise(db, tree, source.box_id, folder)
        with changing(db, tree, target.box_id):
            rows = message_rows(db, source.box_id, uids)
            load_box(db, target.box_id)
            if not rows:
                return {}
            bits = shown_bits(db, source, rows)
            brought = [
                bodies.bring(db, _file_of(db, tree, source, row[9]), row, bits[row[0]])
                for row in rows
            ]
            for row, body in zip(rows, brought, strict=True):
                note_size(db, body, size_of(db, row[9]))
            copied = insert_copies(db, rows, bits, target, brought)
            let_go(rows)
        if remove:
            box = load_box(db, source.box_id)
            source.remove(db, box, list(copied), keeping)
            box.save(db)
        return copied

    def copy_from(
        self,
        db: sqlite3.Connection,
        source: RowMailbox,
        uids: Sequence[Uid],
        target: RowMailbox,
        linked: Linked,
    ) -> dict[Uid, Uid]:
        bodies, left = _bodies_of(target), _bodies_of(source).tree
        theirs = connect(left.file, for_writing=False)
        try:
            theirs.execute("BEGIN")
            rows = message_rows(theirs, source.box_id, uids)
            bits = shown_bits(theirs, source, rows)
            files = [_file_of(theirs, left, source, row[9]) for row in rows]
            sizes = [size_of(theirs, row[9]) for row in rows]
        finally:
            theirs.close()
        with changing(db, bodies.tree, target.box_id):
            brought = [
                bodies.bring(db, file, row, bits[row[0]])
                for file, row in zip(files, rows, strict=True)
            ]
            for size, body in zip(sizes, brought, strict=True):
                note_size(db, body, size)
            copied = insert_copies(db, rows, bits, target, brought)
            let_go(rows)
            return copied

    def _move_in(
        self,
        db: sqlite3.Connection,
        leaving: Leaving,
        old: MailboxName,
        new: MailboxName,
        linked: Linked,
        intent: str,
    ) -> None:
        source, target = leaving.root, linked.target
        assert isinstance(source, Tree) and isinstance(target, Tree)
        super()._move_in(db, leaving, old, new, linked, intent)
        plan_rename(db, source, old, target, new)
        _take_todo(db, leaving, old, new)

    def bring_body(
        self,
        db: sqlite3.Connection,
        theirs: sqlite3.Connection,
        body: int,
        source: Root,
        linked: Linked,
        here: int,
    ) -> int:
        (file,) = theirs.execute("SELECT file FROM body WHERE id=?", (body,)).fetchone()
        new = insert_body(db, None, f"{here}/{file.partition('/')[2]}" if file else None)
        note_size(db, new, size_of(theirs, body))
        return new


def _take_todo(
    db: sqlite3.Connection, leaving: Leaving, old: MailboxName, new: MailboxName
) -> None:
    """What the source has committed of the mailbox, and may not have done to its files before their folder goes."""
    assert leaving.db is not None
    (there,), (here,) = (
        rows.execute("SELECT id FROM mailbox WHERE name=?", (name,)).fetchone()
        for rows, name in ((leaving.db, old), (db, new))
    )
    for step in leaving.db.execute("SELECT old, new FROM todo ORDER BY id").fetchall():
        if all(path.startswith(f"{there}/") for path in step):
            before, after = (f"{here}/{path.partition('/')[2]}" for path in step)
            add_todo(db, before, after)


def _bodies_of(mailbox: RowMailbox) -> MaildirBodies:
    assert isinstance(mailbox.bodies, MaildirBodies)
    return mailbox.bodies


def _file_of(db: sqlite3.Connection, tree: Tree, source: RowMailbox, body: int) -> bytes | None:
    (file,) = db.execute("SELECT file FROM body WHERE id=?", (body,)).fetchone()
    folder = tree.folder_of(db, source.box_id)
    file_path = tree.locate(folder, file) if file else None
    if file_path is None and file:  # it comes with this very transaction
        row = db.execute("SELECT old FROM todo WHERE new=?", (file,)).fetchone()
        file_path = tree.locate(folder, row[0]) if row else None
    return file_path


def _map(path: bytes) -> memoryview:
    with open_plain(path) as file:
        status = os.fstat(file.fileno())
        if status.st_size == 0:
            return memoryview(b"")
        # cut short by its owner, a map of it would end this process
        if status.st_uid != os.geteuid():
            return memoryview(file.read())
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _place(box_id: int, base: str, letters: str) -> str:
    """New mail without flags goes to `new`, where other readers look for it."""
    return f"{box_id}/cur/{join_name(base, letters)}" if letters else f"{box_id}/new/{base}"


def _is_known(letter: str, known: list[str]) -> bool:
    return "a" <= letter <= "z" and ord(letter) - ord("a") < len(known)


def _take_new(db: sqlite3.Connection, box_id: int, first: int) -> None:
    rows = db.execute(
        "SELECT body.id, file FROM message JOIN body ON body.id=message.body "
        "WHERE mailbox=? AND uid>=? AND file GLOB ?",
        (box_id, first, f"{box_id}/new/*"),
    ).fetchall()
    for body, file in rows:
        base, letters = split_name(file.split("/", 2)[2])
        new = f"{box_id}/cur/{join_name(base, letters)}"
        add_todo(db, file, new)
        db.execute("UPDATE body SET file=? WHERE id=?", (new, body))


def _set_size(db: sqlite3.Connection, box_id: int, uid: int, size: int) -> None:
    row = db.execute("SELECT size FROM message WHERE mailbox=? AND uid=?", (box_id, uid)).fetchone()
    if row is not None:
        db.execute("UPDATE message SET size=? WHERE mailbox=? AND uid=?", (size, box_id, uid))
        db.execute("UPDATE mailbox SET octets=octets+? WHERE id=?", (size - row[0], box_id))
