"""What a delivery filter is: one message for one recipient, and what is to be done with it.

A plugin of this kind is made by the hook `make_delivery_filter`; a backend asks it before it stores a message that came by
LMTP. The actions are those of RFC 5228: nothing is done but what is said here; where nobody says anything it is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from murder.model.name import MailboxName


@dataclass(frozen=True, slots=True)
class Arriving:
    """A message that has come, for one of its recipients.

    `sender` and `recipient` are the addresses of its envelope, without `<>` (a bounce has the sender b""). `mailbox` is
    where it is kept: the INBOX, or what is behind the `+`. `user` is whose mailbox that is, None where it is nobody's.
    `octets` is the whole message with the fields of the final delivery on top; valid until `decide` returns. `session` is
    the log's `cid` of the connection, `peer` the address of the host it came from.
    """

    sender: bytes
    recipient: bytes
    mailbox: MailboxName
    user: str | None
    octets: memoryview = field(repr=False)
    session: str = ""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Keep:
    """Where it would go without a filter, with these flags (`\\Flagged`, `$Junk`)."""

    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FileInto:
    """Into another mailbox of this backend, called as its user's mail program calls it, in Unicode: `INBOX/Lists/murder`, or
    `Lists/murder` where the configuration has users' mailboxes beside INBOX. The user must have the right to insert
    there; mailboxes of nobody must take mail from anybody. `create`: it is made where it is not there. Where it cannot be
    had, the message is kept instead, and the log says so."""

    mailbox: str
    flags: frozenset[str] = frozenset()
    create: bool = False


@dataclass(frozen=True, slots=True)
class Discard:
    """Nowhere, and the sender hears that it has arrived. Other actions stand beside it."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Nowhere, and the sender is told why (LMTP 550). The only action."""

    text: str


@dataclass(frozen=True, slots=True)
class Redirect:
    """To another address. This version redirects for users' scripts only: such a message is refused for now (LMTP 451)."""

    address: bytes


Action = Keep | FileInto | Discard | Reject | Redirect


class DeliveryFilter(Protocol):
    """One in each worker process. Must not block the event loop: a script that may run for long belongs in a thread."""

    async def decide(self, message: Arriving) -> Sequence[Action] | None:
        """What is to be done, one thing at least; None to let the next filter say. Raises Refusal to have the message
        refused with its code; whatever else it raises, or takes too long for, is told to the sender as "try again
        later": no mail is lost for a filter's sake. May be asked again about a message that a sender tries again."""
        ...
