"""What a placement policy sees and says: where a new mailbox goes."""

from dataclasses import dataclass

from murder.model.entry import Location, MailboxEntry
from murder.model.name import MailboxName


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """One backend that could take a new mailbox.

    `mailboxes` counts its entries in the list, `free_octets` is None where the backend does not tell.
    `weight` is the operator's; 0 means "no new mailboxes" and such a backend is not offered.
    """

    location: Location
    mailboxes: int
    free_octets: int | None = None
    weight: float = 1.0
    reachable: bool = True


@dataclass(frozen=True, slots=True)
class NewMailbox:
    """The mailbox that is to be placed. `owner` is None for a shared one; `user` asks for it."""

    name: MailboxName
    owner: str | None
    user: str
    parent: MailboxEntry | None
