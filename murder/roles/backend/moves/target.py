"""Where mailboxes go: a backend of ours or a Cyrus, behind one Protocol; and the way there, an IMAP connection as this node,
which XTAKE turns into one of frames.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.name import MailboxName
from murder.net.frames import FrameChannel
from murder.net.octets import OctetChannel
from murder.net.outgoing.pool import open_as_node
from murder.net.outgoing.upstream import Upstreams
from murder.roles.backend.moves.peer import Peer
from murder.roles.backend.moves.to_cyrus import CyrusTarget
from murder.wire.nodes.carry_answers import Held, Known, Stored, Sum
from murder.wire.nodes.carry_words import Act, Fate, Hold, Kept, Rows

TIMEOUT_S: Final = 120.0  # the target reads and syncs a large batch before it answers
CAPABILITY: Final = b"X-XFER"
REPLICATION: Final = b"X-REPLICATION"  # a Cyrus, to whom may send mailboxes there


class Target(Protocol):
    """A server that mailboxes go to. All methods that wait raise Refusal where it refuses, UpstreamFailure. `names` are
    those of the move, for targets that do not keep them."""

    server: str
    names: Sequence[MailboxName]

    async def do(self, request: Act) -> None:
        """One act."""
        ...

    async def hold(self, request: Hold) -> Held:
        """Make the mailbox where it is not; what the target has of it."""
        ...

    async def send_rows(self, rows: Rows) -> None:
        """A batch; the octets follow of each message that has some. It is answered for by `stored`, in its order."""
        ...

    async def send_kept(self, kept: Kept) -> None:
        """Likewise, of what was expunged; only where `hold` has told what it keeps of that."""
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


async def open_target(
    upstreams: Upstreams, server: str, max_message: int, acl_of: Callable[[MailboxName], bytes]
) -> Target:
    """Connect and enter: as a backend of ours, or a Cyrus, which has to be told the access lists as `acl_of` knows them.
    Raises Refusal where the target is no murder, UpstreamFailure."""
    upstream = await open_as_node(
        upstreams, server, name="murder", timeout_s=TIMEOUT_S, max_message=max_message
    )
    if REPLICATION in upstream.capabilities and CAPABILITY not in upstream.capabilities:
        octets = OctetChannel(upstream.connection, server, TIMEOUT_S)
        return CyrusTarget(octets, server, upstream.connection.close, acl_of)
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
