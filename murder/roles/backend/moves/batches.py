"""Messages between two backends, a batch at a time: what either end does with one.

While the target makes one batch durable the next are on their way. What takes long (digests, files) is done in threads, so
that the clients of both backends notice little; no more than `AHEAD` batches are in memory, whatever moves.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from murder.api import CarriedMessage, Incoming
from murder.api.store import Mailbox
from murder.errors import Code, Refusal
from murder.model.carried import digest_line
from murder.model.message import Message, Uid
from murder.net.frames import FrameChannel
from murder.net.turns import SHORT_TURN_S, Turn, line_up
from murder.roles.backend.messages.content import size_told
from murder.wire.nodes.carry import OCTETS

BATCH_MESSAGES: Final = 250
BATCH_OCTETS: Final = 4 * 1024 * 1024  # about so much is made durable at once
AHEAD: Final = 3  # batches on their way before the first is answered for: one comes, two are stored
MAX_HELD: Final = 4 * BATCH_OCTETS  # of one batch in memory, whatever a source puts into it
LARGE_OCTETS: Final = 1024 * 1024  # written piece by piece as it comes, in place of at once

Octets = bytes | memoryview


async def batches_of(
    pages: Callable[[Uid], Awaitable[Sequence[Message]]], has: Callable[[Uid], bool]
) -> AsyncIterator[list[Message]]:
    """All rows, `pages` of them at a time, in batches of about so many octets; those that the target `has` weigh nothing."""
    batch: list[Message] = []
    octets, after = 0, Uid(0)
    while rows := await pages(after):
        after = rows[-1].uid
        for row in rows:
            batch.append(row)
            octets += 0 if has(row.uid) else row.size
            if octets >= BATCH_OCTETS or len(batch) >= BATCH_MESSAGES:
                yield batch
                batch, octets = [], 0
    if batch:
        yield batch


async def read(
    mailbox: Mailbox, rows: Sequence[Message], wants: Callable[[Message], bool]
) -> list[tuple[Message, memoryview | None]]:
    """Rows with the octets of those that are wanted; without those whose octets have gone since."""
    batch: list[tuple[Message, memoryview | None]] = []
    await line_up()
    turn = Turn(SHORT_TURN_S)
    for row in rows:
        try:
            batch.append((row, await mailbox.octets(row.uid) if wants(row) else None))
        except Refusal as refusal:
            if refusal.code is not Code.EXPUNGE_ISSUED:
                raise
        if turn.is_over:
            await turn.rest()
    return batch


def digest(rows: Sequence[tuple[Message, memoryview | None]]) -> str:
    """Of rows and octets, the same at both ends. For a thread."""
    sum_of_all = hashlib.sha256()
    for row, octets in rows:
        sum_of_all.update(digest_line(row))
        if octets is not None:
            sum_of_all.update(octets)
    return sum_of_all.hexdigest()


async def with_sizes(carried: Sequence[CarriedMessage]) -> list[CarriedMessage]:
    """What comes with its octets, as `NewMessage` would have it: `told_size` does not travel."""
    messages: list[CarriedMessage] = []
    turn = Turn(SHORT_TURN_S)
    for message in carried:
        if turn.is_over:
            await turn.rest()
        size = await size_told(message.incoming.octets()) if message.incoming is not None else 0
        messages.append(
            replace(message, message=replace(message.message, told_size=size)) if size else message
        )
    return messages


@dataclass(slots=True)
class Taken:
    """A batch that has come: rows, those with octets marked, and what is to be written before it is stored."""

    rows: list[tuple[Message, bool]]
    carried: list[CarriedMessage] = field(default_factory=list)
    _unwritten: list[tuple[Incoming, list[bytes]]] = field(default_factory=list)
    _held: int = 0  # octets of these

    async def take(self, channel: FrameChannel, incoming: Callable[[], Incoming]) -> None:
        """The octets that follow the rows. Raises Refusal, UpstreamFailure."""
        for message, has_octets in self.rows:
            content = incoming() if has_octets else None
            self.carried.append(CarriedMessage(message, content))
            if content is not None:
                await self._take(channel, message.size, content)

    async def _take(self, channel: FrameChannel, size: int, incoming: Incoming) -> None:
        pieces: list[bytes] = []
        taken = 0
        self._held += size if size <= LARGE_OCTETS else 0
        goes_to_disk = size > LARGE_OCTETS or self._held > MAX_HELD
        while taken < size:
            frame = await channel.receive()
            if frame.kind != OCTETS:
                raise Refusal(Code.CANNOT, "octets were expected")
            taken += len(frame.octets)
            if not frame.octets or taken > size:
                raise Refusal(Code.CANNOT, f"the octets of a message of {size} do not match")
            if goes_to_disk:
                await incoming.write(frame.octets)
            else:
                pieces.append(frame.octets)
        if pieces:
            self._unwritten.append((incoming, pieces))

    async def write(self) -> None:
        """What has been kept in memory so far. Raises Refusal."""
        turn = Turn(SHORT_TURN_S)
        while self._unwritten:
            incoming, pieces = self._unwritten.pop()
            for piece in pieces:
                await incoming.write(piece)
                if turn.is_over:
                    await turn.rest()

    @property
    def octets(self) -> int:
        return sum(message.size for message, has_octets in self.rows if has_octets)

    async def close(self) -> None:
        """Stored or not; may be done twice."""
        await close_all(self.carried)


async def close_all(carried: Sequence[CarriedMessage]) -> None:
    """What has come with their octets, stored or not."""
    turn = Turn(SHORT_TURN_S)
    for message in carried:
        if message.incoming is not None:
            await message.incoming.close()
            if turn.is_over:
                await turn.rest()
