"""What each session knows of its selected mailbox, and what it has still to be told.

A `View` maps sequence numbers to UIDs as *its* client counts them: a message that is gone keeps its number until the
client may be told (RFC 3501 §5.5, §7.4.1). The `Tracker` tells views that their mailbox changed; it knows nothing of
how. Formatting is the protocol's.
"""

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from murder.api.store import Mailbox
from murder.model.message import MailboxStatus, Message, ModSeq, SeqNum, Uid

FEW: Final = 64  # so many removals are cut out one by one; more rebuild the array


@dataclass(frozen=True, slots=True)
class Updates:
    """What a client is to be told, in this order: removals, then counts, then flags.

    `expunged` are sequence numbers as they hold when each is told in turn; `vanished` the same messages' UIDs.
    """

    expunged: Sequence[SeqNum] = ()
    vanished: Sequence[Uid] = ()
    exists: int | None = None
    recent: int | None = None
    changed: Sequence[tuple[SeqNum, Message]] = ()

    def __bool__(self) -> bool:
        return bool(self.expunged or self.changed) or self.exists is not None


class View:
    """One session's selected mailbox. Memory: four octets a message."""

    __slots__ = (
        "_changed",
        "_exists_told",
        "_gone",
        "_last_uid",
        "_lock",
        "_own",
        "is_dirty",
        "mailbox",
        "modseq",
        "on_dirty",
        "read_only",
        "recent",
        "uids",
    )

    def __init__(self, mailbox: Mailbox, read_only: bool) -> None:
        self.mailbox = mailbox
        self.read_only = read_only
        self.uids: array[int] = array("I")
        self.recent: set[Uid] = set()
        self.modseq = ModSeq(0)
        self.is_dirty = False
        self.on_dirty: Callable[[], None] | None = None
        self._gone: set[Uid] = set()
        self._changed: dict[Uid, Message] = {}
        self._own: dict[Uid, ModSeq] = {}
        self._exists_told = 0
        self._last_uid = 0
        self._lock: asyncio.Lock | None = None

    async def load(self) -> MailboxStatus:
        """Read the UIDs. What happens meanwhile is found by the first `poll`: the counts are taken first."""
        status = await self.mailbox.status()
        if not self.read_only:
            self.recent.update(await self.mailbox.claim_recent())
        self.uids = array("I", await self.mailbox.uids())
        self.modseq = status.highest_modseq
        self._exists_told = len(self.uids)
        self._last_uid = max(self.uids[-1] if self.uids else 0, int(status.uid_next) - 1)
        self.is_dirty = True
        return status

    # --- numbers

    @property
    def exists(self) -> int:
        """How many messages the client believes in."""
        return len(self.uids)

    def seq_of(self, uid: int) -> SeqNum | None:
        """The client's number of a message; None if he has never heard of it."""
        at = bisect_left(self.uids, uid)
        if at < len(self.uids) and self.uids[at] == uid:
            return SeqNum(at + 1)
        return None

    def uid_of(self, seq: int) -> Uid:
        return Uid(self.uids[seq - 1])

    def between(self, first: int, last: int) -> Sequence[int]:
        """The known UIDs from `first` to `last`, both included."""
        return self.uids[bisect_left(self.uids, first) : bisect_left(self.uids, last + 1)]

    # --- what happened

    def note_changed(self) -> None:
        """The mailbox has changed, here or elsewhere."""
        self.is_dirty = True
        if self.on_dirty is not None:
            self.on_dirty()

    def told(self, messages: Iterable[Message]) -> None:
        """The client knows of these changes: he made them."""
        for message in messages:
            self._own[message.uid] = message.modseq

    async def poll(self) -> None:
        """Ask the store what happened, and keep it until the client may be told."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            self.is_dirty = False
            changes = await self.mailbox.changes(self.modseq)
            arrived = False
            if changes.complete:
                vanished: Iterable[int] = changes.vanished
            else:
                present = set(await self.mailbox.uids())
                vanished = [uid for uid in self.uids if uid not in present]
            for uid in vanished:
                if self.seq_of(uid) is not None:
                    self._gone.add(Uid(uid))
                    self._changed.pop(Uid(uid), None)
            for message in changes.changed:
                if message.uid > self._last_uid:
                    self.uids.append(message.uid)
                    self._last_uid = message.uid
                    arrived = True
                elif self._own.get(message.uid) != message.modseq:
                    if message.uid not in self._gone and self.seq_of(message.uid) is not None:
                        self._changed[message.uid] = message
            self._own.clear()
            self.modseq = max(self.modseq, changes.highest_modseq)
            if arrived and not self.read_only:
                self.recent.update(await self.mailbox.claim_recent())

    @property
    def has_pending(self) -> bool:
        """Whether something waits to be told."""
        return bool(self._gone or self._changed) or len(self.uids) != self._exists_told

    @property
    def gone(self) -> Collection[Uid]:
        """Messages that no longer exist although the client counts them."""
        return self._gone

    def take(self, *, removals: bool) -> Updates:
        """What is to be told now. Without `removals` (FETCH, STORE, SEARCH run) numbers stay as they are."""
        if not self.has_pending:
            return Updates()
        expunged: list[SeqNum] = []
        vanished: list[Uid] = []
        if removals and self._gone:
            vanished, expunged = self._remove(sorted(self._gone))
        exists = len(self.uids) if len(self.uids) != self._exists_told - len(expunged) else None
        self._exists_told = len(self.uids)
        changed = [
            (seq, message)
            for uid, message in self._changed.items()
            if (seq := self.seq_of(uid)) is not None
        ]
        self._changed = {}
        recent = len(self.recent) if exists is not None else None
        return Updates(expunged, vanished, exists, recent, changed)

    def _remove(self, gone_uids: Sequence[Uid]) -> tuple[list[Uid], list[SeqNum]]:
        """Cut them out; UIDs and numbers of those that the client had been told of."""
        places = [bisect_left(self.uids, uid) for uid in gone_uids]
        known = bisect_left(places, self._exists_told)  # others came and went unseen
        expunged = [SeqNum(at + 1 - before) for before, at in enumerate(places[:known])]
        if len(places) <= FEW:
            for at in reversed(places):
                del self.uids[at]
        else:
            gone = self._gone
            self.uids = array("I", (uid for uid in self.uids if uid not in gone))
        self.recent.difference_update(gone_uids)
        self._gone = set()
        return list(gone_uids[:known]), expunged


class Tracker:
    """Who watches which mailbox in this process; hears of changes from the store and from other workers."""

    def __init__(self) -> None:
        self._views: dict[str, set[View]] = {}
        self.tell_others: Callable[[str], None] | None = None  # the bus between workers

    def enter(self, view: View) -> None:
        self._views.setdefault(view.mailbox.mailbox_id, set()).add(view)

    def leave(self, view: View) -> None:
        views = self._views.get(view.mailbox.mailbox_id)
        if views is not None:
            views.discard(view)
            if not views:
                del self._views[view.mailbox.mailbox_id]

    def mailbox_changed(self, mailbox_id: str) -> None:
        """StoreListener: something was changed through this process's store."""
        self.heard(mailbox_id)
        if self.tell_others is not None:
            self.tell_others(mailbox_id)

    def heard(self, mailbox_id: str) -> None:
        """Something was changed, here or in another worker."""
        for view in tuple(self._views.get(mailbox_id, ())):
            view.note_changed()
