"""Where a mailbox lives: the host's list, and on a miss the master's present through the replica.

Three answers, never mixed: here it is; there is none (for certain); cannot know now (`UpstreamFailure`).
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable

from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry, parse_location
from murder.model.name import MailboxName, display, inbox_of, no_such_mailbox
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.record import ACTIVE, FLAGS_AT, HEAD_OCTETS

Ping = Callable[[float], Awaitable[None]]


def server_in(row: bytes) -> str:
    """Whose mailbox it is, by a row as the list has it; "" where it is not active."""
    if not row[FLAGS_AT] & ACTIVE:
        return ""
    octets = (row[FLAGS_AT + 1] << 8) + row[FLAGS_AT + 2]
    return server_of(row[HEAD_OCTETS : HEAD_OCTETS + octets])


@functools.lru_cache(maxsize=256)
def server_of(raw_location: bytes) -> str:
    """Of a row's location."""
    return parse_location(raw_location).server


class Locator:
    """See the module."""

    def __init__(
        self, mailboxes: MailboxList, ping: Ping, timeout_s: float, missing_grace_s: float
    ) -> None:
        """`missing_grace_s`: behind a master that may have lost its list, see `check_whole`."""
        self._mailboxes = mailboxes
        self._ping = ping
        self._timeout_s = timeout_s
        self.missing_grace_s = missing_grace_s
        self.problem = ""  # why the list's master could not be asked when that was tried last
        self._has_failed = asyncio.Event()  # the same

    def known(self, name: MailboxName) -> MailboxEntry | None:
        """An active row of the host's list."""
        entry = self._mailboxes.find(name)
        return entry if entry is not None and entry.is_active else None

    async def find(self, name: MailboxName) -> MailboxEntry:
        """Raises Refusal(NONEXISTENT) where it certainly is not, UpstreamFailure where that cannot be known now."""
        entry = self.known(name)
        if entry is not None:
            return entry
        await self.catch_up()
        if not self._mailboxes.synchronised:
            raise UpstreamFailure(
                UpstreamKind.UNSYNCHRONISED,
                "mailbox list",
                "this host's list has never been complete",
            )
        entry = self._mailboxes.find(name)
        if entry is None:
            self.check_whole()
            raise no_such_mailbox(name)
        if not entry.is_active:
            raise UpstreamFailure(
                UpstreamKind.MOVING, entry.server, f"{display(name)} is being created or moved"
            )
        return entry

    @property
    def lacking(self) -> int:
        """How many mailboxes the master may have lost, as long as that counts."""
        return self._mailboxes.lacks(self.missing_grace_s)

    def check_whole(self) -> None:
        """For who takes a name that is not in the list for one that nobody has. Raises UpstreamFailure where a master has
        just come without mailboxes that the list had: their backends may not have announced them yet."""
        if count := self.lacking:
            raise UpstreamFailure(
                UpstreamKind.UNSYNCHRONISED,
                "mailbox list",
                f"the master came without {count} mailboxes that were here: what is not known may be one of them",
            )

    def check_inbox(self, user: str) -> None:
        """The same for who would make a user's INBOX, where there is none. One that is reserved is on its way."""
        if self._mailboxes.find(inbox_of(user)) is None:
            self.check_whole()

    async def find_by_token(self, name: MailboxName) -> MailboxEntry:
        """For who has no right but a URL's token: what is being created or moved is none (RFC 4467 §7: nobody learns
        why). Raises Refusal(NONEXISTENT), UpstreamFailure."""
        try:
            return await self.find(name)
        except UpstreamFailure as failure:
            if failure.kind is not UpstreamKind.MOVING:
                raise
        raise no_such_mailbox(name)

    async def catch_up(self) -> None:
        """Until the host's list has all that the master has confirmed. Raises UpstreamFailure."""
        try:
            await self._ping(self._timeout_s)
        except UpstreamFailure as failure:
            self.problem = failure.text
            self._has_failed.set()
            raise
        self.problem = ""
        self._has_failed.clear()

    async def keep_asking(self, every_s: float) -> None:
        """Where nobody else may ask for long: after a failure, until the master answers again."""
        self.problem = "it has not asked the master yet"
        while True:
            with contextlib.suppress(UpstreamFailure):  # in `problem`
                await self.catch_up()
            await self._has_failed.wait()
            await asyncio.sleep(every_s)
