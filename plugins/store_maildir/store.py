"""All Maildir++ trees of a backend: where they are, their folders, their subscriptions."""

import asyncio
import contextlib
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from weakref import WeakSet

from murder.api import (
    CarriedMessage,
    CarriedRetained,
    Incoming,
    Mailbox,
    MailboxStore,
    Room,
    StoredMailbox,
    hookimpl,
)
from murder.api.disk import disk_error
from murder.errors import Code, Refusal
from murder.kit.check import Checked, check_mailboxes
from murder.kit.epoch import Epoch, is_renewed, read_epoch, write_epoch
from murder.kit.format import check_format, need_entries
from murder.kit.incoming import FileIncoming
from murder.kit.mailbox import RowMailbox
from murder.kit.root import make_folder, root_of
from murder.kit.rows import new_box, remove_mailbox
from murder.kit.settings import expunged_bytes_option, max_open_option, writers_option
from murder.kit.store import RootStore, least_room, not_kept
from murder.model.carried import CarriedIdentity, Held, Portrait
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import (
    MailboxName,
    display,
    exists_already,
    inbox_of,
    no_such_mailbox,
    owner_of,
    split_domain,
)
from murder.model.ordering import in_order
from plugins.store_maildir.carry import MaildirCarrier
from plugins.store_maildir.files import (
    change_subscription,
    is_own_maildir,
    names_in,
    pattern_of,
    read_subscriptions,
)
from plugins.store_maildir.mailbox import MaildirMailbox, MaildirTransfers
from plugins.store_maildir.place import Place
from plugins.store_maildir.sync import (
    discover,
    forget,
    is_wanted,
    renew_tree,
    renew_whole,
    synchronise,
)
from plugins.store_maildir.tree import INDEX, RACY_NS, Tree, add_todo, parts_of, plan_rename

