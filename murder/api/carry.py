"""The power of a store whose mailboxes can move to another server, and come from there, while people use them.

Carrying is repeated until little is left, then the mailbox is frozen and the rest follows: so each method may be called
again with the same things, and must then change nothing. Rows are the owner's (their `\\Seen`); other readers' are in the
portrait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from murder.api.store import Incoming
from murder.model.carried import CarriedIdentity, Held, Portrait
from murder.model.message import Message, ModSeq, Uid
from murder.model.name import MailboxName


@dataclass(frozen=True, slots=True)
class CarriedMessage:
    """A message that arrives as it was: UID, mod-sequence, flags, dates, id. `incoming` is None where its octets are
    here already and only the row is new."""

    message: Message
    incoming: Incoming | None = None


@dataclass(frozen=True, slots=True)
class CarriedRetained:
    """A message that was expunged `at` that moment, and may come back. `incoming` is None where it is kept here already."""

    message: Message
    at: datetime
    incoming: Incoming | None = None


@runtime_checkable
class CarriesMailboxes(Protocol):
    """See the module. Methods raise Refusal(NONEXISTENT) for a mailbox that is not there."""

    async def portrait(self, name: MailboxName, since: ModSeq) -> Portrait:
        """All but the messages; what was expunged, after `since` only."""
        ...

    async def rows(
        self, name: MailboxName, since: ModSeq, after: Uid, most: int
    ) -> Sequence[Message]:
        """Messages with a mod-sequence above `since` and a UID above `after`: the lowest `most` UIDs, ascending."""
        ...

    async def freeze(self, name: MailboxName, frozen: bool) -> None:
        """Refuse (IN_USE) every change but those below, in every process, from the moment of return; or no longer.
        Survives a crash. `claim_recent` of a frozen mailbox claims nothing."""
        ...

    async def is_frozen(self, name: MailboxName) -> bool: ...

    async def hold(self, name: MailboxName, partition: str, identity: CarriedIdentity) -> Held:
        """Make the mailbox if it is not there, and say what is there. ALREADY_EXISTS where one of another identity
        has the name."""
        ...

    async def receive(self, name: MailboxName, messages: Sequence[CarriedMessage]) -> None:
        """Add these messages or replace their rows, all or none; the mailbox's own numbers stay behind."""
        ...

    async def complete(self, name: MailboxName, portrait: Portrait) -> None:
        """Remove what was expunged, remember it, and take over the numbers: all that happened up to the portrait's
        mod-sequence is here now."""
        ...


@runtime_checkable
class CarriesRetained(Protocol):
    """A power of a store that `CarriesMailboxes` and `RestoresExpunged`: what may come back goes along with its mailbox."""

    async def receive_retained(
        self, name: MailboxName, after: Uid, up_to: Uid, messages: Sequence[CarriedRetained]
    ) -> None:
        """Keep these messages, in UID order, and of the UIDs above `after`, `up_to` the highest, no others: they have come
        back, or been kept for their time. All or none. Raises Refusal(NONEXISTENT)."""
        ...
