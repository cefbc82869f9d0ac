"""The way to another backend that has a part in a RENAME: an IMAP connection as this node, taken over for frames (XPART)."""

from typing import Final

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.net.frames import FrameChannel
from murder.net.outgoing.pool import open_as_node
from murder.net.outgoing.upstream import Upstreams
from murder.wire.nodes.carry import JSON
from murder.wire.nodes.rename_words import (
    CAPABILITY,
    Answer,
    AskFate,
    Done,
    Fate,
    Refused,
    Request,
    Told,
    format_request,
    parse_answer,
)

TIMEOUT_S: Final = 30.0  # the other one waits for who is in its trees, and for the master
MAX_REPLY: Final = 64 * 1024


class Peer:
    """See the module. Questions and answers take turns."""

    def __init__(self, channel: FrameChannel, server: str) -> None:
        self._channel = channel
        self._server = server

    async def ask(self, request: Request) -> None:
        """Returns when it is done there. Raises Refusal where the other one refuses, UpstreamFailure."""
        answer = await self._answer(request)
        if not isinstance(answer, Done):
            raise UpstreamFailure(
                UpstreamKind.PROTOCOL, self._server, f"{answer} was not asked for"
            )

    async def fate(self, rename_id: str) -> Fate:
        """What it says of a RENAME whose root it has. Raises Refusal, UpstreamFailure."""
        answer = await self._answer(AskFate(rename_id))
        if not isinstance(answer, Told):
            raise UpstreamFailure(
                UpstreamKind.PROTOCOL, self._server, f"{answer} was not asked for"
            )
        return answer.fate

    async def _answer(self, request: Request) -> Answer:
        await self._channel.send(format_request(request))
        frame = await self._channel.receive()
        try:
            if frame.kind != JSON:
                raise BadSyntax("a JSON frame was expected, octets came")
            answer = parse_answer(frame.octets)
        except BadSyntax as error:
            raise UpstreamFailure(UpstreamKind.PROTOCOL, self._server, str(error)) from error
        if isinstance(answer, Refused):
            text = f"{self._server}: {answer.text}"
            raise Refusal(answer.code, text, names=answer.names)
        return answer

    def close(self) -> None:
        self._channel.close()


async def open_peer(upstreams: Upstreams, server: str) -> Peer:
    """Connect and enter. Raises Refusal where the other one can take no part (a Cyrus), UpstreamFailure."""
    upstream = await open_as_node(
        upstreams, server, name="murder", timeout_s=TIMEOUT_S, max_message=MAX_REPLY
    )
    if CAPABILITY not in upstream.capabilities:
        upstream.close()
        text = f"it does not say {CAPABILITY.decode()}, as a murder of this version does"
        raise Refusal(
            Code.CANNOT, f"{server} takes no part in a RENAME over several servers: {text}"
        )
    reply = await upstream.execute(b"XPART")
    if not reply.is_ok:
        upstream.close()
        raise Refusal(
            Code.NO_PERMISSION, f"{server} takes no part in a RENAME from here: {reply.text}"
        )
    if upstream.is_lost:
        raise UpstreamFailure(UpstreamKind.LOST, server, "it closed the connection")
    return Peer(FrameChannel(upstream.connection, server, TIMEOUT_S), server)
