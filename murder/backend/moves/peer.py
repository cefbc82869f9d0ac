"""The way from the source of a move to its target: an IMAP connection as this node, taken over for frames by XTAKE."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from murder.backend.moves.to_cyrus import CyrusTarget
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.name import MailboxName
from murder.net.frames import FrameChannel, words_of
from murder.net.octets import OctetChannel
from murder.net.pool import open_imap
from murder.net.relay import Client, ImapUpstream
from murder.net.upstream import Upstreams
from murder.wire.carry import Words

TIMEOUT_S: Final = 120.0  # the target reads and syncs a large batch before it answers
CAPABILITY: Final = b"X-XFER"
REPLICATION: Final = b"X-REPLICATION"  # a Cyrus, to whom may send mailboxes there


class _Nobody(Client):
    """No client stands behind this connection."""


class Peer:
    """See the module. Questions and answers take turns."""

    def __init__(self, channel: FrameChannel, server: str) -> None:
        self.channel = channel
        self.server = server
        self.names: Sequence[MailboxName] = ()  # of the move, for targets that do not keep them
        self.acl_of: Callable[[MailboxName], bytes] = lambda _: b""  # likewise

    async def ask(self, words: Words) -> dict[str, Any]:
        """Raises Refusal where the target refuses, UpstreamFailure."""
        await self.channel.send(words)
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """The answer to what was sent. Raises as `ask`."""
        try:
            told = await words_of(await self.channel.receive())
        except BadSyntax as error:
            raise UpstreamFailure(UpstreamKind.PROTOCOL, self.server, str(error)) from error
        check_answer(told, self.server)
        return told

    def close(self) -> None:
        self.channel.close()


def check_answer(told: Mapping[str, Any], server: str) -> None:
    """Raises Refusal where it says `no`."""
    if "no" in told:
        try:
            code = Code(told.get("code", ""))
        except ValueError:
            code = Code.NONE
        text = str(told["no"])
        raise Refusal(code, text if text.startswith(f"{server} ") else f"{server}: {text}")


Target = Peer | CyrusTarget


async def open_node(
    upstreams: Upstreams, server: str, timeout_s: float, max_message: int
) -> ImapUpstream:
    """Connect to another backend, and log in as this node. Raises UpstreamFailure."""
    return await open_imap(
        upstreams,
        server,
        _Nobody(),
        user="",
        password=None,
        identity=[("name", "murder")],
        timeout_s=timeout_s,
        max_message=max_message,
    )


async def open_peer(upstreams: Upstreams, server: str, max_message: int) -> Target:
    """Connect and enter: as a backend of ours, or a Cyrus. Raises Refusal where the target is no murder, UpstreamFailure."""
    upstream = await open_node(upstreams, server, TIMEOUT_S, max_message)
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
