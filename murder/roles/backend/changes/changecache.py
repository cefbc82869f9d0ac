"""What sessions that watch the same mailbox read and say alike: a change of all of it wakes all of them, and each is to be
told the same. The first to look pays for it; the others take what it has made.

What is kept is of the mailbox's numbers (`murder.api.store.TellsAtOnce`), which are asked before anything of it is used,
whichever process has changed the mailbox; nothing newer than these numbers is kept. Kept while several watch. Bounded over
all mailboxes of the process: what was used longest ago goes first, and is then read and formatted anew.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from murder.api.store import Mailbox, Numbers
from murder.model.message import Changes, Flagged, Message, ModSeq, SeqNum, Uid
from murder.net.turns import free_aside
from murder.roles.backend.changes.looking import flags_of
from murder.roles.backend.changes.powers import at_once

# some 200 octets each: a message, four flags of one, so much of responses. 20 MB at most
MOST_KEPT: Final = 100_000
MOST_FLAGS_KEPT: Final = 32  # of one message; one with more is read by each
OCTETS_EACH: Final = 200
FLAGS_EACH: Final = 4
MESSAGE_SIZE: Final = 4  # of one with its dates

Told = Sequence[tuple[SeqNum, Flagged]]
# what decides how responses look: what the client has enabled, their number, the first and the last
BlockKey = tuple[bool, bool, bool, int, tuple[SeqNum, Flagged], tuple[SeqNum, Flagged]]


@dataclass(frozen=True, slots=True)
class Block:
    """Responses for these messages, none of them recent. `keywords`: the client has to know them before."""

    told: Told
    keywords: frozenset[str]
    octets: bytes


class ChangeCache:
    """Of one mailbox, as one reader sees it."""

    __slots__ = (
        "_blocks",
        "_caches",
        "_changes",
        "_flagged",
        "_lock",
        "_numbers",
        "key",
        "size",
        "watching",
    )

    def __init__(self, caches: "ChangeCaches", key: tuple[str, str]) -> None:
        self._caches = caches
        self.key = key
        self._numbers: Numbers | None = None  # those of what is kept
        self._flagged: dict[Uid, Flagged | Message] = {}
        self._changes: dict[ModSeq, Changes] = {}
        self._blocks: dict[BlockKey, Block] = {}
        self._lock = asyncio.Lock()  # what one reads, others wait for
        self.size = 0
        self.watching = 0  # sessions

    @property
    def is_shared(self) -> bool:
        return self.watching > 1

    def clear(self) -> None:
        free_aside(self._flagged)
        self._flagged, self._changes, self._blocks = {}, {}, {}
        self._caches.has_cleared(self)
        self.size = 0

    async def flagged(self, mailbox: Mailbox, uids: Sequence[Uid]) -> Sequence[Flagged | Message]:
        """How the flags of these (ascending) are now; of those that there are."""
        if not self.is_shared or self._numbers_now(mailbox) is None:
            return await flags_of(mailbox, uids)
        if (together := self._all_of(uids)) is not None:
            return together
        async with self._lock:
            numbers = self._numbers_now(mailbox)
            if numbers is None:
                return await flags_of(mailbox, uids)
            if (together := self._all_of(uids)) is not None:
                return together
            known = self._flagged
            kept = {uid: known[uid] for uid in uids if uid in known}
            missing = [uid for uid in uids if uid not in kept]
            read = {message.uid: message for message in await flags_of(mailbox, missing)}
        few = [it for it in read.values() if self._is_kept(it, numbers)]
        if self._takes(numbers, sum([1 + len(it.flags) // FLAGS_EACH for it in few])):
            self._flagged.update([(it.uid, it) for it in few])
        kept.update(read)
        return [kept[uid] for uid in uids if uid in kept]

    async def changes(self, mailbox: Mailbox, since: ModSeq) -> Changes:
        """See `Mailbox.changes`."""
        if not self.is_shared:
            return await mailbox.changes(since)
        async with self._lock:
            numbers = self._numbers_now(mailbox)
            if numbers is None:
                return await mailbox.changes(since)
            known = self._changes.get(since)
            if known is not None:
                return known
            read = await mailbox.changes(since)
        if read.highest_modseq == numbers[2]:
            flags = sum([len(message.flags) for message in read.changed]) // FLAGS_EACH
            uids = (len(read.many) + len(read.vanished)) // 5
            if self._takes(numbers, 1 + MESSAGE_SIZE * len(read.changed) + flags + uids):
                self._changes[since] = read
        return read

    def _numbers_now(self, mailbox: Mailbox) -> Numbers | None:
        """Those of the mailbox, and of all that is kept now; None where the store does not say."""
        tell = at_once(mailbox)
        numbers = None if tell is None else tell()
        if numbers is not None and numbers != self._numbers:
            self.clear()
            self._numbers = numbers
        return numbers

    def _all_of(self, uids: Sequence[Uid]) -> Sequence[Flagged | Message] | None:
        known = self._flagged
        try:
            return [known[uid] for uid in uids]
        except KeyError:
            return None

    @staticmethod
    def _is_kept(message: Flagged | Message, numbers: Numbers) -> bool:
        """What was changed while it was read is not of these numbers."""
        return message.modseq <= numbers[2] and len(message.flags) <= MOST_FLAGS_KEPT

    def block(self, key: BlockKey, messages: Told) -> Block | None:
        """What has been formatted for exactly these."""
        block = self._blocks.get(key)
        return block if block is not None and block.told == messages else None

    def keep_block(self, key: BlockKey, block: Block) -> None:
        flags = sum([1 + len(message.flags) // FLAGS_EACH for _, message in block.told])
        if self._takes(self._numbers, flags + len(block.octets) // OCTETS_EACH):
            self._blocks[key] = block

    def _takes(self, numbers: Numbers | None, size: int) -> bool:
        """Whether there is room for so much more that is of these numbers: then there is less."""
        return self.is_shared and numbers == self._numbers and self._caches.take(self, size)


class ChangeCaches:
    """Of all mailboxes that are watched in this process."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str], ChangeCache] = {}
        self._kept: OrderedDict[ChangeCache, None] = OrderedDict()  # those that keep something
        self.size = 0

    def enter(self, mailbox_id: str, reader: str) -> ChangeCache:
        """For one more session that watches."""
        cache = self._all.get((mailbox_id, reader))
        if cache is None:
            cache = self._all[mailbox_id, reader] = ChangeCache(self, (mailbox_id, reader))
        cache.watching += 1
        return cache

    def leave(self, cache: ChangeCache) -> None:
        """A session does not watch any more."""
        cache.watching -= 1
        if cache.size and not cache.is_shared:
            cache.clear()
        if not cache.watching:
            del self._all[cache.key]

    def take(self, cache: ChangeCache, size: int) -> bool:
        """So much more for this one: the others give way to it. False where it is too much for all of the room."""
        if cache.size + size > MOST_KEPT:
            cache.clear()
            return False
        self._kept[cache] = None
        self._kept.move_to_end(cache)
        cache.size += size
        self.size += size
        while self.size > MOST_KEPT:
            next(iter(self._kept)).clear()
        return True

    def has_cleared(self, cache: ChangeCache) -> None:
        """It keeps nothing any more."""
        self._kept.pop(cache, None)
        self.size -= cache.size
