"""What an operator does with single mailboxes: at the backend where each is, with IMAP's own commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from murder.admin.operate.annotations import values_in
from murder.admin.operate.parts import rows_below
from murder.admin.operate.reach import Reach, data_of
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.model.acl import Acl, parse_acl
from murder.model.entry import Location, MailboxEntry
from murder.model.name import (
    MailboxName,
    before_deletion,
    inbox_of,
    is_below,
    is_deleted,
    is_inbox,
    moved,
    owner_of,
)
from murder.wire import mutf7
from murder.wire.imap.mailboxes.mailbox import (
    RenameRequest,
    TreeRequest,
    format_joint_rename,
    format_tree,
)
from murder.wire.imap.mailboxes.status import parse_counts
from murder.wire.nodes.rename_words import CAPABILITY, TREES
from murder.wire.token import Scanner, string

STATUS_ITEMS: Final = b"(MESSAGES UNSEEN SIZE UIDNEXT UIDVALIDITY HIGHESTMODSEQ)"


@dataclass(frozen=True, slots=True)
class Shown:
    """All that `mailbox show` tells. `counts` is empty where nobody may look."""

    entry: MailboxEntry
    acl: Acl
    counts: Mapping[str, int] = field(default_factory=dict)
    quota: Mapping[str, Sequence[str]] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    subscriptions: Sequence[str] = ()


async def show(reach: Reach, name: MailboxName) -> Shown:
    """From the master and its backend. Raises Refusal, UpstreamFailure."""
    entry = await reach.find(name)
    server, external = entry.server, string(reach.external(name))
    quota: dict[str, list[str]] = {}
    reply = await reach.execute(server, b"GETQUOTAROOT " + external)
    for octets in data_of(reply, b"QUOTA"):
        scanner = Scanner(octets, 0)
        root = scanner.astring().decode("utf-8", "replace")
        quota[root] = scanner.rest().decode("ascii", "replace").strip(" ()").split()
    annotations: dict[str, str] = {}
    try:
        reply = await reach.execute(server, b"GETMETADATA (DEPTH infinity) %s (/shared)" % external)
        values = values_in(data_of(reply, b"METADATA"))
        annotations = {entry: value.decode("utf-8", "replace") for entry, value in values.items()}
    except Refusal:
        pass  # a backend without METADATA
    return Shown(entry, parse_acl(entry.raw_acl), await _counts(reach, entry), quota, annotations)


async def _counts(reach: Reach, entry: MailboxEntry) -> dict[str, int]:
    """As the owner sees it, where the backend lets the operator act for them."""
    owner = owner_of(entry.name)
    if owner is None or reach.credential.password is not None:
        return {}
    if "@" in owner and not reach.config.namespace.domains:
        return {}  # nobody's: a backend would take the owner for the user without the domain
    name = string(reach.namespace.external(entry.name, owner))
    try:
        reply = await reach.execute(
            entry.server, b"STATUS %s %s" % (name, STATUS_ITEMS), user=owner
        )
        counts = parse_counts(data_of(reply, b"STATUS")[0])
        return {item.value.lower(): count for item, count in counts.items()}
    except (Refusal, UpstreamFailure, BadSyntax, IndexError):
        return {}


# --- changing


async def create(reach: Reach, name: MailboxName, location: Location) -> None:
    """Raises Refusal, UpstreamFailure."""
    if (owner := owner_of(name)) is not None:
        reach.check_user(owner)
    command = b"CREATE " + string(reach.external(name))
    if location.partition:
        command += b" " + string(location.partition.encode())
    await reach.execute(location.server, command)


# RFC 6154 §2, by the names that mail programs give such folders
USES: Final = MappingProxyType(
    {
        **{use.lower(): f"\\{use}" for use in ("Archive", "Drafts", "Junk", "Sent", "Trash")},
        "spam": "\\Junk",
    }
)


def folders_of(reach: Reach, user: str, folders: Sequence[str]) -> dict[MailboxName, str]:
    """A user's own folders by their names as they see them, each with its special use ("": none), every use once. Raises
    Refusal."""
    uses: dict[MailboxName, str] = {}
    for folder in folders:
        external = reach.namespace.personal_prefix + mutf7.encode(folder)
        use = USES.get(folder.lower(), "")
        uses[reach.namespace.internal(external, user)] = "" if use in uses.values() else use
    return uses


async def dress(reach: Reach, name: MailboxName, user: str, use: str) -> list[str]:
    """A new folder of a user's: subscribed, and with its special use. What could not be done, and why. Raises
    UpstreamFailure."""
    missing = []
    server = (await reach.find(name)).server
    external = string(reach.namespace.external(name, user))
    wanted = {"not subscribed": b"SUBSCRIBE " + external}
    if use:
        value = string(use.encode())
        wanted[f"not known as {use}"] = b"SETMETADATA %s (/private/specialuse %s)" % (
            external,
            value,
        )
    for what, command in wanted.items():
        try:
            if reach.credential.password is not None:
                raise Refusal(Code.NO_PERMISSION, "that needs an operator's certificate")
            await reach.execute(server, command, user=user)
        except Refusal as refusal:
            missing.append(f"{what}: {refusal.text}")
    return missing


def renamed(
    rows: Sequence[MailboxEntry], old: MailboxName, new: MailboxName
) -> list[tuple[MailboxEntry, MailboxName]]:
    """What a rename takes along, each with its new name; nothing if there is no such mailbox."""
    below = [row for row in rows if is_below(row.name, old)]
    if not any(row.name == old for row in below):
        return []
    return [(row, moved(row.name, old, new)) for row in below]


def doomed(rows: Sequence[MailboxEntry], name: MailboxName) -> list[MailboxEntry]:
    """What a deletion takes along, children first; nothing if there is no such mailbox."""
    below = [row for row in rows if is_below(row.name, name)]
    if not any(row.name == name for row in below):
        return []
    return sorted(below, key=lambda row: len(row.name), reverse=True)


async def delete(reach: Reach, rows: Sequence[MailboxEntry]) -> str:
    """As one, by the backend of the root, the last of these, with those that have a part, and what it says. Where that asks
    no others (a Cyrus): each at its own backend, none while one of them is away, and what has gone comes back where
    another one is refused. What goes with its INBOX needs no word. Raises Refusal, UpstreamFailure."""
    root = rows[-1]
    if TREES in (await reach.backend(root.server)).capabilities:
        return await _as_tree(reach, b"XDELETE", root, rows)
    for server in sorted({row.server for row in rows}):
        await reach.execute(server, b"NOOP")
    inboxes = {(row.name, row.server) for row in rows if is_inbox(row.name)}
    gone: list[MailboxEntry] = []
    for row in rows:
        goes_along = any(
            row.name != inbox and row.server == server and is_below(row.name, inbox)
            for inbox, server in inboxes
        )
        if goes_along:
            continue
        try:
            await reach.execute(row.server, b"DELETE " + string(reach.external(row.name)))
        except (Refusal, UpstreamFailure) as problem:
            await _take_back(reach, gone, problem)
            raise
        gone.append(row)
    return ""


async def _take_back(reach: Reach, gone: Sequence[MailboxEntry], problem: Exception) -> None:
    """The rest has not been deleted. Raises Refusal where something stays so."""
    present = await reach.rows() if gone else []
    lost = []
    for row in reversed(gone):
        resting = [
            (was[1], other.name)
            for other in present
            if other.server == row.server
            and is_deleted(other.name)
            and (was := before_deletion(other.name)) is not None
            and was[0] == row.name
        ]
        words = (reach.external(max(resting)[1]), reach.external(row.name)) if resting else ()
        try:
            if not words:
                raise Refusal(
                    Code.NONEXISTENT, "It is not among the deleted mailboxes of any server"
                )
            await reach.execute(row.server, b"RENAME " + b" ".join(map(string, words)))
        except (Refusal, UpstreamFailure):
            lost.append(reach.shown(row.name))
    if lost:
        text = f"{' and '.join(lost)} stay deleted, the others are there"
        raise Refusal(Code.CANNOT, f"{problem}; {text}") from problem


async def _as_tree(
    reach: Reach, verb: bytes, root: MailboxEntry, rows: Sequence[MailboxEntry]
) -> str:
    servers = {row.server for row in rows} - {root.server}
    request = TreeRequest(reach.external(root.name), tuple(sorted(servers)))
    return (await reach.execute(root.server, format_tree(verb, request))).text


async def rename(reach: Reach, old: MailboxName, new: MailboxName) -> str:
    """With all below, at its backend, which does it together with those that have a part. What the backend says. Raises
    Refusal (nothing has changed then), UpstreamFailure."""
    entry = await reach.find(old)
    servers = await check_together(reach, await rows_below(reach, old), entry)
    request = RenameRequest(reach.external(old), reach.external(new), servers=servers)
    command = b"RENAME %s %s" % (string(request.old), string(request.new))
    if servers:
        command = format_joint_rename(request)
    return (await reach.execute(entry.server, command)).text


async def check_together(
    reach: Reach, rows: Sequence[MailboxEntry], root: MailboxEntry
) -> tuple[str, ...]:
    """The other backends that have something below it. Raises Refusal where the root's cannot rename what they have (a
    Cyrus): it would be left behind under the old name, where it would be whoever's comes to that name; UpstreamFailure."""
    elsewhere = [row for row in rows if is_below(row.name, root.name) and row.server != root.server]
    if not elsewhere or CAPABILITY in (await reach.backend(root.server)).capabilities:
        return tuple(sorted({row.server for row in elsewhere}))
    first = elsewhere[0]
    more = f" and {len(elsewhere) - 1} more" if len(elsewhere) > 1 else ""
    raise Refusal(
        Code.CANNOT,
        f"{reach.shown(first.name)} is at {first.server}{more}, not at {root.server}: nothing is renamed. Bring them "
        f"together before: `murder ctl mailbox move '{reach.shown(root.name)}' --to {root.server} --yes`",
    )


