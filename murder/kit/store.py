"""What every store of roots has while it runs: the roots that are open, the threads that make changes durable, the place of
what comes in, what a start after a crash finishes, and who is told of changes. Where a root is, and how it is opened, is the
store's own.
"""

import asyncio
import contextlib
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

from murder.api.store import Mailbox, NewMessage, Once, Room, StoreListener
from murder.errors import Code, Refusal
from murder.kit.epoch import EpochStore
from murder.kit.expunged import Keeper, KeepingStore
from murder.kit.incoming import IncomingArea, dead_areas, remove_area
from murder.kit.mailbox import RowMailbox
from murder.kit.once import append_once
from murder.kit.root import Root, Work
from murder.kit.rows import box_of, remove_mailbox
from murder.kit.transfer import INTENTS, finish_intent, intents_of, rename_intents_of
from murder.model.message import Uid
from murder.model.name import MailboxName, exists_already, no_such_mailbox

R = TypeVar("R", bound=Root)
Placed = tuple[R, int, str]
"""Where a mailbox is: its root, the number of its row, its id."""


class RootStore(KeepingStore, EpochStore, Generic[R]):
    """A store whose mailboxes are in roots, each of which has a key. `most_open`: roots that stay open."""

    def __init__(self, expunged_bytes: int, most_open: int) -> None:
        self._most_open = most_open
        self._open: OrderedDict[str, R] = OrderedDict()
        self._listeners: list[StoreListener] = []
        self._pool: ThreadPoolExecutor | None = None
        self._area: IncomingArea | None = None
        self._keeper = Keeper(expunged_bytes, self.root_in)

    # --- the store's own

    def keys(self) -> Iterator[str]:
        """Of all roots there are."""
        raise NotImplementedError

    def open_root(self, key: str, pool: ThreadPoolExecutor) -> R:
        """Raises Refusal."""
        raise NotImplementedError

    def has_root(self, key: str) -> bool:
        """Whether it is still there."""
        return True

    async def move_rows(self, source: R, old: MailboxName, target: R, new: MailboxName) -> None:
        """A mailbox into another root, with all that is in it. Raises Refusal."""
        raise NotImplementedError

    def rows_of(self, mailbox: Mailbox) -> RowMailbox:
        """Of a mailbox that this store has opened."""
        assert isinstance(mailbox, RowMailbox)
        return mailbox

    # --- life

    def begin(self, incoming: Path, writers: int, threads: str) -> IncomingArea:
        """Have a place for what comes in, and threads of this name. Raises Refusal."""
        try:
            self._area = IncomingArea(incoming)
        except OSError as error:
            raise not_kept(error) from error
        self._pool = ThreadPoolExecutor(writers, threads)
        return self._area

    def check_place(self) -> None:
        """See murder.api.store.ChecksPlace."""
        assert self._area is not None
        try:
            self._area.try_out()
        except OSError as error:
            error.filename = str(self.epoch_folder)  # as it was configured
            raise not_kept(error) from error

    def room(self) -> Room:
        """See murder.api.store.TellsRoom."""
        return least_room([self.epoch_folder])

    async def recover(self, incoming: Path) -> None:
        """Finish what dead processes had begun. What a damaged root has begun waits for its repair."""
        for area in dead_areas(incoming):
            try:
                await self.recover_area(area)
            except Refusal:
                continue  # has been logged; the folder stays for the next start
            remove_area(area)

    async def recover_area(self, area: Path) -> None:
        """What one process has left. Raises Refusal."""
        with contextlib.suppress(FileNotFoundError):
            for key in dict.fromkeys((area / INTENTS).read_text().split("\n")):
                if key and self.has_root(key):
                    await self._finish_intents(key, area.name)

    async def _finish_intents(self, key: str, area: str) -> None:
        target = self.root_in(key)
        for identifier, what in intents_of(target, area):
            with target.in_use():
                await finish_intent(target, identifier, what, self.root_in(what["root"]))

    async def stop(self) -> None:
        """See murder.api.store.MailboxStore."""
        self._keeper.stop()
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown)
        for root in self._open.values():
            root.close()
        self._open.clear()
        if self._area is not None:
            self._area.close()

    # --- roots

    def root_in(self, key: str) -> R:
        """Opened where it is not. Raises Refusal."""
        root = self._open.get(key)
        if root is not None:
            self._open.move_to_end(key)
            return root
        assert self._pool is not None
        root = self._open[key] = self.open_root(key, self._pool)
        self._keeper.opened(root)
        self._close_unused()
        return root

    def _close_unused(self) -> None:
        """Those that nobody has wanted for longest, above `most_open`."""
        if len(self._open) <= self._most_open:
            return
        for key, root in list(self._open.items())[:-1]:
            if root.is_idle:
                del self._open[key]
                root.close()
                if len(self._open) <= self._most_open:
                    return

    def journal_octets(self) -> int:
        """See murder.api.store.TellsJournals."""
        return sum(root.journal_octets for root in self._open.values())

    async def rename_placed(
        self,
        old: tuple[MailboxName, Placed[R] | None],
        new: tuple[MailboxName, Placed[R] | None],
        target_of: Callable[[MailboxName], R],
        rename: Callable[[R], Work[object]],
    ) -> None:
        """Each name with where it is now (None: nowhere). `rename`: within one root; into another one it takes two steps, of
        which the first may have been done. Raises Refusal."""
        placed, there = old[1], new[1]
        if placed is None:
            if there is not None:
                return  # it has been done
            raise no_such_mailbox(old[0])
        source, box_id, mailbox_id = placed
        if there is not None and there[2] != mailbox_id:
            raise exists_already(new[0])
        target = target_of(new[0])
        if source is target:
            await source.write(rename(source))
        else:
            with source.in_use(), target.in_use():
                if there is not None:  # begun, and not finished
                    for identifier, what in rename_intents_of(target, mailbox_id):
                        await finish_intent(target, identifier, what, source)
                if box_of(target.reader, mailbox_id) is not None:
                    await source.write(lambda db: remove_mailbox(db, box_id))
                else:
                    await self.move_rows(source, old[0], target, new[0])
        self.tell(mailbox_id)

    async def append_once(self, mailbox: Mailbox, message: NewMessage, once: Once) -> Uid | None:
        """See murder.api.store.AppendsOnce."""
        return await append_once(self.rows_of(mailbox), message, once)

    # --- who is told

    def watch(self, listener: StoreListener) -> None:
        """See murder.api.store.MailboxStore."""
        self._listeners.append(listener)

    def tell(self, mailbox_id: str) -> None:
        """Something has changed in this mailbox."""
        for listener in self._listeners:
            listener.mailbox_changed(mailbox_id)


def not_kept(error: OSError) -> Refusal:
    """A folder of the store's cannot be made or written."""
    return Refusal(
        Code.UNAVAILABLE, f"{error.filename}: {error.strerror}; mail cannot be kept there"
    )


def least_room(folders: Sequence[Path]) -> Room:
    """Of the disks of these folders, one at least, the room of the fullest. Raises OSError."""
    usages = [shutil.disk_usage(folder) for folder in folders]
    least = min(usages, key=lambda usage: usage.free / usage.total if usage.total else 1.0)
    return Room(least.free, least.total)
