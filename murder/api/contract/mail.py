"""Mailboxes and messages for the checks of stores."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from murder.api.store import Mailbox, MailboxStore, NewMessage
from murder.model.message import Uid
from murder.model.name import MailboxName

Make = Callable[[], Awaitable[MailboxStore]]  # a started store on a new folder

ANNA: Final = MailboxName(b"user.anna")
OTHER: Final = MailboxName(b"user.anna.Other")
SMALL: Final = b"Subject: hello\r\n\r\nIt works.\r\n"


async def deliver(
    store: MailboxStore,
    mailbox: Mailbox,
    *messages: bytes,
    flags: frozenset[str] = frozenset(),
    date: datetime | None = None,
) -> list[Uid]:
    """Append messages in one call."""
    incomings = []
    for octets in messages:
        incoming = store.incoming()
        for at in range(0, len(octets), 65536):
            await incoming.write(octets[at : at + 65536])
        incomings.append(incoming)
    try:
        new = [NewMessage(incoming, flags, date) for incoming in incomings]
        return list(await mailbox.append(new))
    finally:
        for incoming in incomings:
            await incoming.close()


async def opened(make: Make, *names: MailboxName) -> tuple[MailboxStore, list[Mailbox]]:
    """A new store with these mailboxes, open for their owner."""
    store = await make()
    for name in names:
        await store.create(name, "default")
    return store, [await store.open(name, "anna") for name in names]
