"""What each session knows of its selected mailbox, and what it has still to be told.

A `View` maps sequence numbers to UIDs as *its* client counts them: a message that is gone keeps its number until the
client may be told (RFC 3501 §5.5, §7.4.1). The `Tracker` beside this tells views that their mailbox changed. Formatting is
the protocol's.
"""

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final, cast

from murder.api.store import Mailbox, TellsFlags, TellsRecent
from murder.model.message import (
    Changes,
    Flagged,
    MailboxStatus,
    Message,
    ModSeq,
    SeqNum,
    Uid,
    UidValidity,
    portion,
)
from murder.model.name import MailboxName
from murder.model.ordering import each_once, in_order
from murder.model.pieces import empty, put_into, set_of, slices, take_off
from murder.net.turns import Turn, aside, aside_if, free_aside, let_go_of
from murder.roles.backend.changes.changecache import ChangeCache
from murder.roles.backend.changes.looking import (
    EVERYTHING,
    PART,
    OwnChanges,
    each_changed,
    flagged_of,
    flags_of,
    known_up_to,
    looks,
)
from murder.roles.backend.changes.powers import TELLS_EXPUNGED, at_once

# messages whose flags are told at once; the others come behind them, and until then only their UIDs are kept
MOST_FLAGS: Final = PART
A_FEW: Final = 256  # messages that are let go of at once
MANY: Final = 1000  # messages of which more are counted aside
FEW: Final = 64  # so many removals are cut out one by one; more rebuild the array


@dataclass(frozen=True, slots=True)
class Updates:
    """What a client is to be told, in this order: removals, then counts, then flags.

    `expunged` are sequence numbers as they hold when each is told in turn; `vanished` the same messages' UIDs; `arrived`
    the UIDs that make `exists` larger, `foreign` those of them that others have put there. `recent` is told with `exists`,
    and when removals have made it smaller: clients subtract nothing (RFC 3501 §7.3.2).
    """

    expunged: Sequence[SeqNum] = ()
    vanished: Sequence[Uid] = ()
    exists: int | None = None
    recent: int | None = None
    changed: Sequence[tuple[SeqNum, Flagged]] = ()
    arrived: Sequence[Uid] = ()
    foreign: Sequence[Uid] = ()

    def __bool__(self) -> bool:
        return bool(self.expunged or self.changed) or self.exists is not None


@dataclass(frozen=True, slots=True)
class Happened:
    """What a look into the store has shown, whoever did it: of a large change a part. What is new is not in it."""

    changed: Sequence[Uid] = ()
    vanished: Sequence[Uid] = ()


