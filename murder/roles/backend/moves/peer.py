"""What the source of a move asks a target of ours, in frames: one question, one answer."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from murder.api.turns import behind
from murder.model.name import MailboxName
from murder.net.frames import FrameChannel, answer_on
from murder.wire.nodes.carry import Words
from murder.wire.nodes.carry_answers import (
    CopyRows,
    Facts,
    Held,
    Known,
    Stored,
    Sum,
    Tree,
    parse_done,
    parse_facts,
    parse_held,
    parse_known,
    parse_moved_tree,
    parse_rows,
    parse_stored,
    parse_sum,
)
from murder.wire.nodes.carry_words import (
    Act,
    AskSum,
    Compare,
    Fate,
    Hold,
    Kept,
    Request,
    Rows,
    format_request,
)

T = TypeVar("T")


class Peer:
    """See the module. Questions and answers take turns."""

    def __init__(self, channel: FrameChannel, server: str) -> None:
        self._channel = channel
        self.server = server
        self.names: Sequence[MailboxName] = ()  # of the move, for targets that do not keep them

    async def _ask(self, request: Request, parse: Callable[[Words], T]) -> T:
        # of what was expunged of a mailbox there may be much
        await self._channel.send(await behind(format_request, request))
        return await answer_on(self._channel, self.server, parse)

    async def do(self, request: Act) -> None:
        """An act, done when this returns. Raises Refusal, UpstreamFailure, as all that is asked here."""
        await self._ask(request, parse_done)

    async def hold(self, request: Hold) -> Held:
        """The mailbox made at the target, and what it has of an earlier attempt."""
        return await self._ask(request, parse_held)

    async def send_rows(self, rows: Rows) -> None:
        """Messages' rows; their octets follow, and then the answer (`stored`)."""
        await self._channel.send(format_request(rows))

    async def send_kept(self, kept: Kept) -> None:
        """As `send_rows`, of what was expunged and may come back."""
        await self._channel.send(format_request(kept))

    async def send_octets(self, octets: bytes | memoryview) -> None:
        """Of the messages whose rows were sent, one behind the other."""
        await self._channel.send_octets(octets)

    async def stored(self) -> Stored:
        """The answer to rows and octets: they are durable there."""
        return await answer_on(self._channel, self.server, parse_stored)

    async def sum(self, name: MailboxName) -> Sum:
        """Of what has arrived of a mailbox, to be compared with what is here."""
        return await self._ask(AskSum(name), parse_sum)

    async def fate(self, request: Fate) -> Known:
        """What the target knows of a move: whether it has been committed there."""
        return await self._ask(request, parse_known)

    async def tree(self, request: Compare) -> Tree:
        """All beside the messages. Raises as `ask`."""
        return await self._ask(request, parse_moved_tree)

    async def facts(self, request: Compare) -> Facts:
        """Of one mailbox."""
        return await self._ask(request, parse_facts)

    async def rows(self, request: Compare) -> CopyRows:
        """The next ones of one mailbox."""
        return await self._ask(request, parse_rows)

    def close(self) -> None:
        self._channel.close()
