"""A mailbox store in memory: for tests, and the contract's reference. Nothing survives the process.

One process only (`workers = 1`); what the contract calls durable lasts as long as the process does.
"""

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from murder.api import (
    CarriedMessage,
    CarriedRetained,
    FlagChange,
    MailboxStore,
    NewMessage,
    Retained,
    Retention,
    Stored,
    StoredMailbox,
    StoreListener,
    Untold,
    hookimpl,
)
from murder.errors import Code, Refusal
from murder.kit.flags import too_many
from murder.model.carried import CarriedIdentity, Held, Portrait
from murder.model.flag import fits_message, is_keyword
from murder.model.message import (
    MAX_UID,
    Changes,
    MailboxStatus,
    Message,
    ModSeq,
    Uid,
    UidValidity,
)
from murder.model.name import (
    MailboxName,
    display,
    exists_already,
    no_such_mailbox,
    owner_of,
)

SEEN, DELETED = "\\Seen", "\\Deleted"


@hookimpl
def make_store(settings: object, data_dir: Path) -> MailboxStore:
    return MemoryStore()


class MemoryIncoming:
    """A message on its way in."""

    def __init__(self) -> None:
        self._octets = bytearray()

    @property
    def size(self) -> int:
        return len(self._octets)

    async def write(self, data: bytes | memoryview) -> None:
        self._octets += data

    def octets(self) -> memoryview:
        """A copy: what is written later is not in it."""
        return memoryview(bytes(self._octets))

    async def close(self) -> None:
        self._octets = bytearray()


@dataclass(slots=True)
class _Kept:
    """One message: its row and its octets."""

    message: Message
    octets: bytes
    summary: bytes | None = None
    seen_by: set[str] = field(default_factory=set)


MOST_GONE: Final = 1000  # of a mailbox


@dataclass(slots=True)
class _Gone:
    """One that was expunged `at` that moment, may still be read by these, and, where it is retained, may come back."""

    kept: _Kept
    removed: ModSeq
    holders: int
    at: datetime
    retained: bool


@dataclass(slots=True)
class _Box:
    """One mailbox as it is kept."""

    name: MailboxName
    mailbox_id: str
    uid_validity: UidValidity
    kept: dict[Uid, _Kept] = field(default_factory=dict)
    gone: dict[Uid, "_Gone"] = field(default_factory=dict)
    vanished: list[tuple[ModSeq, Uid]] = field(default_factory=list)
    uid_next: int = 1
    highest_modseq: int = 1
    recent_from: int = 1
    frozen: bool = False
    deleted: bool = False

    def check_frozen(self) -> None:
        if self.frozen:
            raise Refusal(
                Code.IN_USE, "This mailbox is moving to another server: try again in a moment"
            )

    def next_modseq(self) -> ModSeq:
        self.check_frozen()
        self.highest_modseq += 1
        return ModSeq(self.highest_modseq)


