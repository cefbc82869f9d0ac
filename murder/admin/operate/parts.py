"""Parts of the master's list, for who needs no more of it: a hierarchy, a server's mailboxes, what rests since it was
deleted, what concerns a user; and which servers there are. Of a master that tells no part (Cyrus, and what an older version
does not know) all of it comes."""

from collections.abc import Mapping, Sequence

from murder.admin.operate.reach import Reach
from murder.errors import Refusal
from murder.model.entry import MailboxEntry
from murder.model.name import DELETED_ROOT, MailboxName, above_deleted, inbox_of, is_below
from murder.model.query.listmatch import literal_head


def names_meant(reach: Reach, what: str) -> tuple[MailboxName, ...]:
    """Those that this may be, with what is below them: of a mailbox, and of a user's INBOX; none of a pattern with `*` or
    `%`. Raises Refusal."""
    if "*" in what or "%" in what:
        return ()
    name = reach.name(what)
    return (name,) if "/" in what or "!" in what else (name, inbox_of(what))


async def rows_below(reach: Reach, name: MailboxName) -> list[MailboxEntry]:
    """A mailbox with all below it, without access lists. Raises UpstreamFailure."""
    rows = await reach.master.below(name)
    return rows if rows is not None else await reach.heads()


async def rows_within(reach: Reach, *names: MailboxName) -> list[MailboxEntry]:
    """Mailboxes with all below them, and their access lists. Raises UpstreamFailure."""
    rows: dict[MailboxName, MailboxEntry] = {}
    for name in names:
        below = await reach.master.prefixed(name + b".")
        if below is None:
            everything = await reach.rows()
            return [row for row in everything if any(is_below(row.name, name) for name in names)]
        top = await reach.master.find(name)
        rows |= {row.name: row for row in ([top] if top is not None else []) + below}
    return list(rows.values())


async def rows_at(reach: Reach, server: str) -> Sequence[MailboxEntry]:
    """All of a server. A Cyrus compares locations as they are written, and would leave out those without a partition. Raises
    UpstreamFailure."""
    if await reach.master.servers() is None:
        return [row for row in await reach.rows() if row.server == server]
    return await reach.master.list_server(server)


async def rows_deleted(reach: Reach, name: MailboxName) -> list[MailboxEntry]:
    """What was called so, or was below, and rests since it was deleted, without access lists. Raises UpstreamFailure."""
    return await rows_below(reach, above_deleted(name))


async def rows_resting(reach: Reach) -> list[MailboxEntry]:
    """All that rests so, among others where there are domains. Raises UpstreamFailure."""
    return await _beginning(
        reach, b"" if reach.config.namespace.domains else DELETED_ROOT + b".", acls=True
    )


async def rows_meant(reach: Reach, what: str, *, acls: bool = False) -> list[MailboxEntry]:
    """Those among which `moves.chosen` finds what is meant. Raises Refusal, UpstreamFailure."""
    names = names_meant(reach, what)
    if not names:
        return await _beginning(reach, beginning_of(reach, what), acls=acls)
    if acls:
        return await rows_within(reach, *names)
    rows: dict[MailboxName, MailboxEntry] = {}
    for name in names:
        below = await reach.master.below(name)
        if below is None:
            return await reach.heads()
        rows |= {row.name: row for row in below}
    return list(rows.values())


async def _beginning(reach: Reach, prefix: bytes, *, acls: bool) -> list[MailboxEntry]:
    rows = await reach.master.prefixed(prefix) if prefix else None
    if rows is not None:
        return rows
    return await (reach.rows() if acls else reach.heads())


def beginning_of(reach: Reach, pattern: str) -> bytes:
    """What the names of all begin with that fit a pattern with `*` or `%`; b"" where that cannot be told."""
    namespace, octets = reach.namespace, pattern.encode("utf-8", "surrogateescape")
    head = literal_head(octets)
    _, mark, domain = octets[len(head) :].rpartition(b"@")
    if namespace.domains and (not mark or literal_head(domain) != domain or not domain):
        return b""  # a domain's mailboxes lie together, and this may be any
    if namespace.is_own(head) or (namespace.domains and b"@" in head):
        return b""
    try:
        return namespace.internal(head + b"@" + domain if namespace.domains else head, "")
    except Refusal:  # such names there are not
        return b""


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


async def held(reach: Reach) -> Mapping[str, int]:
    """How many rows, reserved ones too, the list has of each server that has any. Raises UpstreamFailure."""
    counts = await reach.master.servers()
    if counts is not None:
        return counts
    counts = {}
    for row in await reach.heads():
        if row.server:
            counts[row.server] = counts.get(row.server, 0) + 1
    return counts
