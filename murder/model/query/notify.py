"""What NOTIFY asks for (RFC 5465), as values. Knows no octets of a protocol."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from murder.model.query.fetch import FetchItem


class Event(Enum):
    """An event; the value is its word on the wire."""

    MESSAGE_NEW = "MessageNew"
    MESSAGE_EXPUNGE = "MessageExpunge"
    FLAG_CHANGE = "FlagChange"
    ANNOTATION_CHANGE = "AnnotationChange"
    MAILBOX_NAME = "MailboxName"
    SUBSCRIPTION_CHANGE = "SubscriptionChange"
    MAILBOX_METADATA_CHANGE = "MailboxMetadataChange"
    SERVER_METADATA_CHANGE = "ServerMetadataChange"


MESSAGE_EVENTS: Final = frozenset(
    {Event.MESSAGE_NEW, Event.MESSAGE_EXPUNGE, Event.FLAG_CHANGE, Event.ANNOTATION_CHANGE}
)


SUPPORTED: Final = tuple(event for event in Event if event is not Event.ANNOTATION_CHANGE)


class Which(Enum):
    """Which mailboxes a group of events is about (RFC 5465 §6)."""

    SELECTED = "SELECTED"
    SELECTED_DELAYED = "SELECTED-DELAYED"
    INBOXES = "INBOXES"
    PERSONAL = "PERSONAL"
    SUBSCRIBED = "SUBSCRIBED"
    SUBTREE = "SUBTREE"
    MAILBOXES = "MAILBOXES"


@dataclass(frozen=True, slots=True)
class EventGroup:
    """Events of some mailboxes; no events: these mailboxes are not watched. `mailboxes` (as the client wrote them) for
    SUBTREE and MAILBOXES. `fetch` is what to tell of a new message, only in the selected mailbox."""

    which: Which
    mailboxes: tuple[bytes, ...] = ()
    events: frozenset[Event] = field(default_factory=frozenset)
    fetch: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class NotifyRequest:
    """`groups` is empty for NOTIFY NONE. `status`: tell the STATUS of every mailbox first."""

    groups: tuple[EventGroup, ...] = ()
    status: bool = False