async def set_acl(reach: Reach, name: MailboxName, identifier: str, rights: str) -> None:
    """`rights` may begin with + or -; empty removes the identifier. Raises Refusal, UpstreamFailure."""
    entry, external = await reach.find(name), string(reach.external(name))
    who = string(identifier.encode("utf-8"))
    if rights:
        command = b"SETACL %s %s %s" % (external, who, string(rights.encode()))
    else:
        command = b"DELETEACL %s %s" % (external, who)
    await reach.execute(entry.server, command)


async def set_quota(reach: Reach, name: MailboxName, limits: Mapping[str, int]) -> None:
    """All limits of the root, by resource (RFC 9208); none: no root any more. Raises Refusal, UpstreamFailure."""
    entry = await reach.find(name)
    words = b" ".join(b"%s %d" % (resource.encode(), limit) for resource, limit in limits.items())
    await reach.execute(entry.server, b"SETQUOTA %s (%s)" % (string(reach.external(name)), words))


async def set_annotation(reach: Reach, name: MailboxName, key: str, value: str | None) -> None:
    """RFC 5464; None removes it. Raises Refusal, UpstreamFailure."""
    entry = await reach.find(name)
    argument = b"NIL" if value is None else string(value.encode())
    command = b"SETMETADATA %s (%s %s)"
    await reach.execute(
        entry.server, command % (string(reach.external(name)), string(key.encode()), argument)
    )


