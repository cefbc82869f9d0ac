"""What a user has been given in other people's mailboxes: rewritten when they are renamed, removed when they are deleted.

A name that stayed behind would belong to whoever is called so next. Done behind the mailboxes themselves, at the backend of
each; what could not be done is told, and done by the same command given again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from murder.admin.operate.mailboxes import set_acl
from murder.admin.operate.reach import Reach
from murder.errors import Refusal, UpstreamFailure
from murder.model.acl import format_rights, parse_acl
from murder.model.entry import MailboxEntry
from murder.model.name import before_deletion, inbox_of, is_below, is_deleted


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of an access list: `identifier` as it stands there, the user's name or `-` and the name."""

    row: MailboxEntry
    identifier: str
    rights: str


def grants_of(rows: Sequence[MailboxEntry], user: str) -> list[Grant]:
    """All outside of their own mailboxes, also of mailboxes that wait for their removal."""
    own = inbox_of(user)
    grants = []
    for row in rows:
        if row.is_active and user.encode("utf-8", "surrogateescape") in row.raw_acl:
            before = before_deletion(row.name) if is_deleted(row.name) else None
            if is_below(before[0] if before else row.name, own):
                continue
            entries = parse_acl(row.raw_acl).entries
            grants += [
                Grant(row, identifier, format_rights(entries[identifier]))
                for identifier in (user, f"-{user}")
                if identifier in entries
            ]
    return grants


async def hand_on(reach: Reach, grants: Sequence[Grant], user: str | None) -> list[str]:
    """Give each to another name, or (None) take it away; what went wrong, a sentence each."""
    problems = []
    for grant in grants:
        try:
            if user is not None:
                sign = "-" if grant.identifier.startswith("-") else ""
                await set_acl(reach, grant.row.name, sign + user, grant.rights)
            await set_acl(reach, grant.row.name, grant.identifier, "")
        except (Refusal, UpstreamFailure) as problem:
            problems.append(
                f"{reach.shown(grant.row.name)}, rights of {grant.identifier}: {problem}"
            )
    return problems
