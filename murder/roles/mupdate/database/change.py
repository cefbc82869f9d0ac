"""What can change in a mailbox list: the steps of which a commit is made.

Every step can be done twice without harm; a commit's steps happen all or not at all.
"""

from dataclasses import dataclass

from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName


@dataclass(frozen=True, slots=True)
class PutEntry:
    """Add the row or replace it. The entry's own `seq` is ignored: the list gives the next one.

    A row that is there already, octet for octet, is left alone and gets no new sequence number.
    """

    entry: MailboxEntry


@dataclass(frozen=True, slots=True)
class RemoveEntry:
    """Remove the row; nothing happens if there is none."""

    name: MailboxName


@dataclass(frozen=True, slots=True)
class PutIntent:
    """Write down what is about to be done elsewhere (a store, the master), so that a start after a crash
    can finish or undo it. `octets` mean something only to the room that wrote them."""

    intent_id: str
    octets: bytes


@dataclass(frozen=True, slots=True)
class RemoveIntent:
    """Forget an intent; nothing happens if it is gone."""

    intent_id: str


@dataclass(frozen=True, slots=True)
class PutNote:
    """A small durable fact beside the rows (up to where a replica has followed its master)."""

    key: str
    octets: bytes


Change = PutEntry | RemoveEntry | PutIntent | RemoveIntent | PutNote
