"""Comparing this backend's list with the master's, both ways: at start, after every reconnect, and now and then.

Missing there: activated. There and not here: deleted there, never where this list has not once been complete. Active
at another server and here too: quarantined here and reported, until the master names this server again; no comparison
ever deletes mail. RFC 3656 §1.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from murder.errors import Refusal, UpstreamFailure
from murder.log import logger
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, display, is_quarantined
from murder.net.seconds import until_look
from murder.net.turns import line_up
from murder.roles.backend.changes.events import Events, MasterMayDiffer
from murder.roles.backend.hierarchy.announce import Announcer
from murder.roles.backend.hierarchy.master import Master
from murder.roles.backend.reconcile.quarantine import (
    Resting,
    RestingNames,
    find_resting,
    parse_resting,
    resting_name,
)
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.mboxlist import mark_synchronised

MAX_LOOKED_FOR: Final = 1000  # mailboxes that were lost, for one status: a few milliseconds
PAUSE_AFTER: Final = 200  # rows compared before others get their turn
LOOK_EVERY_S: Final = 0.5  # whether the master is still there
COMPARE_EVERY_S: Final = 3600.0  # also where no connection was lost
# while what the master names here is not all here: it is being restored
COMPARE_LOST_EVERY_S: Final = 60.0
LOOKED_AT: Final = 50  # mailboxes in quarantine that the master is asked about at each ping


class WholeMaster(Master, Protocol):
    """The master as a comparison needs it."""

    connections: int  # how often it has been connected to

    @property
    def is_connected(self) -> bool: ...

    async def find(self, name: bytes) -> MailboxEntry | None: ...

    async def list_server(self, server: str) -> Sequence[MailboxEntry]: ...

    async def ping(self) -> None: ...


@dataclass(slots=True)
class Comparison:
    """What one comparison did."""

    activated: list[MailboxName] = field(default_factory=list)
    removed: list[MailboxName] = field(default_factory=list)
    quarantined: list[MailboxName] = field(default_factory=list)
    returned: list[MailboxName] = field(default_factory=list)  # from quarantine
    conflicts: list[MailboxName] = field(default_factory=list)
    refused: list[MailboxName] = field(default_factory=list)

    def __bool__(self) -> bool:
        done = (self.activated, self.removed, self.quarantined, self.returned)
        return any((*done, self.conflicts, self.refused))


class Comparer:
    """See the module. One a backend (worker 0)."""

    def __init__(
        self,
        ledger: Ledger,
        announcer: Announcer,
        quarantine: Announcer,
        master: WholeMaster,
        events: Events,
    ) -> None:
        self._ledger = ledger
        self._mailboxes = ledger.mailboxes
        self._announcer = announcer
        self._quarantine = quarantine  # an announcer that tells no master
        self._master = master
        self._server = announcer.location.server
        self._log = logger(role="backend")
        self._resting_names = RestingNames(ledger.mailboxes)
        self._aside: dict[MailboxName, Resting] = {}  # by the names under which they rest
        self._owed: set[MailboxName] = set()
        self._paying: asyncio.Task[None] | None = None
        self.retry_s = 1.0
        self.problem = ""  # why `keep` could not compare last, "" where it could
        self._lacking: deque[MailboxName] = deque()
        events.subscribe(MasterMayDiffer, lambda event: self.owe(event.names))

    @property
    def lacking(self) -> int:
        """Mailboxes that the master names here, and that are not here: as they were compared last, without those that have
        come back since. Of many, some are looked for each time."""
        for _ in range(min(MAX_LOOKED_FOR, len(self._lacking))):
            name = self._lacking.popleft()
            if self._mailboxes.find(name) is None:
                self._lacking.append(name)
        return len(self._lacking)

    def owe(self, names: Iterable[MailboxName]) -> None:
        """The master may have these names wrong (an operation was undone): compare them, as soon as it is there."""
        self._owed.update(names)
        if self._owed and self._paying is None:
            self._paying = asyncio.get_running_loop().create_task(self._pay())

    async def _pay(self) -> None:
        try:
            while self._owed:
                try:
                    await self.compare_names(sorted(self._owed))
                except (UpstreamFailure, Refusal):
                    pass  # `keep` says that the master is away
                if self._owed:
                    await asyncio.sleep(self.retry_s * random.uniform(0.7, 1.3))
        finally:
            self._paying = None

    async def compare_names(self, names: Sequence[MailboxName]) -> Comparison:
        """As `compare`, of these names only. Raises UpstreamFailure."""
        done = Comparison()
        for name in names:
            if is_quarantined(name):
                self._owed.discard(name)
                continue
            if self._announcer.is_busy(name):
                continue  # somebody is at work in its tree: again later
            entry = self._mailboxes.find(name)
            theirs = await self._master.find(name)
            at_ours = theirs is not None and theirs.server == self._server
            if self._announcer.is_busy(name):
                continue
            self._owed.discard(name)  # what follows may owe it again
            try:
                if entry is not None and entry.is_active:
                    await self._check_ours(entry, theirs if at_ours else None, done)
                elif entry is None and theirs is not None and at_ours:
                    await self._remove_foreign([theirs], done)
            except UpstreamFailure:
                self._owed.add(name)
                raise
        self._report(done)
        return done

    async def close(self) -> None:
        if self._paying is not None:
            self._paying.cancel()
            await asyncio.wait([self._paying])

    async def compare(self) -> Comparison:
        """Make the two lists agree. Raises UpstreamFailure; what was done until then is right."""
        done = Comparison()
        theirs = {entry.name: entry for entry in await self._master.list_server(self._server)}
        self._aside.clear()
        for count, entry in enumerate(self._mailboxes.walk(), 1):
            if (resting := parse_resting(entry)) is not None:
                self._aside[entry.name] = resting
            known = theirs.pop(entry.name, None)
            if resting is not None and known is not None:
                await self._delete(entry.name)
            # the master knows what rests since it was deleted
            if entry.is_active and resting is None:
                await self._check_ours(entry, known, done)
            if count % PAUSE_AFTER == 0:
                await line_up()
        await self._remove_foreign(list(theirs.values()), done)
        self._lacking = deque(done.refused)
        if not done.refused and not done.conflicts:
            await self._ledger.commit([mark_synchronised()])
        self._report(done)
        return done

    async def _check_ours(
        self, entry: MailboxEntry, known: MailboxEntry | None, done: Comparison
    ) -> None:
        if known is not None and known.is_active:
            if (known.raw_location, known.raw_acl) == (entry.raw_location, entry.raw_acl):
                return
        if self._announcer.is_busy(entry.name):
            self.owe([entry.name])
            return
        if known is None:
            elsewhere = await self._master.find(entry.name)
            if elsewhere is not None and elsewhere.server != self._server:
                await self._conflict(entry, elsewhere, done)
                return
        present = self._mailboxes.find(entry.name)
        if present is None or not present.is_active:
            return
        try:
            await self._master.activate(present.name, present.raw_location, present.raw_acl)
            done.activated.append(entry.name)
            if self._mailboxes.find(entry.name) != present:  # changed by another worker meanwhile
                self.owe([entry.name])
        except Refusal as refusal:
            self._refused(entry.name, refusal)
            done.conflicts.append(entry.name)

    async def _conflict(
        self, entry: MailboxEntry, elsewhere: MailboxEntry, done: Comparison
    ) -> None:
        if not elsewhere.is_active:  # being made or moved there: look again later
            done.conflicts.append(entry.name)
            return
        at = time.time()
        resting = resting_name(entry.name, at)
        await self._quarantine.rename([(entry.name, resting)])
        self._aside[resting] = Resting(entry.name, int(at), resting)
        done.quarantined.append(entry.name)
        self._log.error(
            "mailbox.quarantined",
            mailbox=display(entry.name),
            elsewhere=elsewhere.server,
            kept_as=display(resting),
        )

    async def _remove_foreign(self, rows: Sequence[MailboxEntry], done: Comparison) -> None:
        """Rows that the master has for this server and that are not here."""
        never_complete = not self._mailboxes.synchronised
        for row in rows:
            if self._announcer.is_busy(row.name):
                self.owe([row.name])
                continue
            if self._mailboxes.find(row.name) is not None:
                continue
            if row.is_active and await self._bring_back(row.name, done):
                continue
            if never_complete and row.is_active:
                done.refused.append(row.name)
                continue
            present = await self._master.find(row.name)
            if present is None or present.server != self._server:
                continue
            if await self._delete(row.name):
                done.removed.append(row.name)

    async def _bring_back(self, name: MailboxName, done: Comparison) -> bool:
        """The master names this server for a mailbox that is not here: it may rest in quarantine."""
        resting = find_resting(self._mailboxes, name)
        if resting is None:
            return False
        await self._quarantine.rename([(resting.kept_as, name)])
        self._aside.pop(resting.kept_as, None)
        done.returned.append(name)
        self._log.warning(
            "mailbox.returned", mailbox=display(name), kept_as=display(resting.kept_as)
        )
        present = self._mailboxes.find(name)
        if present is not None:  # with the rights that it has here
            try:
                await self._master.activate(name, present.raw_location, present.raw_acl)
            except Refusal as refusal:
                self._refused(name, refusal)
                done.conflicts.append(name)
        return True

    async def _delete(self, name: MailboxName) -> bool:
        """At the master; whether it has done so. Raises UpstreamFailure."""
        try:
            await self._master.delete(name)
        except Refusal as refusal:
            self._refused(name, refusal)
            return False
        return True

    def _refused(self, name: MailboxName, refusal: Refusal) -> None:
        """The master says no to this one: the others are compared."""
        self._log.error("resync.refused", mailbox=display(name), problem=refusal.text)

    def quarantined(self) -> list[Resting]:
        """For `murder ctl conflicts`: what rests here."""
        still = {
            kept_as: resting
            for kept_as, resting in self._aside.items()
            if self._mailboxes.find(kept_as) is not None
        }
        self._aside = still
        return list(still.values())

    def owe_quarantined(self, name: MailboxName) -> bool:
        """Somebody asks for a mailbox that is not here. Whether it rests in quarantine: then the master is asked at once
        whether it may come back."""
        if name not in self._resting_names:
            return False
        self.owe([name])
        return True

    async def _look_after_quarantined(self) -> None:
        """Whether the master names this server again for what rests here; a few of them at each look."""
        names = sorted({resting.name for resting in self.quarantined()})
        if names:
            await self.compare_names(random.sample(names, min(len(names), LOOKED_AT)))

    def _report(self, done: Comparison) -> None:
        if done.refused:
            self._log.error(
                "resync.refused",
                mailbox=display(done.refused[0]),
                count=len(done.refused),
                problem="the master has mailboxes at this server, and this server's own list is new: "
                "is [node] data the right folder? Restore it, or delete them at the master",
            )
        if done:
            self._log.info(
                "resync.done",
                activated=len(done.activated),
                removed=len(done.removed),
                quarantined=len(done.quarantined),
                returned=len(done.returned),
                conflicts=len(done.conflicts),
            )

    async def _pause(self, pause_s: float) -> None:
        """Until the next ping; shorter where the connection is lost meanwhile."""
        loop = asyncio.get_running_loop()
        end = loop.time() + pause_s
        while self._master.is_connected and (left := end - loop.time()) > 0:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(min(until_look(LOOK_EVERY_S), left))

    async def keep(
        self,
        *,
        ping_interval_s: float,
        retry_min_s: float,
        retry_max_s: float,
        compared: Callable[[], None] = lambda: None,
        beat: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Compare at once, after each reconnect and every hour; for ever, or until cancelled."""
        compared_at = 0.0
        connection = -1
        pause = retry_min_s
        said = ""
        while True:
            try:
                await self._master.ping()
                if beat is not None:
                    await beat()
                now = asyncio.get_running_loop().time()
                every = COMPARE_EVERY_S if self._mailboxes.synchronised else COMPARE_LOST_EVERY_S
                if self._master.connections != connection or now - compared_at > every:
                    connection = self._master.connections
                    await self.compare()
                    compared_at = now
                    compared()
                else:
                    await self._look_after_quarantined()
                if said:
                    self._log.info("resync.resumed" if said == "refused" else "master.back")
                pause, said, self.problem = retry_min_s, "", ""
                await self._pause(ping_interval_s)
            except (UpstreamFailure, Refusal) as failure:
                connection = -1
                # what is refused is so by this server itself: its own disk may be full
                why = "refused" if isinstance(failure, Refusal) else "away"
                self.problem = str(failure)
                if said != why:
                    self._log.warning(
                        "resync.failed" if why == "refused" else "master.unreachable",
                        problem=self.problem,
                    )
                said = why
                await asyncio.sleep(pause * random.uniform(0.7, 1.3))
                pause = min(2 * pause, retry_max_s)
