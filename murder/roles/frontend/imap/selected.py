"""The mailbox that a session of a frontend has selected, and what is kept of it when it moves."""

from dataclasses import dataclass
from typing import Final

from murder.model.name import MailboxName
from murder.net.outgoing.relay import ImapUpstream
from murder.wire.imap.response import status_line

LEFT: Final = status_line(b"*", b"OK", "The previous mailbox is closed", b"CLOSED")
ALL: Final = ("", b"")  # in place of a backend and of what has left it: its connection has gone


# as if it were frozen: every session makes one, and a frozen one takes thrice the steps
@dataclass(slots=True)
class Selected:
    """The selected mailbox and the backend it is on."""

    upstream: ImapUpstream
    name: MailboxName
    is_read_only: bool = False

    @property
    def server(self) -> str:
        """The backend that has it."""
        return self.upstream.server


@dataclass(frozen=True, slots=True)
class Moved:
    """A mailbox that was selected, what the client knows of it, and the commands (tag, octets) that nobody has begun."""

    selected: Selected
    view: bytes
    sent: list[tuple[bytes, bytes]]
    is_idling: bool  # the first of them is an IDLE that has had its continuation
