"""Messages of a mailbox with what SORT and THREAD compare of them, batch by batch."""

import asyncio
from collections.abc import Sequence
from typing import Final

from murder.api.store import Mailbox
from murder.backend.imap.content import Reader
from murder.errors import Code, Refusal
from murder.mime.sort import Sortable, needs_envelope
from murder.model.message import Message, Uid
from murder.model.part import Envelope
from murder.model.search import SortOrder

NO_ENVELOPE: Final = Envelope()
AT_ONCE: Final = 1000  # messages read before others get their turn


async def read_sortables(
    mailbox: Mailbox, uids: Sequence[int], orders: Sequence[SortOrder]
) -> list[Sortable]:
    """Messages with what the sort keys compare, numbered by UID; such as do not exist are left out."""
    rows = await read_envelopes(mailbox, uids, wanted=needs_envelope(orders))
    return [Sortable(message.uid, message, envelope) for message, envelope in rows]


async def read_envelopes(
    mailbox: Mailbox, uids: Sequence[int], *, wanted: bool = True
) -> list[tuple[Message, Envelope]]:
    """Each message that still exists with its envelope (an empty one where none is `wanted`), in UID order."""
    rows: list[tuple[Message, Envelope]] = []
    for start in range(0, len(uids), AT_ONCE):
        batch = [Uid(uid) for uid in uids[start : start + AT_ONCE]]
        for message in await mailbox.messages(batch):
            envelope = await _envelope(mailbox, message) if wanted else NO_ENVELOPE
            rows.append((message, envelope))
        await asyncio.sleep(0)
    return rows


async def _envelope(mailbox: Mailbox, message: Message) -> Envelope:
    reader = Reader(mailbox, message)
    try:
        return (await reader.part()).envelope or NO_ENVELOPE
    except Refusal as refusal:
        if refusal.code is not Code.EXPUNGE_ISSUED:
            raise
        return NO_ENVELOPE
    finally:
        reader.close()
