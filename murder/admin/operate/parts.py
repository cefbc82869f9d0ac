"""Parts of the master's list, for who needs no more of it: a hierarchy, what rests since it was deleted, what concerns a
user. Of a master that tells no part (Cyrus, and what an older version does not know) all of it comes."""

from murder.admin.operate.reach import Reach
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, above_deleted, inbox_of


async def rows_below(reach: Reach, name: MailboxName) -> list[MailboxEntry]:
    """A mailbox with all below it, without access lists. Raises UpstreamFailure."""
    rows = await reach.master.below(name)
    return rows if rows is not None else await reach.heads()


async def rows_deleted(reach: Reach, name: MailboxName) -> list[MailboxEntry]:
    """Likewise what was called so, or was below, and rests since it was deleted. Raises UpstreamFailure."""
    return await rows_below(reach, above_deleted(name))


async def rows_about(reach: Reach, user: str, *others: str) -> list[MailboxEntry]:
    """A user's mailboxes and all that name the user in their access lists, these with them; and the mailboxes of others.
    Raises UpstreamFailure."""
    granted = await reach.master.granted(user.encode("utf-8", "surrogateescape"))
    if granted is None:
        return await reach.rows()
    rows: dict[MailboxName, MailboxEntry] = {}
    for name in (user, *others):
        rows |= {row.name: row for row in await rows_below(reach, inbox_of(name))}
    return list((rows | {row.name: row for row in granted}).values())
