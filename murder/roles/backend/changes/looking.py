"""What a session's look at the changes of its mailbox is made of: parts, and what it knows already."""

import asyncio
import heapq
from array import array
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from murder.api.store import Mailbox
from murder.model.message import Changes, Flagged, Message, ModSeq, Uid
from murder.model.name import MailboxName, owner_of
from murder.model.pieces import slices
from murder.roles.backend.changes.powers import TELLS_FLAGS

PART: Final = 500  # messages that are asked for, and looked at, at once: some 3 ms
# at the changes of one owner's large mailboxes, of all sessions at once: each may bring many
LOOKS: Final = 4


@dataclass(frozen=True, slots=True)
class Interest:
    """What of it a client wants to be told. Removals that it has made itself are told in any case."""

    arrivals: bool = True
    removals: bool = True
    flags: bool = True


EVERYTHING: Final = Interest()


class OwnChanges:
    """Which changes it has made itself, or knows of already, by mod-sequence and UID. Four octets each, beside some for each
    mod-sequence: a STORE of a whole mailbox is as many as it has messages."""

    __slots__ = ("_uids",)

    def __init__(self) -> None:
        self._uids: dict[int, array[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._uids)

    def note(self, message: Message | Flagged) -> None:
        """The session knows how this one is."""
        uids = self._uids.get(message.modseq)
        if uids is None:
            uids = self._uids[message.modseq] = array("I")
        if not uids or uids[-1] < message.uid:  # mostly
            uids.append(message.uid)
        elif not self.has(message):
            insort(uids, message.uid)

    def has(self, message: Message | Flagged) -> bool:
        """Whether it knows that."""
        uids = self._uids.get(message.modseq)
        if uids is None:
            return False
        at = bisect_left(uids, message.uid)
        return at < len(uids) and uids[at] == message.uid

    def forget(self, modseq: ModSeq) -> None:
        """Those up to this one."""
        if self._uids:
            self._uids = {at: uids for at, uids in self._uids.items() if at > modseq}

    def clear(self) -> None:
        self._uids.clear()


def flagged_of(message: Message | Flagged) -> Flagged:
    if isinstance(message, Flagged):  # others may have the same one: see `ChangeCache`
        return message
    return Flagged(message.uid, message.flags, message.modseq)


async def flags_of(mailbox: Mailbox, uids: Sequence[Uid]) -> Sequence[Message | Flagged]:
    """How these messages are now, as far as flags go, in UID order."""
    if (telling := TELLS_FLAGS.of(mailbox)) is not None:
        return await telling.flagged(uids)
    return await mailbox.messages(uids)


async def each_changed(
    changes: Changes, read: Callable[[Sequence[Uid]], Awaitable[Sequence[Message | Flagged]]]
) -> AsyncIterator[Sequence[Message | Flagged]]:
    """All messages that have changed, in UID order, some at a time."""
    for messages in slices(changes.changed, PART):
        yield messages
    for uids in slices(changes.many, PART):
        yield await read(uids)


def known_up_to(last_uid: Uid, here: Sequence[Uid], vanished: Sequence[Uid]) -> "array[int]":
    """Both ascend."""
    known = array("I")
    for uid in heapq.merge(here, vanished):
        if uid > last_uid:
            break
        if not known or known[-1] != uid:
            known.append(uid)
    return known


_looking: Final[
    WeakKeyDictionary[
        asyncio.AbstractEventLoop, WeakValueDictionary[str | MailboxName, asyncio.Semaphore]
    ]
] = WeakKeyDictionary()


def looks(name: MailboxName) -> asyncio.Semaphore:
    """Of this loop: a change of a whole mailbox wakes all who have it selected, and each reads all of it. Who looks at
    another's mail does not wait for them."""
    known = _looking.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    return known.setdefault(owner_of(name) or name, asyncio.Semaphore(LOOKS))
