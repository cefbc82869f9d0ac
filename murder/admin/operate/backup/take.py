"""Taking a point in time: every mailbox of the scope as it is at one mod-sequence, what is known from the last point is not
read again.

What belongs together is read together: a user with all their mailboxes, at whichever backends the master says they are. A
user who moves meanwhile is read again where they have gone; what could not be read in the end is named in the point.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from murder.admin.operate.backup.kept import (
    NAME,
    PAGE_UIDS,
    KeptMailbox,
    KeptRow,
    Page,
    Point,
    Unit,
    keep_point,
    put_mailbox,
    put_page,
    put_unit,
    read_mailbox,
    read_page,
    read_point,
    read_unit,
)
from murder.admin.operate.backup.link import READ, Link, Links
from murder.admin.operate.backup.vault import Damaged, Vault
from murder.admin.operate.reach import Reach
from murder.errors import Code, Refusal, UpstreamFailure
from murder.model.entry import MailboxEntry
from murder.model.message import Message, ModSeq, Uid
from murder.model.name import MailboxName, inbox_of, is_inbox, owner_of
from murder.roles.mupdate.database.transfer import format_row
from murder.wire.nodes.backup_words import Looked

ROUNDS: Final = 50  # of differences in one mailbox until nothing has happened meanwhile
TRIES: Final = 8  # of a unit that moves, is made or removed meanwhile
TIMES_REFUSED: Final = 3  # what a backend has not, and the master names there: it is lost
PAUSE_S: Final = 2.0  # before another try
BATCH_MESSAGES: Final = 250
BATCH_OCTETS: Final = 4 * 1024 * 1024
SETTLE_OBJECTS: Final = 500  # made durable together


@dataclass(slots=True)
class Taken:
    """How far a run is. `unreadable`: messages whose octets the backend could not read, and why."""

    units: int = 0
    units_of: int = 0
    mailboxes: int = 0
    messages: int = 0
    octets: int = 0
    read_messages: int = 0
    read_octets: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def root_of(name: MailboxName) -> MailboxName:
    """The unit that a mailbox is in."""
    owner = owner_of(name)
    return inbox_of(owner) if owner is not None else name


def units_of(rows: Iterable[MailboxEntry]) -> dict[MailboxName, list[MailboxEntry]]:
    """What is read together."""
    units: dict[MailboxName, list[MailboxEntry]] = {}
    for row in rows:
        units.setdefault(root_of(row.name), []).append(row)
    return units


class Taking:
    """See the module. `scope` is for people; `chosen` says which rows of the master's list belong to it; `tell` hears how
    far it is."""

    def __init__(
        self,
        reach: Reach,
        vault: Vault,
        scope: str,
        chosen: Callable[[MailboxEntry], bool],
        tell: Callable[[Taken], None] = lambda _: None,
    ) -> None:
        self._reach = reach
        self._vault = vault
        self._scope = scope
        self._chosen = chosen
        self._tell = tell
        self.taken = Taken()
        self._units: dict[MailboxName, str] = {}
        self._missing: dict[str, str] = {}
        self._refused: dict[MailboxName, int] = {}  # how often, although the master names it there
        self._known: dict[MailboxName, str] = {}
        self._reads_anew = False
        self._settling = asyncio.Lock()

    async def run(self) -> Point:
        """The new point. Raises Refusal, UpstreamFailure where the master cannot be asked, OSError of the folder; then the
        last point is still the last."""
        began = time.time()
        self._known, self._reads_anew = _known(self._vault), self._vault.reads_anew
        rows = await self._reach.rows()
        pending: dict[MailboxName, Sequence[MailboxEntry]] = {
            **units_of(row for row in rows if self._chosen(row))
        }
        self.taken.units_of = len(pending)
        for number in range(TRIES):
            pending = await self._try(pending)
            if not pending:
                break
            if number + 1 < TRIES:
                await asyncio.sleep(PAUSE_S)
                rows = await self._reach.rows()
                now = units_of(row for row in rows if self._chosen(row))
                for root in pending.keys() - now.keys():  # deleted, or renamed
                    self._missing.pop(self._reach.shown(root), None)
                pending = {root: now[root] for root in pending if root in now}
        for root in pending:
            name_shown = self._reach.shown(root)
            self._missing.setdefault(name_shown, "it was being made or moved all the time")
        listed = self._vault.put("".join(f"{format_row(row)}\n" for row in rows).encode())
        await self._settle(all_of_them=True)
        taken = self.taken
        point = keep_point(
            self._vault,
            Point(
                datetime.fromtimestamp(began, UTC).strftime(NAME),
                began,
                time.time(),
                self._scope,
                self._units,
                self._missing,
                listed,
                taken.messages,
                taken.octets,
                self._vault.written,
            ),
        )
        if self._reads_anew and not self._missing:
            self._vault.read_anew_done()
        return point

    async def _try(
        self, pending: Mapping[MailboxName, Sequence[MailboxEntry]]
    ) -> dict[MailboxName, Sequence[MailboxEntry]]:
        """Read them, each backend's on its own; those that are to be tried again."""
        again: dict[MailboxName, Sequence[MailboxEntry]] = {}
        by_server: dict[str, list[MailboxName]] = {}
        for root, rows in pending.items():
            by_server.setdefault(rows[0].server, []).append(root)

        async def read(roots: Sequence[MailboxName]) -> None:
            links = Links(self._reach, READ)
            try:
                for root in roots:
                    if not await self._read_unit(links, root, pending[root]):
                        again[root] = pending[root]
            finally:
                links.close()

        await _all(read(roots) for roots in by_server.values())
        return again

    async def _read_unit(
        self, links: Links, root: MailboxName, rows: Sequence[MailboxEntry]
    ) -> bool:
        """Whether that is settled: it is in the point, or named as missing."""
        name_shown = self._reach.shown(root)
        if any(not row.is_active for row in rows):
            return False  # being made, or on its way to another backend
        try:
            mailboxes, subscriptions = await self._read_mailboxes(links, root, rows)
        except Refusal as refusal:
            self._missing[name_shown] = refusal.text
            times = self._refused[root] = self._refused.get(root, 0) + 1
            may_pass = refusal.code in (Code.NONEXISTENT, Code.IN_USE, Code.UNAVAILABLE)
            return times == TIMES_REFUSED or not may_pass
        except UpstreamFailure as failure:
            links.drop(failure.server)
            self._missing[name_shown] = str(failure)
            return False
        digests = [put_mailbox(self._vault, mailbox) for mailbox in mailboxes]
        self._units[root] = put_unit(self._vault, Unit(root, digests, subscriptions))
        self._missing.pop(name_shown, None)
        taken = self.taken
        taken.units += 1
        taken.mailboxes += len(mailboxes)
        taken.messages += sum(mailbox.messages for mailbox in mailboxes)
        taken.octets += sum(mailbox.octets for mailbox in mailboxes)
        self._tell(self.taken)
        return True

    async def _read_mailboxes(
        self, links: Links, root: MailboxName, rows: Sequence[MailboxEntry]
    ) -> tuple[list[KeptMailbox], Sequence[MailboxName]]:
        """Of a unit; and what its user subscribes to."""
        known = self._known_mailboxes(root)
        mailboxes: list[KeptMailbox] = []
        for row in rows:
            link = await links.to(row.server)
            try:
                mailbox = await Copying(self, self._vault, link, row, known, self._reads_anew).run()
            except Damaged:  # what is known of it cannot be read: all of it again
                links.drop(row.server)
                link = await links.to(row.server)
                mailbox = await Copying(self, self._vault, link, row, {}, reads_anew=False).run()
            mailboxes.append(mailbox)
            await self.settle()
        inbox = next((row for row in rows if is_inbox(row.name)), None)
        owner = owner_of(root)
        if inbox is None or owner is None:
            return mailboxes, ()
        return mailboxes, await (await links.to(inbox.server)).subscriptions(owner)

    def _known_mailboxes(self, root: MailboxName) -> dict[str, KeptMailbox]:
        """By their ids, as the last point has them."""
        known: dict[str, KeptMailbox] = {}
        with contextlib.suppress(Damaged):
            if root in self._known:
                for kept in read_unit(self._vault, self._known[root]).mailboxes:
                    mailbox = read_mailbox(self._vault, kept.digest)
                    known[mailbox.portrait.identity.mailbox_id] = mailbox
        return known

    def read(self, octets: int) -> None:
        """A message has come."""
        self.taken.read_messages += 1
        self.taken.read_octets += octets
        self._tell(self.taken)

    def unreadable(self, name: MailboxName, uid: Uid, problem: str) -> None:
        self.taken.unreadable[f"{self._reach.shown(name)}, UID {uid}"] = problem

    async def _settle(self, *, all_of_them: bool = False) -> None:
        """Nobody else puts meanwhile what would be half there."""
        async with self._settling:
            if all_of_them:
                await asyncio.to_thread(self._vault.settle_all)
            elif self._vault.waiting >= SETTLE_OBJECTS:
                await asyncio.to_thread(self._vault.settle)

    async def settle(self) -> None:
        await self._settle()


