"""A master's users have names in DNS that follow them: what the list says is brought to the zone's server as it changes.

Of a few users each name is asked for and set right; of many, at the start and once a day the whole zone is compared. A
server that is away or refuses is tried again, later and later; the list goes on meanwhile, and nobody waits for DNS.
Several masters may do this at once: each sends only what differs.
"""

import asyncio
import random
from collections.abc import Collection
from typing import Final

from murder.config.dns import DnsConfig
from murder.errors import Refusal, UpstreamFailure
from murder.log import logger
from murder.model.name import inbox_of, is_deleted, is_inbox, name_of_key, owner_of
from murder.net.turns import line_up
from murder.roles.mupdate.database.mboxlist import Committed, MailboxList
from murder.roles.mupdate.database.record import server_of_row
from murder.roles.mupdate.zone.names import (
    Difference,
    Names,
    difference,
    name_of,
    names_at,
    note_home,
    why_no_name,
)
from murder.roles.mupdate.zone.server import ZoneServer

GATHERED_S: Final = 0.2  # what changes within it is sent together
MOST_APART: Final = 100  # users whose names are asked for one by one
ROWS_IN_A_TURN: Final = 200
MOST_STRANGERS: Final = 200_000  # names in the zone, beside twice as many as there are users
COMPARED_S: Final = 86400.0  # how often with what there is, whatever has changed
FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 300.0
JITTER: Final = (0.75, 1.25)


class ZoneKeeper:
    """See the module."""

    def __init__(self, config: DnsConfig, mailboxes: MailboxList, servers: Collection[str]) -> None:
        """`servers` are those of `[servers]`, which the list may know no longer. Raises Refusal with what is missing."""
        self._config = config
        self._mailboxes = mailboxes
        self._servers = frozenset(servers)
        self._zone = ZoneServer(config)
        self._log = logger(role="mupdate")
        self._former: set[str] = set()  # servers that have lost somebody
        self._users: set[str] = set()  # whose names may have to change
        self._is_all = True  # or everybody's
        self._crash = ""  # that was told last
        self._seq = mailboxes.last_seq()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Compare, and follow from now on."""
        self._wake.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """What is under way in a thread ends at its next answer."""
        self._zone.stop()
        if self._task is not None:
            self._task.cancel()

    def heard(self, committed: Committed) -> None:
        """For the hub: what a commit has changed."""
        if committed.seq <= self._seq and not committed.is_anew:
            return
        changes = committed.changes
        if committed.is_anew or not changes or changes[0].seq > self._seq + 1:
            self._is_all = True
        for change in changes:
            name = name_of_key(change.key)
            if is_inbox(name) and not is_deleted(name):
                self._users.add(owner_of(name) or "")
                if change.old_row is not None:
                    self._former.add(server_of_row(change.old_row).decode("ascii", "replace"))
        self._seq = committed.seq
        if len(self._users) > MOST_APART or (self._users and self._config.by == "letter"):
            self._is_all = True
        if self._is_all:
            self._users.clear()
        if self._is_all or self._users:
            self._wake.set()

    # --- the zone

    async def _run(self) -> None:
        pause_s = FIRST_RETRY_S
        while True:
            try:
                async with asyncio.timeout(COMPARED_S):
                    await self._wake.wait()
            except TimeoutError:
                self._is_all = True
            await asyncio.sleep(GATHERED_S)
            self._wake.clear()
            users, is_all = self._users, self._is_all
            self._users, self._is_all = set(), False
            try:
                done = await (self._bring_all() if is_all else self._bring(users))
            except Exception as error:  # noqa: BLE001 - the end of a task: names would never follow again
                self._is_all = self._is_all or is_all
                self._users |= users
                wait_s = round(pause_s * random.uniform(*JITTER), 1)
                self._tell_of(error, wait_s)
                await asyncio.sleep(wait_s)
                pause_s = min(2 * pause_s, LAST_RETRY_S)
                self._wake.set()
                continue
            pause_s, self._crash = FIRST_RETRY_S, ""
            if done.put or done.remove:
                self._log.info("dns.updated", put=len(done.put), removed=len(done.remove))

    def _tell_of(self, error: Exception, wait_s: float) -> None:
        """A bug is told with its traceback, and once while it is the same."""
        if isinstance(error, UpstreamFailure | Refusal):
            self._log.warning("dns.failed", problem=str(error), retry_after_s=wait_s)
            return
        crash = repr(error)
        if crash != self._crash:
            self._log.error("dns.crashed", exc_info=error, retry_after_s=wait_s)
        self._crash = crash

    async def _bring(self, users: Collection[str]) -> Difference:
        """The names of a few. Raises UpstreamFailure."""
        homes: dict[str, str] = {}
        moving: set[str] = set()
        for user in users:
            row = self._mailboxes.find(inbox_of(user))
            if row is not None:
                note_home(row, homes, moving)
        names = names_at(homes, self._config, moving)
        of = [name_of(user) for user in users if not why_no_name(user, self._config)]
        return await asyncio.to_thread(self._send, names, self._ours(), of)

    async def _bring_all(self) -> Difference:
        """Everybody's. Raises UpstreamFailure."""
        homes: dict[str, str] = {}
        moving: set[str] = set()
        for number, row in enumerate(self._mailboxes.walk(), 1):
            note_home(row, homes, moving)
            if number % ROWS_IN_A_TURN == 0:
                await line_up()
        names = await asyncio.to_thread(names_at, homes, self._config, moving)
        return await asyncio.to_thread(self._send, names, self._ours(), None)

    def _ours(self) -> frozenset[str]:
        return self._servers.union(self._former, self._mailboxes.count_by_server())

    def _send(self, names: Names, ours: Collection[str], of: Collection[str] | None) -> Difference:
        """In a thread. `of`: the names in question; None: all that there are."""
        most = MOST_STRANGERS + 2 * len(names.targets)
        there = self._zone.records(most) if of is None else self._zone.records_of(of)
        wanted = difference(names, there, ours)
        self._zone.change(wanted)
        return wanted
