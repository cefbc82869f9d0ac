"""What scripts' outcomes add to mailboxes: whoever runs them says how."""

from collections.abc import Sequence
from typing import Final, Protocol

from murder.api.store import Incoming, NewMessage, Once
from murder.mime.mapped import MAPPED_OCTETS, let_go
from murder.model.name import MailboxName
from murder.net.turns import Turn

WRITE_OCTETS: Final = 256 * 1024  # at once


class Copies(Protocol):
    """Into mailboxes here, within their quotas. Raises Refusal."""

    async def add(self, name: MailboxName, message: NewMessage, once: Once | None = None) -> None:
        """A copy of the message that scripts see, or of a version of it. `once`: where the store `AppendsOnce`."""
        ...

    async def add_made(self, name: MailboxName, message: NewMessage) -> None:
        """Another message, that was made for it."""
        ...


async def write_in_turns(incoming: Incoming, pieces: Sequence[bytes | memoryview]) -> None:
    """A message that may be large. Raises Refusal where the disk takes no more."""
    turn = Turn()
    for piece in pieces:
        octets = memoryview(piece)
        for start in range(0, len(octets), WRITE_OCTETS):
            await incoming.write(octets[start : start + WRITE_OCTETS])
            if not start % MAPPED_OCTETS:
                let_go(octets)
            if turn.is_over:
                await turn.rest()
        let_go(octets)
