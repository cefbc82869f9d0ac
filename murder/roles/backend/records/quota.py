"""Quota roots of this backend: what they limit, how much is used, and whether more fits (RFC 9208, RFC 2087).

A limit is set on a mailbox and holds for it and all below, up to the next root. Limits stand as notes in the list file;
usage is what the store tells at the moment, so that it is always exact. Knows no protocol.
"""

import asyncio
import errno
import fcntl
import json
import os
import time
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from murder.api.store import MailboxStore
from murder.errors import Code, Refusal
from murder.model.message import MailboxStatus
from murder.model.name import MailboxName, ancestors_of
from murder.model.quota import Resource, Usage, storage_units
from murder.net.turns import in_turns
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.change import PutNote
from murder.roles.mupdate.database.mboxlist import MailboxList

LOCKS_FILE: Final = "quota.lock"  # beside the list
FILE_MODE: Final = 0o600
WAIT_S: Final = 30.0
PAUSE_S: Final = 0.002
LIMITED: Final = (Resource.STORAGE, Resource.MESSAGE, Resource.MAILBOX)
COUNTED_FOR_S: Final = 60.0  # a warning may rest on a count of so long ago; a refusal never does
MAX_COUNTED: Final = 10_000
FOR_MAIL: Final = (Resource.STORAGE, Resource.MESSAGE)  # a new message needs more of these


def percent_of(usage: Usage) -> int:
    """How much of a limit is used, in whole percents; a limit of nothing is used up."""
    return usage.used * 100 // usage.limit if usage.limit else 100


class MailboxFull(Refusal):
    """A quota says so; a full disk is another matter. Its code is OVER_QUOTA."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """What a quota root holds, and when it was counted."""

    octets: int
    messages: int
    mailboxes: int
    at: float

    def usage(self, resource: Resource, limit: int) -> Usage:
        match resource:
            case Resource.STORAGE:
                return Usage(resource, storage_units(self.octets), limit)
            case Resource.MESSAGE:
                return Usage(resource, self.messages, limit)
            case Resource.MAILBOX:
                return Usage(resource, self.mailboxes, limit)
            case _:
                return Usage(resource, 0, limit)

    def plus(self, octets: int, messages: int) -> "_Counted":
        return replace(self, octets=self.octets + octets, messages=self.messages + messages)


class _Turns:
    """One at a time for each quota root: tasks of this process by a lock in memory, processes by one in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor = -1  # opened once: closing it would let go of all
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, root: MailboxName) -> AsyncIterator[None]:
        place = zlib.crc32(root)  # two roots with the same one wait for each other, no more
        lock = self._locks.setdefault(place, asyncio.Lock())
        async with lock:
            if self._descriptor < 0:
                self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, FILE_MODE)
            await self._take(place)
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)

    async def _take(self, place: int) -> None:
        give_up_at = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            if time.monotonic() > give_up_at:
                raise Refusal(Code.IN_USE, "Too much is being delivered there, try again later")
            await asyncio.sleep(PAUSE_S)  # another worker has it; nothing tells when it ends


def quota_key(root: MailboxName) -> str:
    """Under which a root's limits stand."""
    return "q/" + root.decode("latin-1")


async def statuses_of(
    store: MailboxStore, names: Iterable[MailboxName]
) -> AsyncIterator[MailboxStatus]:
    """Of each mailbox that is there, in turns. Raises Refusal where one goes at that very moment."""
    async for name in in_turns(names):
        try:
            mailbox = await store.open(name, "")
        except Refusal:
            continue
        try:
            yield await mailbox.status()
        finally:
            mailbox.close()


