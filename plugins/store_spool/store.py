"""All roots of a backend: finding, opening and closing them, and what a start after a crash finishes.

`FOLDER/roots/HH/ROOT/mail.db` with `files/` beside it; ROOT is the user or the first part of a shared name,
percent-encoded (hashed where that is too long), HH two digits of its hash. `FOLDER/incoming/` holds what comes in.
"""

import asyncio
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

from murder.api import (
    CarriedMessage,
    CarriedRetained,
    Incoming,
    MailboxStore,
    StoredMailbox,
    hookimpl,
)
from murder.api.store import Numbers, NumbersOf
from murder.api.turns import rest
from murder.errors import Refusal
from murder.kit.carry import Carrier
from murder.kit.epoch import (
    Epoch,
    is_renewed,
    read_epoch,
    renew_boxes,
    renew_rows,
    write_epoch,
)
from murder.kit.format import check_format, need_entries, need_store
from murder.kit.incoming import FileIncoming, witnesses
from murder.kit.mailbox import RowMailbox
from murder.kit.numbers import NUMBERS, numbers_now
from murder.kit.root import Root, make_folder, root_of
from murder.kit.rows import new_box, remove_mailbox
from murder.kit.settings import expunged_bytes_option, max_open_option, writers_option
from murder.kit.store import RootStore, not_kept
from murder.kit.transfer import Transfers
from murder.model.carried import CarriedIdentity, Held, Portrait
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import (
    MailboxName,
    inbox_of,
    no_such_mailbox,
    owner_of,
)
from plugins.store_spool.inspection import inspect_root