def _known(vault: Vault) -> dict[MailboxName, str]:
    """The latest that is known of each unit."""
    known: dict[MailboxName, str] = {}
    for name in reversed(vault.points()):
        for root, digest in read_point(vault, name).units.items():
            known.setdefault(root, digest)
    return known


async def _all(readings: Iterable[Coroutine[None, None, None]]) -> None:
    """At once; where one fails, the others end. Raises what it raised."""
    tasks = [asyncio.ensure_future(reading) for reading in readings]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Copying:
    """One mailbox."""

    def __init__(
        self,
        taking: Taking,
        vault: Vault,
        link: Link,
        row: MailboxEntry,
        known: Mapping[str, KeptMailbox],
        reads_anew: bool,
    ) -> None:
        self._taking = taking
        self._vault = vault
        self._link = link
        self._row = row
        self._name = row.name
        self._known = known
        self._reads_anew = reads_anew
        self._pages: dict[int, Page] = {}
        self._open: dict[int, dict[Uid, KeptRow]] = {}  # pages that are being changed
        self._unread: set[Uid] = set()

    async def run(self) -> KeptMailbox:
        """As it is at one mod-sequence. Raises Refusal, UpstreamFailure, OSError."""
        looked = await self._link.look(self._name, ModSeq(0))
        since = ModSeq(0)
        before = self._known.get(looked.portrait.identity.mailbox_id)
        if before is not None and before.portrait.identity == looked.portrait.identity:
            if before.portrait.highest_modseq <= looked.portrait.highest_modseq:
                since = before.portrait.highest_modseq
                self._pages = {page.number: page for page in before.pages}
                await self._fetch_again(before.unread)
                if self._reads_anew:
                    await self._fetch_missing()
        is_whole = not since
        for _ in range(ROUNDS):
            if since:
                looked = await self._link.look(self._name, since)
                for _, uid in looked.portrait.expunged:
                    self._remove(uid)
            if looked.portrait.highest_modseq != since:
                await self._rows(since)
            self._flush(None)
            counted = await self._link.count(self._name)
            if counted.highest_modseq == looked.portrait.highest_modseq:
                if counted.messages == sum(page.messages for page in self._pages.values()):
                    return self._kept(looked)
                if is_whole:
                    break
                since, is_whole = ModSeq(0), True  # what was expunged is told there no more
                self._pages.clear()
                self._unread.clear()
                looked = await self._link.look(self._name, since)
                continue
            since = looked.portrait.highest_modseq
        text = "changes faster than it can be read, or its counts are wrong (`murder ctl store check` there)"
        raise Refusal(Code.CANNOT, f"{self._row.server}: it {text}")

    def _kept(self, looked: Looked) -> KeptMailbox:
        return KeptMailbox(
            self._name,
            self._row.server,
            self._row.location.partition,
            replace(looked.portrait, expunged=()),
            looked.raw_acl,
            looked.notes,
            [self._pages[number] for number in sorted(self._pages)],
            sorted(self._unread),
        )

    async def _rows(self, since: ModSeq) -> None:
        after = Uid(0)
        while rows := await self._link.page(self._name, since, after):
            after = rows[-1].uid
            batch: list[Message] = []
            octets = 0
            for message in rows:
                present = self._page(message.uid).get(message.uid)
                if present is not None and present.digest:
                    self._put(message, present.digest)
                    continue
                batch.append(message)
                octets += message.size
                if octets >= BATCH_OCTETS or len(batch) >= BATCH_MESSAGES:
                    await self._fetch(batch)
                    batch, octets = [], 0
            await self._fetch(batch)
            self._flush(after // PAGE_UIDS)

    async def _fetch(self, batch: Sequence[Message]) -> None:
        if not batch:
            return
        await self._link.ask_octets(self._name, [message.uid for message in batch])
        for message in batch:
            answer, digest = await self._link.octets(self._vault.draft)
            if answer.is_gone:
                self._remove(message.uid)  # the next round tells
                continue
            self._unread.discard(message.uid)
            if answer.problem:
                self._unread.add(message.uid)
                self._taking.unreadable(self._name, message.uid, answer.problem)
            self._put(message, digest)
            self._taking.read(answer.size)
        await self._taking.settle()

    async def _fetch_again(self, uids: Sequence[Uid]) -> None:
        """What could not be read the last time."""
        rows = [row for uid in uids if (row := self._page(uid).get(uid)) is not None]
        await self._fetch([row.message for row in rows])
        self._flush(None)

    async def _fetch_missing(self) -> None:
        """What is in the pages, and was found damaged or missing in the folder. Raises Damaged for a page."""
        for page in list(self._pages.values()):
            rows = read_page(self._vault, page.digest).values()
            await self._fetch_again([row.message.uid for row in rows if self._is_lost(row)])

    def _is_lost(self, row: KeptRow) -> bool:
        return bool(row.digest) and not self._vault.has(row.digest)

    # --- pages

    def _page(self, uid: Uid) -> dict[Uid, KeptRow]:
        number = uid // PAGE_UIDS
        rows = self._open.get(number)
        if rows is None:
            page = self._pages.get(number)
            rows = read_page(self._vault, page.digest) if page is not None else {}
            self._open[number] = rows
        return rows

    def _put(self, message: Message, digest: str) -> None:
        self._page(message.uid)[message.uid] = KeptRow(message, digest)

    def _remove(self, uid: Uid) -> None:
        if uid // PAGE_UIDS in self._pages or uid // PAGE_UIDS in self._open:
            self._page(uid).pop(uid, None)
        self._unread.discard(uid)

    def _flush(self, below: int | None) -> None:
        """Write the pages that are done: those below a number, or all."""
        for number in sorted(self._open):
            if below is not None and number >= below:
                break
            rows = self._open.pop(number)
            if rows:
                self._pages[number] = put_page(self._vault, number, rows)
            else:
                self._pages.pop(number, None)
