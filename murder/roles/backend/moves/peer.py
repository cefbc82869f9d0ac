"""The way from the source of a move to its target: an IMAP connection as this node, taken over for frames by XTAKE."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.name import MailboxName
from murder.net.frames import FrameChannel, answer_on
from murder.net.octets import OctetChannel
from murder.net.outgoing.pool import open_as_node
from murder.net.outgoing.upstream import Upstreams
from murder.roles.backend.moves.to_cyrus import CyrusTarget
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
    Request,
    Rows,
    format_request,
)

TIMEOUT_S: Final = 120.0  # the target reads and syncs a large batch before it answers
CAPABILITY: Final = b"X-XFER"
REPLICATION: Final = b"X-REPLICATION"  # a Cyrus, to whom may send mailboxes there

T = TypeVar("T")


class Peer:
    """See the module. Questions and answers take turns."""

    def __init__(self, channel: FrameChannel, server: str) -> None:
        self._channel = channel
        self.server = server
        self.names: Sequence[MailboxName] = ()  # of the move, for targets that do not keep them
        self.acl_of: Callable[[MailboxName], bytes] = lambda _: b""  # likewise

    async def _ask(self, request: Request, parse: Callable[[Words], T]) -> T:
        await self._channel.send(format_request(request))
        return await answer_on(self._channel, self.server, parse)

    async def do(self, request: Act) -> None:
        await self._ask(request, parse_done)

    async def hold(self, request: Hold) -> Held:
        return await self._ask(request, parse_held)

    async def send_rows(self, rows: Rows) -> None:
        await self._channel.send(format_request(rows))

    async def send_octets(self, octets: bytes | memoryview) -> None:
        await self._channel.send_octets(octets)

    async def stored(self) -> Stored:
        return await answer_on(self._channel, self.server, parse_stored)

    async def sum(self, name: MailboxName) -> Sum:
        return await self._ask(AskSum(name), parse_sum)

    async def fate(self, request: Fate) -> Known:
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


class Target(Protocol):
    """A server that mailboxes go to. All methods that wait raise Refusal where it refuses, UpstreamFailure. `names` are
    those of the move, and `acl_of` knows their rows, for targets that do not keep them."""

    server: str
    names: Sequence[MailboxName]
    acl_of: Callable[[MailboxName], bytes]

    async def do(self, request: Act) -> None:
        """One act."""
        ...

    async def hold(self, request: Hold) -> Held:
        """Make the mailbox where it is not; what the target has of it."""
        ...

    async def send_rows(self, rows: Rows) -> None:
        """A batch; the octets follow of each message that has some. It is answered for by `stored`, in its order."""
        ...

    async def send_octets(self, octets: bytes | memoryview) -> None:
        """Of the next message of the batch."""
        ...

    async def stored(self) -> Stored:
        """Of the oldest batch that was not asked about."""
        ...

    async def sum(self, name: MailboxName) -> Sum:
        """The mailbox's numbers there."""
        ...

    async def fate(self, request: Fate) -> Known:
        """What became of the move there."""
        ...

    def close(self) -> None: ...


async def open_peer(upstreams: Upstreams, server: str, max_message: int) -> Target:
    """Connect and enter: as a backend of ours, or a Cyrus. Raises Refusal where the target is no murder, UpstreamFailure."""
    upstream = await open_as_node(
        upstreams, server, name="murder", timeout_s=TIMEOUT_S, max_message=max_message
    )
    if REPLICATION in upstream.capabilities and CAPABILITY not in upstream.capabilities:
        octets = OctetChannel(upstream.connection, server, TIMEOUT_S)
        return CyrusTarget(octets, server, upstream.connection.close)
    if CAPABILITY not in upstream.capabilities:
        upstream.close()
        raise Refusal(
            Code.CANNOT,
            f"{server} takes no mailboxes from here: it does not say {CAPABILITY.decode()}",
        )
    reply = await upstream.execute(b"XTAKE")
    if not reply.is_ok:
        upstream.close()
        raise Refusal(Code.NO_PERMISSION, f"{server} takes no mailboxes from here: {reply.text}")
    if upstream.is_lost:
        raise UpstreamFailure(UpstreamKind.LOST, server, "it closed the connection")
    channel = FrameChannel(upstream.connection, server, TIMEOUT_S, of_answers=True)
    return Peer(channel, server)
