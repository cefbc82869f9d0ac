"""Users as the list knows them: by their INBOX."""

from collections.abc import Sequence
from dataclasses import dataclass

from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, is_deleted, is_inbox, owner_of


@dataclass(frozen=True, slots=True)
class UserLine:
    """`server` has the INBOX."""

    user: str
    server: str
    mailboxes: int
    inbox: MailboxName


def users_in(rows: Sequence[MailboxEntry]) -> list[UserLine]:
    """Every user that has an INBOX, in the order of the list."""
    counts: dict[str, int] = {}
    inboxes: list[tuple[str, MailboxEntry]] = []
    for row in rows:
        owner = owner_of(row.name) if row.is_active and not is_deleted(row.name) else None
        if owner is not None:
            counts[owner] = counts.get(owner, 0) + 1
            if is_inbox(row.name):
                inboxes.append((owner, row))
    return [UserLine(user, row.server, counts[user], row.name) for user, row in inboxes]