class Quotas:
    """See the module."""

    def __init__(self, mailbox_list: MailboxList, ledger: Ledger, store: MailboxStore) -> None:
        self._list = mailbox_list
        self._ledger = ledger
        self._store = store
        self._counted: dict[MailboxName, _Counted] = {}
        self._turns = _Turns(mailbox_list.path.with_name(LOCKS_FILE))

    def limits_of(self, root: MailboxName) -> dict[Resource, int]:
        """The limits set on exactly this name; empty where it is no quota root."""
        octets = self._list.note(quota_key(root))
        fields: dict[str, int] = json.loads(octets) if octets else {}
        return {Resource(word): limit for word, limit in fields.items()}

    def root_of(self, name: MailboxName) -> MailboxName | None:
        """The nearest quota root at or above a mailbox."""
        for candidate in (name, *ancestors_of(name)):
            if self._list.note(quota_key(candidate)):
                return candidate
        return None

    async def set_limits(self, root: MailboxName, limits: Mapping[Resource, int]) -> None:
        """Replace all limits of a root; none makes it no root."""
        fields = {resource.value: limit for resource, limit in limits.items()}
        octets = json.dumps(fields).encode() if fields else b""
        await self._ledger.commit([PutNote(quota_key(root), octets)])

    async def usages(self, root: MailboxName) -> Sequence[Usage]:
        """Used and allowed of each limited resource."""
        counted = await self._count(root)
        return [counted.usage(*limit) for limit in self.limits_of(root).items()]

    async def _count(self, root: MailboxName) -> _Counted:
        octets = messages = mailboxes = 0
        async for status in self._statuses(root):
            octets += status.size
            messages += status.messages
            mailboxes += 1
        counted = _Counted(octets, messages, mailboxes, time.monotonic())
        self._keep(root, counted)
        return counted

    def _keep(self, root: MailboxName, counted: _Counted) -> None:
        self._counted[root] = counted
        if len(self._counted) > MAX_COUNTED:
            del self._counted[next(iter(self._counted))]

    async def fullest(self, name: MailboxName, octets: int = 0, messages: int = 0) -> Usage | None:
        """What a mailbox's root has least left of for mail, as a share of its limit; None without a limit. So much has
        been added since it was last counted, which may be a minute ago: to count looks at every mailbox of the root."""
        root = self.root_of(name)
        if root is None:
            return None
        counted = self._counted.get(root)
        if counted is None or time.monotonic() - counted.at > COUNTED_FOR_S:
            counted = await self._count(root)
        elif messages:
            counted = counted.plus(octets, messages)
            self._keep(root, counted)
        limits = [limit for limit in self.limits_of(root).items() if limit[0] in FOR_MAIL]
        return max((counted.usage(*limit) for limit in limits), key=percent_of, default=None)

    async def _statuses(self, root: MailboxName) -> AsyncIterator[MailboxStatus]:
        entry = self._list.find(root)
        names = [] if entry is None else [root]
        names += [
            turn.name async for turn in in_turns(self._list.heads_below(root)) if turn.is_active
        ]
        own = (name for name in names if name == root or not self._list.note(quota_key(name)))
        async for status in statuses_of(self._store, own):  # but for what is a root of its own
            yield status

    @asynccontextmanager
    async def room(
        self, name: MailboxName, octets: int = 0, messages: int = 0
    ) -> AsyncIterator[None]:
        """As `check_room`, and nobody else, in any worker, adds below the same quota root until the block ends.

        Within the block the mail is added: so a limit is kept to the octet, however many deliver at once."""
        root = self.root_of(name)
        if root is None:
            yield
        else:
            async with self.room_below(root, octets, messages):
                yield

    @asynccontextmanager
    async def room_below(
        self, root: MailboxName, octets: int = 0, messages: int = 0
    ) -> AsyncIterator[None]:
        """As `room`, where it is known which root that is."""
        async with self._turns.of(root):
            await self.check_room_below(root, octets, messages)
            yield

    async def check_room(
        self, name: MailboxName, octets: int = 0, messages: int = 0, mailboxes: int = 0
    ) -> None:
        """Raises MailboxFull where so much more would pass a limit of the mailbox's root."""
        root = self.root_of(name)
        if root is not None:
            await self.check_room_below(root, octets, messages, mailboxes)

    async def check_room_below(
        self, root: MailboxName, octets: int = 0, messages: int = 0, mailboxes: int = 0
    ) -> None:
        """As `check_room`, where it is known which root that is."""
        wanted = {
            Resource.STORAGE: storage_units(octets),
            Resource.MESSAGE: messages,
            Resource.MAILBOX: mailboxes,
        }
        for usage in await self.usages(root):
            more = wanted.get(usage.resource, 0)
            if more and usage.used + more > usage.limit:
                raise MailboxFull(
                    Code.OVER_QUOTA,
                    f"The quota of {usage.limit} ({usage.resource.value}) would be exceeded",
                )