class MemoryMailbox:
    """A mailbox, as one reader sees it."""

    def __init__(
        self,
        box: _Box,
        reader: str,
        tell: Callable[[str], None],
        holders: Callable[["MemoryMailbox"], int],
        retains: Callable[[], bool],
    ) -> None:
        self._retains = retains
        self._holders = holders
        self._opened = box
        self._reader = reader
        self._tell = tell
        self._is_own = owner_of(box.name) == reader

    @property
    def name(self) -> MailboxName:
        return self._opened.name

    @property
    def mailbox_id(self) -> str:
        return self._opened.mailbox_id

    @property
    def _box(self) -> _Box:
        if self._opened.deleted:
            raise Refusal(Code.NONEXISTENT, "This mailbox has been deleted")
        return self._opened

    def _seen(self, kept: _Kept) -> Message:
        """The row with this reader's own `\\Seen`."""
        message = kept.message
        if self._is_own:
            return message
        flags = message.flags - {SEEN}
        return replace(message, flags=flags | {SEEN} if self._reader in kept.seen_by else flags)

    async def status(self) -> MailboxStatus:
        rows = [self._seen(kept) for kept in self._box.kept.values()]
        return MailboxStatus(
            messages=len(rows),
            unseen=sum(SEEN not in row.flags for row in rows),
            deleted=sum(DELETED in row.flags for row in rows),
            size=sum(row.size for row in rows),
            uid_next=Uid(self._box.uid_next),
            uid_validity=self._box.uid_validity,
            highest_modseq=ModSeq(self._box.highest_modseq),
            recent=sum(uid >= self._box.recent_from for uid in self._box.kept),
        )

    async def uids(self) -> Sequence[Uid]:
        return list(self._box.kept)

    async def messages(self, uids: Sequence[Uid] | None = None) -> Sequence[Message]:
        chosen = self._box.kept if uids is None else sorted(set(uids))
        return [self._seen(self._box.kept[uid]) for uid in chosen if uid in self._box.kept]

    async def find_by_flag(
        self, flag: str, *, present: bool = True, most: int | None = None
    ) -> Sequence[Uid]:
        rows = [self._seen(kept) for kept in self._box.kept.values()]
        return [row.uid for row in rows if (flag in row.flags) == present][:most]

    async def changes(self, since: ModSeq) -> Changes:
        box = self._box
        if since >= box.highest_modseq:
            return Changes(ModSeq(box.highest_modseq), (), ())
        changed = [self._seen(kept) for kept in box.kept.values() if kept.message.modseq > since]
        vanished = sorted(uid for modseq, uid in box.vanished if modseq > since)
        return Changes(ModSeq(box.highest_modseq), changed, vanished)

    async def octets(self, uid: Uid) -> memoryview:
        return memoryview(self._kept(uid).octets)

    def _kept(self, uid: Uid) -> _Kept:
        box = self._box
        kept = box.kept.get(uid) or (box.gone[uid].kept if uid in box.gone else None)
        if kept is None:
            raise Refusal(Code.EXPUNGE_ISSUED, f"Message {uid} is no longer there")
        return kept

    async def append(self, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        now = datetime.now(UTC)
        rows = []
        for new in messages:
            octets = bytes(new.incoming.octets())
            date = new.internal_date or now
            sizes = len(octets), new.told_size
            named = new.email_id or _new_id()
            row = Message(
                Uid(0), new.flags, date, sizes[0], ModSeq(0), now, named, told_size=sizes[1]
            )
            rows.append((row, octets))
        return self._add(rows)

    def _add(self, rows: Iterable[tuple[Message, bytes]]) -> list[Uid]:
        box, added = self._box, []
        modseq = box.next_modseq()
        for row, octets in rows:
            uid = Uid(box.uid_next)
            if uid >= MAX_UID:
                raise Refusal(Code.LIMIT, "This mailbox has used up its UIDs")
            box.uid_next += 1
            kept = _Kept(replace(row, uid=uid, modseq=modseq), octets)
            if not self._is_own and SEEN in row.flags:  # the reader's own, not the owner's
                kept.seen_by.add(self._reader)
                kept.message = replace(kept.message, flags=row.flags - {SEEN})
            box.kept[uid] = kept
            added.append(uid)
        self._tell(box.mailbox_id)
        return added

    async def change_flags(
        self,
        uids: Sequence[Uid],
        change: FlagChange,
        flags: frozenset[str],
        unchanged_since: ModSeq | None = None,
    ) -> Stored:
        box = self._box
        done, modified, modseq = [], [], None
        chosen = sorted(set(uids) & box.kept.keys())
        for uid in chosen:  # all of it, or nothing
            changed_flags(box.kept[uid].message.flags, change, flags)
        for uid in chosen:
            kept = box.kept[uid]
            if unchanged_since is not None and kept.message.modseq > unchanged_since:
                modified.append(uid)
                continue
            before = self._seen(kept).flags
            after = changed_flags(before, change, flags)
            if after != before:
                modseq = modseq or box.next_modseq()
                self._put_flags(kept, after, modseq)
            done.append(self._seen(kept))
        if modseq is not None:
            self._tell(box.mailbox_id)
        return Stored(done, modified)

    def _put_flags(self, kept: _Kept, flags: frozenset[str], modseq: ModSeq) -> None:
        if not self._is_own:
            (kept.seen_by.add if SEEN in flags else kept.seen_by.discard)(self._reader)
            flags = (flags - {SEEN}) | (kept.message.flags & {SEEN})
        kept.message = replace(kept.message, flags=flags, modseq=modseq)

    async def step_modseq(self) -> None:
        self._box.next_modseq()

    async def expunge(self, uids: Sequence[Uid]) -> Sequence[Uid]:
        """Others who have the mailbox open may read what has gone until they are told."""
        return self._remove(uids, self._retains())

    def _remove(self, uids: Sequence[Uid], retained: bool) -> list[Uid]:
        box = self._box
        gone = sorted(set(uids) & box.kept.keys())
        if gone:
            modseq, holders = box.next_modseq(), self._holders(self)
            for uid in gone:
                kept = box.kept.pop(uid)
                if (holders or retained) and len(box.gone) < MOST_GONE:
                    box.gone[uid] = _Gone(kept, modseq, holders, datetime.now(UTC), retained)
                box.vanished.append((modseq, uid))
            self._tell(box.mailbox_id)
        return gone

    async def expunged(self, uids: Sequence[Uid]) -> Sequence[Message]:
        gone = self._box.gone
        return [self._seen(gone[uid].kept) for uid in sorted(set(uids) & gone.keys())]

    def let_go(self, up_to: ModSeq, holders: int) -> None:
        for uid, gone in list(self._opened.gone.items()):
            if gone.removed <= up_to:
                gone.holders &= ~holders
            if not gone.holders and not gone.retained:
                del self._opened.gone[uid]

    async def retained(self, after: Uid, most: int) -> Sequence[Retained]:
        gone = sorted(
            (uid, expunged) for uid, expunged in self._box.gone.items() if expunged.retained
        )
        return [
            Retained(expunged.kept.message, expunged.at) for uid, expunged in gone if uid > after
        ][:most]

    async def restore(self, uids: Sequence[Uid]) -> Mapping[Uid, Uid]:
        box = self._box
        box.check_frozen()
        chosen = sorted(uid for uid in set(uids) & box.gone.keys() if box.gone[uid].retained)
        modseq = box.next_modseq() if chosen else ModSeq(0)
        back: dict[Uid, Uid] = {}
        for old in chosen:
            gone, new = box.gone[old], Uid(box.uid_next)
            flags = gone.kept.message.flags - {DELETED}
            message = replace(gone.kept.message, uid=new, modseq=modseq, flags=flags)
            box.kept[new] = replace(gone.kept, message=message, seen_by=set(gone.kept.seen_by))
            box.uid_next += 1
            back[old] = new
            gone.retained = False
            if not gone.holders:
                del box.gone[old]
        if back:
            self._tell(box.mailbox_id)
        return back

    async def copy(self, uids: Sequence[Uid], target: object) -> Mapping[Uid, Uid]:
        assert isinstance(target, MemoryMailbox)
        sources = sorted(set(uids) & self._box.kept.keys())
        now = datetime.now(UTC)
        rows = [
            (replace(self._seen(self._box.kept[uid]), save_date=now), self._box.kept[uid].octets)
            for uid in sources
        ]
        return dict(zip(sources, target._add(rows) if rows else [], strict=True))

    async def move(self, uids: Sequence[Uid], target: object) -> Mapping[Uid, Uid]:
        self._box.check_frozen()
        copied = await self.copy(uids, target)
        self._remove(list(copied), False)
        return copied

    async def recent(self) -> Collection[Uid]:
        return {uid for uid in self._box.kept if uid >= self._box.recent_from}

    async def keywords(self) -> Collection[str]:
        flags = {flag for kept in self._box.kept.values() for flag in kept.message.flags}
        return {flag for flag in flags if not flag.startswith("\\")}

    async def claim_recent(self) -> Collection[Uid]:
        """Nothing while the mailbox moves."""
        if self._box.frozen:
            return ()
        recent = await self.recent()
        self._box.recent_from = self._box.uid_next
        return recent

    async def keep_told_size(self, uid: Uid, size: int) -> None:
        kept = self._box.kept.get(uid)
        if kept is not None:
            kept.message = replace(kept.message, told_size=size)

    async def told_octets(self) -> int:
        rows = [kept.message for kept in self._box.kept.values()]
        return sum(row.rfc822_size - row.size for row in rows)

    async def summary(self, uid: Uid) -> bytes | None:
        """As long as the process lives."""
        return self._kept(uid).summary

    async def keep_summary(self, uid: Uid, summary: bytes) -> None:
        if uid in self._box.kept:
            self._box.kept[uid].summary = summary

    def close(self) -> None:
        pass


class MemoryStore:
    """All mailboxes, by name."""

    def __init__(self) -> None:
        self._boxes: dict[MailboxName, _Box] = {}
        self._subscriptions: dict[str, set[MailboxName]] = {}
        self._listeners: list[StoreListener] = []
        self._untold: Untold | None = None
        self._retention = Retention()
        self._uid_validity = int(time.time())

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def _tell(self, mailbox_id: str) -> None:
        for listener in self._listeners:
            listener.mailbox_changed(mailbox_id)

    async def mailboxes(self) -> Sequence[StoredMailbox]:
        return [_described(box) for box in self._boxes.values()]

    async def create(
        self, name: MailboxName, partition: str, mailbox_id: str = ""
    ) -> StoredMailbox:
        if name in self._boxes:
            raise exists_already(name)
        self._uid_validity += 1
        box = _Box(name, mailbox_id or _new_id(), UidValidity(self._uid_validity))
        self._boxes[name] = box
        return _described(box)

    async def delete(self, name: MailboxName) -> None:
        """Done twice it is no error; who has it open hears NONEXISTENT from then on."""
        box = self._boxes.pop(name, None)
        if box is not None:
            box.deleted = True
            self._tell(box.mailbox_id)

    async def rename(self, old: MailboxName, new: MailboxName) -> None:
        """Done twice it is no error: the second time the new name is there."""
        box = self._boxes.get(old)
        if box is None:
            if new in self._boxes:
                return
            raise no_such_mailbox(old)
        if new in self._boxes:
            raise exists_already(new)
        box.name = new
        self._boxes[new] = self._boxes.pop(old)

    async def open(self, name: MailboxName, reader: str) -> MemoryMailbox:
        box = self._boxes.get(name)
        if box is None:
            raise no_such_mailbox(name)
        return MemoryMailbox(box, reader, self._tell, self._holders, self._retains)

    async def modseq_of(self, name: MailboxName) -> tuple[str, ModSeq] | None:
        """See murder.api.store.TellsModSeq."""
        box = self._boxes.get(name)
        return (box.mailbox_id, ModSeq(box.highest_modseq)) if box is not None else None

    def incoming(self) -> MemoryIncoming:
        return MemoryIncoming()

    async def subscriptions(self, user: str) -> Collection[MailboxName]:
        return frozenset(self._subscriptions.get(user, ()))

    async def subscribe(self, user: str, name: MailboxName, subscribed: bool) -> None:
        names = self._subscriptions.setdefault(user, set())
        (names.add if subscribed else names.discard)(name)

    def watch(self, listener: StoreListener) -> None:
        self._listeners.append(listener)

    def keep_for(self, untold: Untold) -> None:
        self._untold = untold

    def retain(self, retention: Retention) -> None:
        self._retention = retention

    def _retains(self) -> bool:
        return self._retention.keep_s > 0

    async def purge(self) -> int:
        count, over = 0, datetime.now(UTC) - timedelta(seconds=self._retention.keep_s)
        for box in self._boxes.values():
            for uid, gone in list(box.gone.items()):
                if gone.retained and gone.at <= over:
                    count += 1
                    gone.retained = False
                    if not gone.holders:
                        del box.gone[uid]
        return count

    def _holders(self, mailbox: MemoryMailbox) -> int:
        return 0 if self._untold is None else self._untold.holders(mailbox)

    # --- murder.api.CarriesMailboxes

    def _box(self, name: MailboxName) -> _Box:
        box = self._boxes.get(name)
        if box is None:
            raise no_such_mailbox(name)
        return box

    async def portrait(self, name: MailboxName, since: ModSeq) -> Portrait:
        box = self._box(name)
        seen: dict[str, list[Uid]] = {}
        for uid, kept in box.kept.items():
            for reader in kept.seen_by:
                seen.setdefault(reader, []).append(uid)
        return Portrait(
            CarriedIdentity(box.mailbox_id, box.uid_validity),
            Uid(box.uid_next),
            ModSeq(box.highest_modseq),
            sorted(pair for pair in box.vanished if pair[0] > since),
            seen,
            Uid(box.recent_from),
        )

    async def rows(
        self, name: MailboxName, since: ModSeq, after: Uid, most: int
    ) -> Sequence[Message]:
        rows = [kept.message for kept in self._box(name).kept.values()]
        return [row for row in rows if row.modseq > since and row.uid > after][:most]

    async def freeze(self, name: MailboxName, frozen: bool) -> None:
        self._box(name).frozen = frozen

    async def is_frozen(self, name: MailboxName) -> bool:
        return self._box(name).frozen

    async def hold(self, name: MailboxName, partition: str, identity: CarriedIdentity) -> Held:
        box = self._boxes.get(name)
        if box is None:
            box = _Box(name, identity.mailbox_id, identity.uid_validity, highest_modseq=0)
            self._boxes[name] = box
            self._uid_validity = max(self._uid_validity, identity.uid_validity)
        elif (box.mailbox_id, box.uid_validity) != (identity.mailbox_id, identity.uid_validity):
            raise Refusal(Code.ALREADY_EXISTS, f"Another {display(name)} is here already")
        return Held(ModSeq(box.highest_modseq), list(box.kept))

    async def receive(self, name: MailboxName, messages: Sequence[CarriedMessage]) -> None:
        box = self._box(name)
        for carried in messages:
            uid, kept = carried.message.uid, box.kept.get(carried.message.uid)
            if kept is not None:
                kept.message = carried.message
            elif carried.incoming is None:
                raise Refusal(Code.CANNOT, f"The octets of message {uid} were not received")
            else:
                box.kept[uid] = _Kept(carried.message, bytes(carried.incoming.octets()))
            box.uid_next = max(box.uid_next, uid + 1)
        box.kept = dict(sorted(box.kept.items()))

    async def receive_retained(
        self, name: MailboxName, after: Uid, up_to: Uid, messages: Sequence[CarriedRetained]
    ) -> None:
        """See murder.api.CarriesRetained."""
        box, stay = self._box(name), {carried.message.uid for carried in messages}
        for uid, gone in list(box.gone.items()):
            if after < uid <= up_to and gone.retained and uid not in stay:
                del box.gone[uid]
        for carried in messages:
            if carried.incoming is not None and carried.message.uid not in box.gone:
                kept = _Kept(carried.message, bytes(carried.incoming.octets()))
                box.gone[carried.message.uid] = _Gone(kept, ModSeq(0), 0, carried.at, True)

    async def complete(self, name: MailboxName, portrait: Portrait) -> None:
        box = self._box(name)
        for modseq, uid in portrait.expunged:
            box.kept.pop(uid, None)
            if (modseq, uid) not in box.vanished:
                box.vanished.append((modseq, uid))
        for kept in box.kept.values():
            kept.seen_by.clear()
        for reader, uids in portrait.seen.items():
            for uid in uids:
                if uid in box.kept:
                    box.kept[uid].seen_by.add(reader)
        box.uid_next = max(box.uid_next, portrait.uid_next)
        box.recent_from = max(box.recent_from, portrait.recent_from)
        box.highest_modseq = portrait.highest_modseq


def changed_flags(
    before: frozenset[str], change: FlagChange, flags: frozenset[str]
) -> frozenset[str]:
    """The flags after a STORE; keywords keep the spelling they have. Raises Refusal(LIMIT): see `kit.flags`."""
    known = {flag.lower(): flag for flag in before}
    named = {known.get(flag.lower(), flag) for flag in flags}
    match change:
        case FlagChange.ADD:
            after = before | named
        case FlagChange.REMOVE:
            after = before - named
        case FlagChange.REPLACE:
            after = frozenset(named)
    if len(after) > len(before) and not fits_message([flag for flag in after if is_keyword(flag)]):
        raise too_many()
    return after


def _described(box: _Box) -> StoredMailbox:
    return StoredMailbox(box.name, box.mailbox_id, box.uid_validity)


def _new_id() -> str:
    return secrets.token_hex(10)