FOLDERS_KNOWN: Final = 10_000  # whose names need not be made again for each message
BY_NAME: Final = tuple(f"id, mailbox_id, {numbers}" for numbers in NUMBERS)
MAX_FOLDER_NAME: Final = 120  # octets; longer roots are named by their hash


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.store_spool]."""

    folder: Path | None = field(
        default=None, metadata={"doc": "Where mail is kept; empty: `spool` in `[node] data`."}
    )
    inline_bytes: int = field(
        default=32 * 1024,
        metadata={"doc": "Messages up to this size stand in the database, larger ones in files."},
    )
    writers: int = writers_option()
    expunged_bytes: int = expunged_bytes_option()
    max_open: int = max_open_option("databases")


@hookimpl
def make_store(settings: Settings, data_dir: Path) -> MailboxStore:
    return SpoolStore(settings, settings.folder or data_dir / "spool")


@lru_cache(FOLDERS_KNOWN)
def _spread_of(folder: str) -> str:
    return hashlib.sha256(folder.encode()).hexdigest()[:2]


@lru_cache(FOLDERS_KNOWN)
def folder_name(root: bytes) -> str:
    """A file name for any octets, readable where it can be."""
    quoted = quote(root, safe="!@+=")
    if len(quoted) <= MAX_FOLDER_NAME and not quoted.startswith("."):
        return quoted
    return "~" + hashlib.sha256(root).hexdigest()[:40]


class SpoolStore(RootStore[Root]):
    """See murder.api.store.MailboxStore."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings.expunged_bytes, settings.max_open)
        self._settings = settings
        self.folder = self.epoch_folder = folder
        self._roots = f"{folder}/roots"
        self._transfers: Transfers | None = None
        self._carrier = Carrier(self._find, self._root)

    # --- life

    async def start(self) -> None:
        try:
            make_folder(self.folder)
            check_format(self.folder)
        except OSError as error:
            raise not_kept(error) from error
        incoming = self.folder / "incoming"
        self._transfers = Transfers(self.begin(incoming, self._settings.writers, "spool"))
        await self.recover(incoming)

    async def recover_area(self, area: Path) -> None:
        for folder, names in witnesses(area):
            self._drop_unnamed(folder, names)
        await super().recover_area(area)

    def _drop_unnamed(self, folder: str, names: list[str]) -> None:
        root = self.root_in(folder)
        for name in names:
            known = root.reader.execute("SELECT 1 FROM body WHERE file=?", (name,)).fetchone()
            if not known:
                root.file_of(name).unlink(missing_ok=True)

    def need_place(self, name: MailboxName) -> None:
        """See murder.api.store.NeedsPlace."""
        need_entries(Path(self._roots))

    # --- roots

    def has_root(self, key: str) -> bool:
        """Raises Refusal where nothing is there any more."""
        there = os.path.isdir(self._place_of(key))  # for each message: no path is made
        if not there:
            need_store(self.folder)
        return there

    def _path_of(self, folder: str) -> Path:
        return Path(self._place_of(folder))

    def _place_of(self, folder: str) -> str:
        return f"{self._roots}/{_spread_of(folder)}/{folder}"

    def _root(self, name: MailboxName) -> Root:
        return self.root_in(folder_name(root_of(name)))

    def open_root(self, key: str, pool: ThreadPoolExecutor) -> Root:
        """A user's database; of an older copy of the store it is renewed before anybody looks into it."""
        need_store(self.folder)
        root = Root.in_folder(self._path_of(key), pool)
        self._renew(root)
        return root

    def _renew(self, root: Root) -> None:
        """A root of an older copy of the store, before anybody looks into it."""
        renewed = read_epoch(self.folder).renewed
        if renewed and not is_renewed(root.reader, renewed):
            root.write_now(lambda db: renew_rows(db, renewed))

    # --- KeepsEpoch

    async def renew(self, number: int) -> None:
        """Those that are open now, the others when they are opened."""
        await asyncio.to_thread(write_epoch, self.folder, Epoch(number, number))
        for root in list(self._open.values()):
            with root.in_use():
                await root.write(lambda db: renew_rows(db, number))

    async def renew_below(self, name: MailboxName) -> int:
        """See murder.api.store.RenewsMailboxes."""
        if not self._exists(name):
            raise no_such_mailbox(name)
        root = self._root(name)
        with root.in_use():
            return len(await root.write(renew_boxes))

    def _exists(self, name: MailboxName) -> bool:
        return self.has_root(folder_name(root_of(name)))

    def _find(self, name: MailboxName) -> tuple[Root, int, str] | None:
        """Root, row number and id of a mailbox."""
        row = self._row_of("id, mailbox_id", name)
        return (row[0], row[1][0], row[1][1]) if row else None

    def _row_of(self, columns: str, name: MailboxName) -> tuple[Root, tuple[Any, ...]] | None:
        folder = folder_name(root_of(name))
        if not self.has_root(folder):
            return None
        root = self.root_in(folder)
        row = root.reader.one(f"SELECT {columns} FROM mailbox WHERE name=?", (name,))
        return (root, row) if row else None

    def keys(self) -> Iterator[str]:
        """The folders of all roots there are."""
        need_store(self.folder)
        top = self.folder / "roots"
        for spread in sorted(os.listdir(top)) if top.is_dir() else []:
            yield from sorted(os.listdir(top / spread))

    # --- the contract

    async def mailboxes(self) -> Sequence[StoredMailbox]:
        """Of each user's database in turn; a damaged one is left out, and the others' mail goes on."""
        stored = []
        for folder in self.keys():
            try:
                rows = self.root_in(folder).reader.execute(
                    "SELECT name, mailbox_id, uid_validity FROM mailbox"
                )
            except Refusal:
                continue  # damaged, and logged: the others' mail goes on
            stored += [
                StoredMailbox(MailboxName(bytes(name)), identifier, UidValidity(validity))
                for name, identifier, validity in rows.fetchall()
            ]
            await rest()
        return stored

    async def create(
        self, name: MailboxName, partition: str, mailbox_id: str = ""
    ) -> StoredMailbox:
        """A row in its owner's database, which is made with the first."""
        identifier = mailbox_id or secrets.token_hex(10)
        validity = await self._root(name).write(lambda db: new_box(db, name, identifier))
        return StoredMailbox(name, identifier, validity)

    async def delete(self, name: MailboxName) -> None:
        row = self._find(name)
        if row is None:
            return
        root, box_id, mailbox_id = row
        await root.write(lambda db: remove_mailbox(db, box_id))
        self.tell(mailbox_id)

    async def rename(self, old: MailboxName, new: MailboxName) -> None:
        """One transaction within a user's database; into another one's the rows are carried."""
        await self.rename_placed(
            (old, self._find(old)),
            (new, self._find(new)),
            self._root,
            lambda _: lambda db: _rename(db, old, new),
        )

    async def move_rows(
        self, source: Root, old: MailboxName, target: Root, new: MailboxName
    ) -> None:
        assert self._transfers is not None
        await self._transfers.move_mailbox(source, old, target, new)

    async def open(self, name: MailboxName, reader: str) -> RowMailbox:
        row = self._find(name)
        if row is None:
            raise no_such_mailbox(name)
        root, box_id, mailbox_id = row
        assert self._transfers is not None
        is_own = owner_of(name) == reader
        return RowMailbox(
            root,
            box_id,
            name,
            mailbox_id,
            reader,
            is_own,
            self.tell,
            self._transfers,
            self._keeper,
        )

    def numbers_of(self, name: MailboxName, reader: str) -> NumbersOf | None:
        """See murder.api.store.CountsAtOnce."""
        is_own = owner_of(name) == reader
        at = self._row_of(BY_NAME[is_own], name)
        if at is None:
            return None
        root, (box_id, mailbox_id, *numbers) = at
        tell = partial(numbers_now, root, box_id, name, is_own)
        return mailbox_id, cast(Numbers, tuple(numbers)), tell

    async def modseq_of(self, name: MailboxName) -> tuple[str, ModSeq] | None:
        """See murder.api.store.TellsModSeq."""
        row = self._row_of("mailbox_id, highest_modseq", name)
        return (row[1][0], ModSeq(row[1][1])) if row else None

    def incoming(self) -> Incoming:
        """In memory up to `inline_bytes`, a file beyond."""
        assert self._area is not None
        return FileIncoming(self._area, self._settings.inline_bytes)

    async def subscriptions(self, user: str) -> Collection[MailboxName]:
        if not self._exists(inbox_of(user)):
            return ()
        rows = self._root(inbox_of(user)).reader.execute("SELECT name FROM subscription")
        return {MailboxName(bytes(name)) for (name,) in rows.fetchall()}

    async def count_subscriptions(self, user: str, most: int) -> int:
        """See murder.api.store.CountsSubscriptions."""
        if not self._exists(inbox_of(user)):
            return 0
        sql = "SELECT count(*) FROM (SELECT 1 FROM subscription LIMIT ?)"
        row = self._root(inbox_of(user)).reader.execute(sql, (most,)).fetchone()
        return int(row[0])

    async def is_subscribed(self, user: str, name: MailboxName) -> bool:
        """One look-up, in the user's own database."""
        if not self._exists(inbox_of(user)):
            return False
        reader = self._root(inbox_of(user)).reader
        return bool(reader.execute("SELECT 1 FROM subscription WHERE name=?", (name,)).fetchone())

    async def subscribe(self, user: str, name: MailboxName, subscribed: bool) -> None:
        sql = "DELETE FROM subscription WHERE name=?"
        if subscribed:
            sql = "INSERT OR IGNORE INTO subscription VALUES (?)"
        await self._root(inbox_of(user)).write(lambda db: db.execute(sql, (name,)))

    async def check(self, repair: bool) -> Sequence[str]:
        """See murder.api.store.CanCheck."""
        assert self._area is not None
        problems: list[str] = []
        for folder in list(self.keys()):
            root = self._open.pop(folder, None)
            if root is not None:
                root.close()
            path = self._path_of(folder)
            problems += await asyncio.to_thread(
                inspect_root, self.folder, path, self._area.folder, repair
            )
        return problems

    # --- murder.api.CarriesMailboxes

    async def portrait(self, name: MailboxName, since: ModSeq) -> Portrait:
        return await self._carrier.portrait(name, since)

    async def rows(
        self, name: MailboxName, since: ModSeq, after: Uid, most: int
    ) -> Sequence[Message]:
        return self._carrier.rows(name, since, after, most)

    async def freeze(self, name: MailboxName, frozen: bool) -> None:
        await self._carrier.freeze(name, frozen)

    async def is_frozen(self, name: MailboxName) -> bool:
        return self._carrier.is_frozen(name)

    async def hold(self, name: MailboxName, partition: str, identity: CarriedIdentity) -> Held:
        return await self._carrier.hold(name, identity)

    async def receive(self, name: MailboxName, messages: Sequence[CarriedMessage]) -> None:
        await self._carrier.receive(name, messages)

    async def receive_retained(
        self, name: MailboxName, after: Uid, up_to: Uid, messages: Sequence[CarriedRetained]
    ) -> None:
        """See murder.api.CarriesRetained."""
        await self._carrier.receive_retained(name, after, up_to, messages)

    async def complete(self, name: MailboxName, portrait: Portrait) -> None:
        await self._carrier.complete(name, portrait)


def _rename(db: sqlite3.Connection, old: MailboxName, new: MailboxName) -> Any:
    return db.execute("UPDATE mailbox SET name=? WHERE name=?", (new, old))
