"""What a session of a frontend waits for without a task of its own."""

from typing import Protocol

from murder.model.name import MailboxName
from murder.net.outgoing.relay import ImapUpstream

# A SELECT on its way (`lobby`): where, what, as it came
Opening = tuple[ImapUpstream, MailboxName, bytes]


class Waiting(Protocol):
    """Likewise a login on its way to another server (`multiplexor.express`)."""

    def give_up(self) -> None: ...


class Waits(Protocol):
    """An IDLE under way."""

    def done(self, line: bytes) -> None:
        """The line that it waits for has come."""
        ...

    def moved(self, upstream: ImapUpstream) -> None:
        """The selected mailbox is reached over this connection from now on."""
        ...

    def over(self) -> None:
        """Nobody waits any more."""
        ...
