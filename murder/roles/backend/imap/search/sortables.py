"""Messages of a mailbox with what SORT and THREAD compare of them, one after the other, in fair turns."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from murder.api.store import Mailbox
from murder.errors import Code, Refusal
from murder.mime.sort import Keyed, Sortable, keyed, needs_envelope
from murder.model.message import Message, Uid
from murder.model.part import Envelope
from murder.model.query.search import SortOrder
from murder.net.turns import Turn
from murder.roles.backend.changes.updates import View
from murder.roles.backend.messages.content import Reader, sized

NO_ENVELOPE: Final = Envelope()
AT_ONCE: Final = 1000  # messages asked of the store


async def read_keyed(view: View, uids: Sequence[int], orders: Sequence[SortOrder]) -> list[Keyed]:
    """Messages with what the sort keys compare, numbered by UID; such as do not exist are left out."""
    wanted = needs_envelope(orders)
    return [
        keyed(Sortable(message.uid, message, envelope), orders)
        async for message, envelope in each_envelope(view, uids, wanted=wanted)
    ]


async def each_envelope(
    view: View, uids: Sequence[int], *, wanted: bool = True
) -> AsyncIterator[tuple[Message, Envelope]]:
    """Each message that can still be read with its envelope (an empty one where none is `wanted`), in UID order. An envelope
    may be large: whoever keeps something keeps what is needed of it."""
    turn = Turn()
    for start in range(0, len(uids), AT_ONCE):
        batch = [Uid(uid) for uid in uids[start : start + AT_ONCE]]
        for message in await view.messages(batch):
            envelope = await _envelope(view.mailbox, message) if wanted else NO_ENVELOPE
            yield await sized(view.mailbox, message), envelope
            if turn.is_over:
                await turn.rest()


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