STALE_TMP_S: Final = 36 * 3600.0  # maildir(5): what is older in `tmp` was never finished
MAX_PART: Final = 250


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.store_maildir]."""

    users: str = field(
        default="maildir/users/%u",
        metadata={
            "doc": "Each user's Maildir++, as in Dovecot's mail_location: %u user, %n the part before @, "
            "%d the domain. Not absolute: below `[node] data`."
        },
    )
    shared: str = field(
        default="maildir/shared/%n",
        metadata={
            "doc": "The same for shared mailboxes: %n is the first part of their names; without %d their domain "
            "stands before it."
        },
    )
    look_every_s: float = field(
        default=5.0,
        metadata={
            "doc": "How often selected mailboxes are looked at for what other software did. "
            "Commands look at once; this is for IDLE."
        },
    )
    writers: int = writers_option()
    expunged_bytes: int = expunged_bytes_option()
    max_open: int = max_open_option("indexes")


def _key_of(name: MailboxName) -> str:
    return root_of(name).decode("latin-1")


@hookimpl
def make_store(settings: Settings, data_dir: Path) -> MailboxStore:
    return MaildirStore(settings, data_dir)


class MaildirStore(RootStore[Tree]):
    """See murder.api.store.MailboxStore."""

    def __init__(self, settings: Settings, data: Path) -> None:
        super().__init__(settings.expunged_bytes, settings.max_open)
        self._settings = settings
        self._data = self.epoch_folder = data
        self._users = str(data / settings.users)
        self._shared = str(data / settings.shared)
        self._places = {True: Place(self._users), False: Place(self._shared)}  # of users, shared
        self._boxes: WeakSet[MaildirMailbox] = WeakSet()
        self._transfers: MaildirTransfers | None = None
        self._looking: asyncio.Task[None] | None = None
        self._carrier = MaildirCarrier(lambda name: _row(self._tree(name), name), self._tree)

    # --- KeepsEpoch

    async def renew(self, number: int) -> None:
        await asyncio.to_thread(write_epoch, self._data, Epoch(number, number))
        for tree in list(self._open.values()):
            with tree.in_use():
                await tree.write(partial(renew_tree, tree=tree, renewed=number))

    async def renew_below(self, name: MailboxName) -> int:
        """See murder.api.store.RenewsMailboxes."""
        if not self._has_tree(MailboxName(root_of(name))):
            raise no_such_mailbox(name)
        tree = self._tree(name)
        with tree.in_use():
            return await tree.write(partial(renew_whole, tree=tree))

    # --- life

    async def start(self) -> None:
        incoming = self._data / "maildir-incoming"
        check_format(self._data, "maildir-format")
        for place in self._places.values():
            place.note()
        area = self.begin(incoming, self._settings.writers, "maildir")
        self._transfers = MaildirTransfers(area)
        await self.recover(incoming)
        self._looking = asyncio.create_task(self._look())

    def need_place(self, name: MailboxName) -> None:
        """See murder.api.store.NeedsPlace."""
        need_entries(self._place_of(MailboxName(root_of(name))).folder)

    def check_place(self) -> None:
        """See murder.api.store.ChecksPlace."""
        super().check_place()
        try:
            for place in self._places.values():
                place.check()
        except OSError as error:
            raise not_kept(error) from error

    def room(self) -> Room:
        """See murder.api.store.TellsRoom: of the trees, and of their indexes."""
        trees = [place.folder for place in self._places.values() if place.folder.is_dir()]
        return least_room([self.epoch_folder, *trees])

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await super().stop()

    async def _look(self) -> None:
        """For sessions that wait in IDLE."""
        while True:
            await asyncio.sleep(self._settings.look_every_s)
            for box in list(self._boxes):
                with contextlib.suppress(Refusal):
                    await box.refresh()

    # --- trees

    def _folder_of(self, top: MailboxName) -> Path:
        """Where the tree of a top mailbox is: of a shared one the domain, where it has no place of its own, stands before
        the name, as in the name itself. Raises Refusal for a name that no folder can have."""
        owner = owner_of(top)
        domain, rest = split_domain(top)
        user = owner if owner is not None else os.fsdecode(rest if "%d" in self._shared else top)
        # an @ in a shared one's name is a letter: what stands behind it is no domain
        local, _, at = user.partition("@") if owner is not None else (user, "", "")
        for part in (user, local, at, domain.decode("latin-1")):
            if "/" in part or "\0" in part or part.startswith(".") or len(part) > MAX_PART:
                raise Refusal(Code.CANNOT, f"No folder can be named {part!r}")
        values = {"u": user, "n": local, "d": at or domain.decode("latin-1"), "%": "%"}
        template = self._users if owner is not None else self._shared
        return Path(re.sub("%([und%])", lambda match: values[match.group(1)], template))

    def _place_of(self, top: MailboxName) -> Place:
        return self._places[owner_of(top) is not None]

    def _has_tree(self, top: MailboxName) -> bool:
        return self._place_of(top).has(self._folder_of(top))

    def _tops(self) -> Iterator[MailboxName]:
        """The top mailboxes of all trees there are."""
        for template, is_user in ((self._users, True), (self._shared, False)):
            self._places[is_user].need()
            pattern = pattern_of(template)
            shape = re.sub("%[und]", "*", template).replace("%%", "%")
            for folder in sorted(Path("/").glob(shape.lstrip("/"))):
                match = re.fullmatch(pattern, str(folder))
                if match is None or not ((folder / INDEX).exists() or (folder / "cur").is_dir()):
                    continue
                parts = match.groupdict()
                domain = "@" + parts["d"] if "d" in parts else ""
                user = parts.get("u") or parts.get("n", "") + domain
                if is_user:
                    yield inbox_of(user)
                else:
                    mark = parts["d"] + "!" if "d" in parts else ""
                    yield MailboxName(os.fsencode(mark + (parts.get("n") or parts["u"])))

    def keys(self) -> Iterator[str]:
        """Of all trees there are."""
        return (_key_of(top) for top in self._tops())

    def _tree(self, name: MailboxName) -> Tree:
        """The tree of a mailbox, opened; its folder is made where there is none."""
        return self.root_in(_key_of(name))

    def open_root(self, key: str, pool: ThreadPoolExecutor) -> Tree:
        top = MailboxName(key.encode("latin-1"))
        folder, place = self._folder_of(top), self._place_of(top)
        place.has(folder)
        try:
            make_folder(folder)
            place.note()
            tree = Tree(folder, pool, top, key)
            renewed = read_epoch(self._data).renewed
            if renewed and not is_renewed(tree.reader, renewed):
                tree.write_now(lambda db: renew_tree(db, tree, renewed))
        except (OSError, sqlite3.Error) as error:
            raise disk_error(error, folder) from error
        return tree

    async def _find(self, name: MailboxName) -> tuple[Tree, int, str] | None:
        """Tree, row number and id; what other software made or removed meanwhile is noticed."""
        if not self._has_tree(MailboxName(root_of(name))):
            return None
        tree = self._tree(name)
        if tree.reader.execute("SELECT 1 FROM todo LIMIT 1").fetchone():
            await tree.write(lambda db: None)  # what a crash has left is done first
        row = _row(tree, name)
        is_there = tree.is_maildir(name)
        if row is None and is_there:
            try:
                await tree.write(lambda db: discover(db, tree, name))
            except Refusal as refusal:
                if refusal.code is not Code.NONEXISTENT:  # about to be removed
                    raise
        elif row is not None and not is_there:
            await tree.write(lambda db: forget(db, tree, name))
        else:
            return row
        return _row(tree, name)

    # --- the contract

    async def mailboxes(self) -> Sequence[StoredMailbox]:
        stored = []
        for top in self._tops():
            try:
                names = await asyncio.to_thread(_folders, self._tree(top))
                for name in names:
                    await self._find(name)
                rows = self._tree(top).reader.execute(
                    "SELECT name, mailbox_id, uid_validity FROM mailbox"
                )
            except Refusal:
                continue  # damaged, and logged
            for name, identifier, validity in rows.fetchall():
                mailbox = MailboxName(bytes(name))
                if await self._find(mailbox) is not None:
                    stored.append(StoredMailbox(mailbox, identifier, UidValidity(validity)))
        return stored

    async def made_beside(self, name: MailboxName) -> Sequence[MailboxName]:
        """See murder.api.store.NoticesMailboxes. The date of the tree's folder tells."""
        key = root_of(name)
        folder = self._folder_of(MailboxName(key))
        tree = self._open.get(key.decode("latin-1"))
        try:
            at = os.stat(folder).st_mtime_ns
        except OSError:
            return ()
        if tree is not None and tree.looked_at == at:
            return ()
        if tree is None and not ((folder / INDEX).exists() or (folder / "cur").is_dir()):
            return ()
        tree = self._tree(name)
        try:
            beside = await asyncio.to_thread(_subfolders, tree)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise disk_error(error, folder) from error
        if time.time_ns() - at > RACY_NS:
            tree.looked_at = at
        return beside

    async def create(
        self, name: MailboxName, partition: str, mailbox_id: str = ""
    ) -> StoredMailbox:
        identifier = mailbox_id or secrets.token_hex(10)
        _check_name(name)
        if await self._find(name) is not None:
            raise exists_already(name)
        tree = self._tree(name)

        def work(db: sqlite3.Connection) -> UidValidity:
            validity = new_box(db, name, identifier)
            add_todo(db, "", tree.path_of(name))
            return validity

        return StoredMailbox(name, identifier, await tree.write(work))

    async def delete(self, name: MailboxName) -> None:
        row = await self._find(name)
        if row is None:
            return
        tree, box_id, mailbox_id = row

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE body SET file=NULL WHERE file GLOB ?", (f"{box_id}/*",))
            remove_mailbox(db, box_id)
            db.execute("DELETE FROM folder WHERE mailbox=?", (box_id,))
            for path in parts_of(tree, name):
                add_todo(db, path, "")

        await tree.write(work)
        self.tell(mailbox_id)

    async def rename(self, old: MailboxName, new: MailboxName) -> None:
        _check_name(new)
        places = await self._find(old), await self._find(new)
        await self.rename_placed(
            (old, places[0]),
            (new, places[1]),
            self._tree,
            lambda tree: lambda db: _rename(db, tree, old, new),
        )

    async def move_rows(
        self, source: Tree, old: MailboxName, target: Tree, new: MailboxName
    ) -> None:
        """Its rows first, with all that is to be renamed, then the source lets go of its own."""
        if os.stat(source.top).st_dev != os.stat(target.top).st_dev:
            raise Refusal(
                Code.CANNOT, "A mailbox cannot be renamed from one file system to another"
            )
        assert self._transfers is not None
        await self._transfers.move_mailbox(source, old, target, new)

    def rows_of(self, mailbox: Mailbox) -> RowMailbox:
        assert isinstance(mailbox, MaildirMailbox)
        return mailbox.rows

    async def open(self, name: MailboxName, reader: str) -> MaildirMailbox:
        row = await self._find(name)
        if row is None:
            raise no_such_mailbox(name)
        tree, box_id, mailbox_id = row
        assert self._transfers is not None
        is_own = owner_of(name) == reader
        box = MaildirMailbox(
            tree,
            box_id,
            name,
            mailbox_id,
            reader,
            is_own,
            self.tell,
            self._transfers,
            self._keeper,
        )
        self._boxes.add(box)
        return box

    def incoming(self) -> Incoming:
        assert self._area is not None
        return FileIncoming(self._area, 256 * 1024)

    # --- murder.api.CarriesMailboxes

    async def _look_at(self, name: MailboxName) -> None:
        """What other software did is part of what leaves."""
        mailbox = await self.open(name, "")
        try:
            await mailbox.refresh()
        finally:
            mailbox.close()

    async def portrait(self, name: MailboxName, since: ModSeq) -> Portrait:
        await self._look_at(name)
        return await self._carrier.portrait(name, since)

    async def rows(
        self, name: MailboxName, since: ModSeq, after: Uid, most: int
    ) -> Sequence[Message]:
        await self._look_at(name)
        return self._carrier.rows(name, since, after, most)

    async def freeze(self, name: MailboxName, frozen: bool) -> None:
        await self._look_at(name)
        await self._carrier.freeze(name, frozen)

    async def is_frozen(self, name: MailboxName) -> bool:
        await self._look_at(name)
        return self._carrier.is_frozen(name)

    async def hold(self, name: MailboxName, partition: str, identity: CarriedIdentity) -> Held:
        _check_name(name)
        await self._find(name)  # a folder that somebody else has made is another mailbox
        return await self._carrier.hold(name, identity)

    async def receive(self, name: MailboxName, messages: Sequence[CarriedMessage]) -> None:
        mailbox = await self.open(name, "")
        try:
            await self._carrier.receive_into(mailbox, messages)
        finally:
            mailbox.close()

    async def receive_retained(
        self, name: MailboxName, after: Uid, up_to: Uid, messages: Sequence[CarriedRetained]
    ) -> None:
        """See murder.api.CarriesRetained."""
        mailbox = await self.open(name, "")
        try:
            await self._carrier.receive_retained_into(mailbox, after, up_to, messages)
        finally:
            mailbox.close()

    async def complete(self, name: MailboxName, portrait: Portrait) -> None:
        await self._look_at(name)
        await self._carrier.complete(name, portrait)

    # --- subscriptions: in the tree's file what is below the tree, in the index what is not

    async def subscriptions(self, user: str) -> Collection[MailboxName]:
        inbox = inbox_of(user)
        if not self._has_tree(inbox):
            return ()
        tree = self._tree(inbox)
        rows = tree.reader.execute("SELECT name FROM subscription").fetchall()
        names = {MailboxName(bytes(name)) for (name,) in rows}
        read = read_subscriptions(tree.top)
        for name in read[0] if read is not None else ():
            names.add(inbox if name == b"INBOX" else MailboxName(inbox + b"." + name))
        return names

    async def subscribe(self, user: str, name: MailboxName, subscribed: bool) -> None:
        inbox = inbox_of(user)
        tree = self._tree(inbox)
        if MailboxName(root_of(name)) == inbox:
            below = b"INBOX" if name == inbox else bytes(name[len(inbox) + 1 :])
            await tree.write(lambda db: change_subscription(tree.top, below, subscribed))
            return
        sql = "DELETE FROM subscription WHERE name=?"
        if subscribed:
            sql = "INSERT OR IGNORE INTO subscription VALUES (?)"
        await tree.write(lambda db: db.execute(sql, (name,)))

    async def check(self, repair: bool) -> Sequence[str]:
        """Counts in the indexes; files are compared with them at every look in any case."""
        problems: list[str] = []
        for stored in await self.mailboxes():
            tree = self._tree(stored.name)

            def work(db: sqlite3.Connection, tree: Tree = tree, name: bytes = stored.name) -> None:
                (box_id,) = db.execute("SELECT id FROM mailbox WHERE name=?", (name,)).fetchone()
                db.execute("UPDATE folder SET cur_at=0 WHERE mailbox=?", (box_id,))
                synchronise(db, tree, box_id, tree.folder_of(db, box_id))

            await tree.write(work)
            checked = Checked(tree.folder, self._data / "lost", lambda _: False, repair, INDEX)

            def look(db: sqlite3.Connection, checked: Checked = checked) -> list[str]:
                return list(check_mailboxes(db, checked))

            problems += await tree.write(look)
        return list(dict.fromkeys(problems))


def _row(tree: Tree, name: MailboxName) -> tuple[Tree, int, str] | None:
    row = tree.reader.execute("SELECT id, mailbox_id FROM mailbox WHERE name=?", (name,)).fetchone()
    return (tree, row[0], row[1]) if row else None


def _subfolders(tree: Tree) -> list[MailboxName]:
    """Mailboxes that stand in a tree."""
    names = [tree.name] if os.path.isdir(tree.top + b"/cur") else []
    for entry in in_order(list(names_in(tree.top))):
        is_name = is_wanted(entry.decode("latin-1"))
        if is_name and is_own_maildir(tree.top + b"/" + entry, tree.top):
            names.append(MailboxName(tree.name + entry))
    return names


def _folders(tree: Tree) -> list[MailboxName]:
    """As `_subfolders`; what never was finished in their `tmp` is removed."""
    names = _subfolders(tree)
    for name in names:
        tmp = tree.path_of(name) + b"/tmp/"
        with contextlib.suppress(OSError):
            for entry in names_in(tmp):
                if time.time() - os.stat(tmp + entry).st_ctime > STALE_TMP_S:
                    os.unlink(tmp + entry)
    return names


def _check_name(name: MailboxName) -> None:
    """Refuse what Maildir++ cannot name."""
    if b"/" in bytes(name) or b"\0" in bytes(name):
        raise Refusal(Code.CANNOT, f"A maildir cannot be named {display(name)}", names=(name,))
    if len(name) > MAX_PART:
        raise Refusal(Code.LIMIT, f"A maildir's name may have {MAX_PART} octets, not {len(name)}")


def _rename(db: sqlite3.Connection, tree: Tree, old: MailboxName, new: MailboxName) -> None:
    db.execute("UPDATE mailbox SET name=? WHERE name=?", (new, old))
    plan_rename(db, tree, old, tree, new)