async def subscribe(reach: Reach, user: str, name: MailboxName, subscribed: bool) -> None:
    """For a user, at their INBOX's backend: needs an operator's certificate. Raises Refusal, UpstreamFailure."""
    if reach.credential.password is not None:
        raise Refusal(
            Code.NO_PERMISSION,
            "An administrator's password cannot act for a user: use a certificate",
        )
    entry = await reach.master.find(inbox_of(user))
    if entry is None:
        raise Refusal(Code.NONEXISTENT, f"There is no user {user}: they have no INBOX")
    if subscribed:
        await reach.find(name)
    verb = b"SUBSCRIBE " if subscribed else b"UNSUBSCRIBE "
    await reach.execute(
        entry.server, verb + string(reach.namespace.external(name, user)), user=user
    )


def resting(
    reach: Reach, rows: Sequence[MailboxEntry], name: MailboxName
) -> list[tuple[MailboxName, MailboxEntry]]:
    """What was last deleted under this name, with what went along below it, each with its name of before. Raises
    Refusal(NONEXISTENT)."""
    deleted: list[tuple[int, MailboxName, MailboxEntry]] = []
    for row in rows:
        before = before_deletion(row.name) if is_deleted(row.name) else None
        if before is not None and is_below(before[0], name):
            deleted.append((before[1], before[0], row))
    at_root = [at for at, before, _ in deleted if before == name]
    if not at_root:
        raise Refusal(
            Code.NONEXISTENT,
            f"Nothing that was called {reach.shown(name)} is kept. `murder ctl mailbox list --deleted` shows what is; "
            'backends keep deleted mailboxes with [backend] delete = "delayed"',
        )
    last = max(at_root)
    return sorted(
        ((before, row) for at, before, row in deleted if at == last), key=lambda pair: pair[0]
    )


async def undelete(
    reach: Reach, rows: Sequence[MailboxEntry], name: MailboxName
) -> tuple[str, list[tuple[MailboxName, MailboxName]]]:
    """Bring back what is `resting`: what the backend says, and the old and new names. Raises Refusal, UpstreamFailure."""
    back = resting(reach, rows, name)
    root = next(row for name_before, row in back if name_before == name)
    if TREES in (await reach.backend(root.server)).capabilities:
        said = await _as_tree(reach, b"XUNDELETE", root, [row for _, row in back])
        return said, [(row.name, name_before) for name_before, row in back]
    for name_before, row in back:
        command = b"RENAME %s %s"
        words = (string(reach.external(row.name)), string(reach.external(name_before)))
        await reach.execute(row.server, command % words)
    return "", [(row.name, name_before) for name_before, row in back]