class View:
    """One session's selected mailbox. Memory: four octets a message."""

    __slots__ = (
        "_added",
        "_arrived",
        "_changed",
        "_claimed",
        "_gone",
        "_last_uid",
        "_later",
        "_lock",
        "_made",
        "_mine",
        "_own",
        "_recent_told_elsewhere",
        "_settled",
        "cache",
        "interest",
        "is_dirty",
        "mailbox",
        "may_be_gone",
        "modseq",
        "on_dirty",
        "on_happened",
        "on_renamed",
        "read_only",
        "recent",
        "tell_numbers",
        "uid_validity",
        "uids",
        "was_taken_up",
    )

    def __init__(self, mailbox: Mailbox, read_only: bool) -> None:
        self.mailbox = mailbox
        self.tell_numbers = at_once(mailbox)
        self.read_only = read_only
        self.uid_validity = UidValidity(0)
        self.uids: array[int] = array("I")  # what the client knows of
        self.recent: MutableSet[Uid] = set()  # of what the client knows of: never more than it
        self.modseq = ModSeq(0)
        self.is_dirty = False
        self.may_be_gone = False  # a mailbox of this name has been deleted
        self.interest = EVERYTHING
        self.cache: ChangeCache | None = None  # with others that watch the mailbox
        self.on_dirty: Callable[[], None] | None = None
        self.on_happened: Callable[[Happened], None] | None = None
        self.on_renamed: Callable[[MailboxName, MailboxName], None] | None = None
        self._arrived: array[int] = array("I")  # what it has still to be told of
        # recent for this session, of what it has still to be told of
        self._claimed: MutableSet[Uid] = set()
        self._added: MutableSet[Uid] = set()  # put there by itself
        self._gone: MutableSet[Uid] = set()  # of what it knows
        self._mine: MutableSet[Uid] = set()  # removed by itself
        self._changed: dict[Uid, Flagged] = {}  # of `MOST_FLAGS` messages at most
        self._later: array[int] = array("I")  # of these, too, and how they are then
        self._own = OwnChanges()
        self._made = ModSeq(0)
        self._settled = ModSeq(0)  # all changes up to here have been told
        self._last_uid = 0
        # the client may have been told of more that is recent, by another server
        self._recent_told_elsewhere = False
        self.was_taken_up = False  # and NOTIFY has not been asked since
        self._lock: asyncio.Lock | None = None

    async def load(self) -> MailboxStatus:
        """Read the UIDs. What happens meanwhile is found by the first `poll`: the counts are taken first."""
        status = await self.mailbox.status()
        claimed = await self._claim()
        self.uids = array("I", await self.mailbox.uids())
        await self._note_claimed(claimed)
        self._claimed = set()  # they have gone since
        self.uid_validity = status.uid_validity
        self.modseq = self._settled = status.highest_modseq
        self._last_uid = max(self.uids[-1] if self.uids else 0, int(status.uid_next) - 1)
        self.is_dirty = True
        return replace(status, uid_next=Uid(self._last_uid + 1))

    async def take_up(self, uid_validity: int, modseq: ModSeq, exists: int, last_uid: Uid) -> bool:
        """Go on with what a client knows that had this mailbox selected elsewhere: all changes up to `modseq`, `exists`
        messages up to `last_uid`. Whether that fits what is here; the next `poll` finds what has happened since."""
        status = await self.mailbox.status()
        changes = await self.mailbox.changes(modseq)
        if status.uid_validity != uid_validity or not changes.complete:
            return False
        here = await self.mailbox.uids()
        is_much = len(here) + len(changes.vanished) > MANY
        known = await aside_if(is_much, known_up_to, last_uid, here, changes.vanished)
        self.uid_validity = status.uid_validity
        self.uids = known
        self.modseq = self._settled = modseq
        self._last_uid = last_uid
        self._recent_told_elsewhere = self.was_taken_up = True
        self.is_dirty = True
        if len(self.uids) != exists:
            return False
        if not self.read_only:
            await self._note_claimed(await self._claim())
        return True

    # --- numbers

    @property
    def exists(self) -> int:
        """How many messages the client believes in."""
        return len(self.uids)

    def seq_of(self, uid: int) -> SeqNum | None:
        """The client's number of a message; None if it has never heard of it."""
        at = bisect_left(self.uids, uid)
        if at < len(self.uids) and self.uids[at] == uid:
            return SeqNum(at + 1)
        return None

    def uid_of(self, seq: int) -> Uid:
        """Of the message that the client knows under this number."""
        return Uid(self.uids[seq - 1])

    def between(self, first: int, last: int) -> Sequence[int]:
        """The known UIDs from `first` to `last`, both included."""
        return self.uids[bisect_left(self.uids, first) : bisect_left(self.uids, last + 1)]

    async def messages(self, uids: Sequence[Uid]) -> Sequence[Message]:
        """These messages in UID order, with such as others have expunged and the client counts still, where the store has
        kept them for that."""
        present = await self.mailbox.messages(uids)
        if len(present) == len(uids):
            return present
        kept = await self.expunged(uids, {message.uid for message in present})
        return sorted((*present, *kept), key=lambda message: message.uid) if kept else present

    async def flagged(self, mailbox: TellsFlags, uids: Sequence[Uid]) -> Sequence[Flagged]:
        """As `messages`, by a power of the store."""
        present = await mailbox.flagged(uids)
        if len(present) == len(uids):
            return present
        kept = await self.expunged(uids, {message.uid for message in present})
        return sorted(
            (*present, *(Flagged(message.uid, message.flags, message.modseq) for message in kept))
        )

    async def expunged(
        self, uids: Iterable[Uid], but_for: Collection[Uid] = ()
    ) -> Sequence[Message]:
        """Those of these messages that the client counts and the store keeps although they were expunged."""
        keeping = TELLS_EXPUNGED.of(self.mailbox)
        if keeping is None:
            return ()
        counted = [uid for uid in uids if uid not in but_for and self.seq_of(uid) is not None]
        return await keeping.expunged(counted) if counted else ()

    def with_arrived(self) -> Sequence[int]:
        """All UIDs, also those that the client has still to be told of."""
        return self.uids + self._arrived if self._arrived else self.uids

    # --- what happened

    def note_changed(self) -> None:
        """The mailbox has changed, here or elsewhere."""
        self.is_dirty = True
        if self.on_dirty is not None:
            self.on_dirty()

    def mark_reported(self, messages: Iterable[Message | Flagged]) -> None:
        """The client knows the flags of these: it has just been told."""
        known, changed = self.modseq, self._changed
        for message in messages:
            if message.modseq > known:
                self._own.note(message)
            if changed:
                changed.pop(message.uid, None)

    def has_made(self, modseq: ModSeq) -> None:
        """The client has changed flags, and is told by who calls: by the change of this mod-sequence, 0 for none."""
        self._made = modseq

    def made(self, messages: Iterable[Message]) -> None:
        """The client made these flags, and knows without being told: unless others' changes were waiting beside them."""
        for message in messages:
            self._own.note(message)
            if message.uid in self._changed:
                self._changed[message.uid] = flagged_of(message)

    def queue_fetch(self, messages: Iterable[Message]) -> None:
        """The client has to be told the flags of these."""
        for message in messages:
            if message.uid not in self._gone and self.seq_of(message.uid) is not None:
                self._own.note(message)
                self._will_tell(message)

    async def added(self, uids: Collection[Uid]) -> None:
        """The client has put these messages there."""
        self._added = await aside_if(len(uids) > MANY, put_into, self._added, uids)

    async def removed(self, uids: Collection[Uid]) -> None:
        """The client has removed these."""
        known = await aside_if(len(uids) > MANY, self._known_of, uids)
        self._mine = await aside_if(len(known) > MANY, put_into, self._mine, known)

    def _known_of(self, uids: Iterable[Uid]) -> list[Uid]:
        """Those that the client counts."""
        known = self.uids[:]  # as `seq_of` does, without a call for each
        exists = len(known)
        return [
            uid for uid in uids if (at := bisect_left(known, uid)) < exists and known[at] == uid
        ]

    async def _claim(self) -> Collection[Uid]:
        """What is `\\Recent` for this session; EXAMINE leaves it so for others (RFC 3501 §6.3.2)."""
        if not self.read_only:
            return await self.mailbox.claim_recent()
        return await self.mailbox.recent() if isinstance(self.mailbox, TellsRecent) else ()

    async def _note_claimed(self, claimed: Collection[Uid]) -> None:
        """Messages that the client has still to be told of are counted when it is (RFC 3501 §7.3.2)."""
        if claimed:
            await aside_if(len(claimed) > MANY, self._count_claimed, claimed)

    def _count_claimed(self, claimed: Collection[Uid]) -> None:
        known = set_of(self._known_of(claimed))
        self.recent = put_into(self.recent, known)
        self._claimed = put_into(self._claimed, (uid for uid in claimed if uid not in known))

    def leave(self) -> None:
        """Nobody looks at it any more."""
        for uids in (self.recent, self._claimed, self._added, self._gone, self._mine):
            free_aside(uids)

    @property
    def last_uid(self) -> int:
        """Of all that it has seen, told or not."""
        return self._last_uid

    async def recent_up_to(self, last_uid: int) -> int:
        """How many messages up to there are `\\Recent` for this session and not known to be gone, told or not."""
        is_much = len(self._gone) + len(self._claimed) > MANY
        return await aside_if(is_much, self._count_recent, last_uid)

    def _count_recent(self, last_uid: int) -> int:
        recent, gone = self.recent, self._gone
        here = len(recent) - sum(uid in recent for uid in list(gone))
        return here + sum(uid <= last_uid and uid not in gone for uid in list(self._claimed))

    def steady(self) -> asyncio.Lock:
        """While it is held, `poll` changes nothing."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    async def poll(self) -> None:
        """Ask the store what happened, and keep it until the client may be told."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        if (
            (tell := self.tell_numbers) is not None
            and not self._lock.locked()
            and (numbers := tell()) is not None
        ):
            modseq, known = numbers[2], self.modseq
            is_own = modseq == self._made == known + 1 and self.on_happened is None
            if modseq <= known or is_own:  # mostly nothing has, or what this client did and knows
                self.is_dirty = False
                if is_own:
                    self.modseq = ModSeq(modseq)
                self._own.clear()
                return
        if len(self.uids) > A_FEW:
            async with looks(self.mailbox.name), self._lock:
                await self._look()
        else:
            async with self._lock:
                await self._look()

    async def _look(self) -> None:
        """With the lock."""
        self.is_dirty = False
        cache = self.cache
        if cache is not None:
            changes = await cache.changes(self.mailbox, self.modseq)
        else:
            changes = await self.mailbox.changes(self.modseq)
        vanished = await self._note_vanished(changes)
        newest, last_uid = changes.highest_modseq, self._last_uid
        if not changes.many and len(changes.changed) <= PART:
            self._note(changes.changed, newest)
        else:
            turn = Turn()
            async for some in each_changed(changes, self.flags_of):
                self._note(some, newest)
                if len(self._later) > len(self.uids) + MOST_FLAGS:
                    self._later = await aside(each_once, self._later)
                if turn.is_over:
                    await turn.rest()
        self._own.forget(newest)  # the next poll meets what is newer
        self.modseq = max(self.modseq, newest)
        if self.on_happened is not None and vanished:
            await self._has_vanished(vanished)
        if self._last_uid != last_uid:
            await self._note_claimed(await self._claim())
        if len(changes.changed) > A_FEW:
            messages = list(changes.changed)
            del changes
            await let_go_of(messages)

    async def flags_of(self, uids: Sequence[Uid]) -> Sequence[Message | Flagged]:
        """How the flags of these messages (ascending) are now."""
        if self.cache is None:
            return await flags_of(self.mailbox, uids)
        return await self.cache.flagged(self.mailbox, uids)

    def _note(self, messages: Sequence[Message | Flagged], newest: ModSeq) -> None:
        """These have changed, in UID order. What is newer than `newest` comes again with the next look: a client that hears
        of a mod-sequence takes it that it knows all before it."""
        changed: list[Uid] = []
        known, exists, own, gone = self.uids, len(self.uids), self._own, self._gone
        for message in messages:
            uid = message.uid
            if uid > self._last_uid:
                self._arrived.append(uid)
                self._last_uid = uid
                if message.modseq > newest:
                    own.note(message)
            elif message.modseq <= newest and uid not in gone:
                changed.append(uid)
                if own and own.has(message):
                    continue
                at = bisect_left(known, uid)  # as `seq_of` does, without a call for each
                if at < exists and known[at] == uid:
                    self._will_tell(message)
        if changed and self.on_happened is not None:
            self.on_happened(Happened(changed))

    async def _has_vanished(self, vanished: Sequence[Uid]) -> None:
        turn = Turn()
        for some in slices(vanished):
            if self.on_happened is not None:
                self.on_happened(Happened(vanished=some))
            if turn.is_over:
                await turn.rest()

    async def _note_vanished(self, changes: Changes) -> Sequence[Uid]:
        if changes.complete:
            vanished: Sequence[Uid] = changes.vanished
        else:
            vanished = await aside_if(
                len(self.uids) > MANY, self._missing_from, await self.mailbox.uids()
            )
        if vanished:
            await aside_if(len(vanished) > MANY, self._let_go, vanished)
        return vanished

    def _missing_from(self, present: Iterable[Uid]) -> list[Uid]:
        there = set_of(present)
        counted = chain(cast(Sequence[Uid], self.with_arrived()), tuple(self._claimed))
        return in_order(list(set_of(uid for uid in counted if uid not in there)))

    def _let_go(self, vanished: Sequence[Uid]) -> None:
        """These are gone: of what the client knows of, and of what waits."""
        if self._arrived or self._claimed or self._added:
            gone = set_of(vanished)
            self._arrived = array("I", (uid for uid in self._arrived if uid not in gone))
            take_off(self._claimed, vanished)
            take_off(self._added, vanished)
        known = self._known_of(vanished)
        self._gone = put_into(self._gone, known)
        if self._changed:
            for uid in known:
                self._changed.pop(uid, None)

    def _will_tell(self, message: Message | Flagged) -> None:
        if len(self._changed) < MOST_FLAGS or message.uid in self._changed:
            self._changed[message.uid] = flagged_of(message)
            return
        self._later.append(message.uid)

    async def look_at_more(self) -> None:
        """Behind `take_flags`: how the flags are now of the next messages that are to be told."""
        if self._changed or not self._later:
            return
        async with self.steady():
            chosen = [Uid(uid) for uid in self._later[:MOST_FLAGS]]
            del self._later[:MOST_FLAGS]
            messages = await self.flags_of(sorted(set(chosen)))
            known, exists, gone = self.uids, len(self.uids), self._gone
            for message in messages:
                uid = message.uid
                at = bisect_left(known, uid)
                is_known = at < exists and known[at] == uid and uid not in gone
                if is_known and message.modseq <= self.modseq:  # the next poll meets what is newer
                    self._changed[uid] = flagged_of(message)

    @property
    def has_pending(self) -> bool:
        """Whether something waits to be told."""
        return bool(self._gone or self._changed or self._later or self._arrived)

    @property
    def gone(self) -> AbstractSet[Uid]:
        """Messages that no longer exist although the client counts them."""
        return self._gone

    def has_tellable(self, *, removals: bool) -> bool:
        """Whether any of it may be told, by what the client wants and by the moment."""
        wanted = self.interest
        return bool(
            (self._arrived and wanted.arrivals)
            or ((self._changed or self._later) and wanted.flags)
            or (
                removals
                and self._gone
                and (wanted.removals or not self._gone.isdisjoint(self._mine))
            )
        )

    @property
    def settled(self) -> ModSeq:
        """The client has been told of all changes up to this mod-sequence."""
        return self._settled

    @property
    def told_up_to(self) -> ModSeq:
        """The client knows of all removals up to this mod-sequence."""
        return self._settled if self._gone else self.modseq

    @property
    def delayed_from(self) -> ModSeq | None:
        """Where removals wait: all changes up to this mod-sequence have been told (RFC 7162 §3.2)."""
        return self._settled if self._gone else None

    @property
    def has_many(self) -> bool:
        """Whether `take` is so much work that it belongs aside, while the view is `steady`."""
        return len(self._gone) + len(self._arrived) > MANY

    def take(self, *, removals: bool) -> Updates:
        """What is to be told now. Without `removals` (FETCH, STORE, SEARCH run) numbers stay as they are."""
        if not self.has_pending:
            self._settled = self.modseq
            return Updates()
        expunged: list[SeqNum] = []
        recent = len(self.recent)
        gone: Collection[Uid] = self._gone if self.interest.removals else self._gone & self._mine
        vanished = in_order(list(gone)) if removals else []
        if vanished:
            expunged = self._remove(vanished)
        arrived: Sequence[Uid] = ()
        foreign: Sequence[Uid] = ()
        if self.interest.arrivals and self._arrived:
            arrived = [Uid(uid) for uid in self._arrived]
            foreign = [uid for uid in arrived if uid not in self._added]
            self.uids.extend(self._arrived)
            claimed = self._claimed
            self.recent = put_into(self.recent, (uid for uid in arrived if uid in claimed))
            take_off(self._claimed, arrived)
            self._arrived = array("I")
            added, self._added = self._added, set()
            empty(added)
        changed = self.take_flags()
        self.settle()
        is_less = len(self.recent) != recent or (self._recent_told_elsewhere and bool(vanished))
        if arrived or is_less:
            self._recent_told_elsewhere = False
        return Updates(
            expunged,
            vanished,
            len(self.uids) if arrived else None,
            len(self.recent) if arrived or is_less else None,
            changed,
            arrived,
            foreign,
        )

    def take_flags(self) -> list[tuple[SeqNum, Flagged]]:
        """The flags that are to be told now, of at most `MOST_FLAGS` messages; what `has_more_flags` tells of comes next."""
        if not self.interest.flags:
            self._changed = {}
            self._later = array("I")
            return []
        taken = list(islice(self._changed.items(), MOST_FLAGS))
        del taken[portion([message for _, message in taken]) :]
        if len(taken) == len(self._changed):
            self._changed = {}
        else:
            for uid, _ in taken:
                del self._changed[uid]
        known, exists = self.uids, len(self.uids)
        return [
            (SeqNum(at + 1), message)
            for uid, message in taken
            if (at := bisect_left(known, uid)) < exists and known[at] == uid
        ]

    @property
    def has_more_flags(self) -> bool:
        """Whether `take` has left flags that may be told at the same moment."""
        return bool(self._changed or self._later)

    def settle(self) -> bool:
        """All flags have been told, too. Whether nothing waits to be told."""
        if self.has_pending:
            return False
        self._settled = self.modseq
        return True

    def _remove(self, gone: Sequence[Uid]) -> list[SeqNum]:
        """Cut out messages that the client knows; their numbers."""
        if len(gone) <= FEW:
            places = [bisect_left(self.uids, uid) for uid in gone]
            for at in reversed(places):
                del self.uids[at]
        else:
            left_out = set_of(gone)
            places = [at for at, uid in enumerate(self.uids) if uid in left_out]
            self.uids = array("I", (uid for uid in self.uids if uid not in left_out))
        for uids in (self.recent, self._gone, self._mine):
            take_off(uids, gone)
        return [SeqNum(at + 1 - before) for before, at in enumerate(places)]
