"""The mailbox list for pages: all of a short one; of a long one some at a time, each page from where the one before it has
ended. So a page costs the master, and this process, little more than what it shows, however long the list is."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from murder.admin.operate.reach import Reach
from murder.admin.operate.users import UserLine, users_in
from murder.admin.web.desk import Desk
from murder.admin.web.forms import format_query
from murder.admin.web.rendering import PER_PAGE, Paged
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, owner_of

MOST_AT_ONCE: Final = 5000  # rows of a list that is short
BATCH: Final = 1000  # rows that are here at one time
# rows that a page goes over to find some that fit: the next one goes on behind them
MOST_LOOKED: Final = 100_000
_BEHIND_ALL_OF_IT: Final = b".\xff"

Fits = Callable[[Sequence[MailboxEntry]], list[MailboxEntry]]


async def short_list(reach: Reach, *, at_any_cost: bool = True) -> list[MailboxEntry] | None:
    """All rows, without their access lists; None where there are more. Of a master that tells them only together (Cyrus) it
    is all of them, or None where they are not wanted `at_any_cost`. Raises UpstreamFailure."""
    rows = await reach.master.heads(b"", MOST_AT_ONCE + 1)
    if rows is None:
        return await reach.heads() if at_any_cost else None
    return rows if len(rows) <= MOST_AT_ONCE else None


async def mailboxes_behind(
    reach: Reach, after: bytes, fits: Fits, most: int = PER_PAGE
) -> tuple[list[MailboxEntry], bytes]:
    """Some of the list that fit, and the name behind which to go on, b"" where that is all. Raises UpstreamFailure."""
    fitting: list[MailboxEntry] = []
    looked = 0
    while True:
        rows = await reach.master.heads(after, BATCH) or []
        fitting += await asyncio.to_thread(fits, rows)
        looked += len(rows)
        if len(fitting) > most:
            return fitting[:most], fitting[most - 1].name
        if len(rows) < BATCH:
            return fitting, b""
        after = rows[-1].name
        if looked >= MOST_LOOKED:
            return fitting, after


async def users_behind(
    reach: Reach, after: bytes, find: str, most: int = PER_PAGE
) -> tuple[list[UserLine], bytes]:
    """As `mailboxes_behind`, of users with `find` in their names; a name means all below it, too."""
    lines: list[UserLine] = []
    begun: list[MailboxEntry] = []  # of the last user
    after = after + _BEHIND_ALL_OF_IT if after else b""
    looked = 0
    while True:
        rows = await reach.master.heads(after, BATCH) or []
        is_all = len(rows) < BATCH
        looked += len(rows)
        after = rows[-1].name if rows else after
        rows = begun + rows
        begun = [] if is_all else _of_last_user(rows)
        whole = rows[: len(rows) - len(begun)]
        lines += [user for user in users_in(whole) if find.lower() in user.user.lower()]
        if len(lines) > most:
            return lines[:most], lines[most - 1].inbox
        if is_all:
            return lines, b""
        if looked >= MOST_LOOKED and whole:
            return lines, whole[-1].name


def _of_last_user(rows: Sequence[MailboxEntry]) -> list[MailboxEntry]:
    last = owner_of(rows[-1].name)
    at = len(rows)
    while last is not None and at and owner_of(rows[at - 1].name) == last:
        at -= 1
    return list(rows[at:])


def after_in(desk: Desk, reach: Reach) -> bytes:
    """Behind which name the page begins. Raises Refusal."""
    given = desk.fields.get("after", "")
    return reach.name(given) if given else b""


def part(desk: Desk, reach: Reach, rows: Sequence[object], after: bytes) -> Paged:
    """These rows, and the way to what is behind a name."""
    fields = {key: value for key, value in desk.fields.items() if key not in ("page", "after")}
    name = reach.external(MailboxName(after)).decode("utf-8", "surrogateescape") if after else ""
    to = format_query(desk.path, {**fields, "after": name}) if after else ""
    return Paged(rows, 1, 0, after=to)
