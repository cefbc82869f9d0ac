"""What scripts' outcomes add to mailboxes: whoever runs them says how."""

from typing import Protocol

from murder.api.store import NewMessage
from murder.model.name import MailboxName


class Copies(Protocol):
    """Into mailboxes here, within their quotas. Raises Refusal."""

    async def add(self, name: MailboxName, message: NewMessage) -> None:
        """A copy of the message that scripts see, or of a version of it."""
        ...

    async def add_made(self, name: MailboxName, message: NewMessage) -> None:
        """Another message, that was made for it."""
        ...
