"""A connection taken over for frames of JSON and octets, either side: what two backends speak while a mailbox moves."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from murder.errors import BadSyntax, UpstreamFailure, UpstreamKind
from murder.net.connection import Connection
from murder.net.takeover import TakenOver
from murder.net.turns import aside, aside_if
from murder.wire.nodes.carry import (
    IN_PIECES,
    MAX_OCTETS,
    Frame,
    FrameCutter,
    Words,
    are_many,
    format_octets_head,
    format_words,
)
from murder.wire.nodes.carry_answers import check_refused

T = TypeVar("T")

PIECE_OCTETS: Final = 256 * 1024  # of a large message, written at once


async def words_of(frame: Frame) -> dict[str, Any]:
    """Its words; a large frame holds nobody up. Raises BadSyntax."""
    return await aside(frame.words) if len(frame.octets) > IN_PIECES else frame.words()


class FrameChannel(TakenOver):
    """See the module."""

    def __init__(
        self, connection: Connection, server: str, timeout_s: float, *, of_answers: bool = False
    ) -> None:
        """`of_answers`: it is we who ask."""
        self._cutter = FrameCutter(of_answers=of_answers)
        super().__init__(connection, server, timeout_s)

    def _hold(self, data: bytes) -> int:
        self._cutter.feed(data)
        return self._cutter.held

    async def receive(self) -> Frame:
        """The next frame. Raises UpstreamFailure: LOST, TIMEOUT, PROTOCOL."""
        while True:
            try:
                frame = self._cutter.next()
            except BadSyntax as error:
                raise UpstreamFailure(UpstreamKind.PROTOCOL, self._server, str(error)) from error
            if frame is not None:
                await self._taken()
                return frame
            await self._more()

    async def send(self, words: Words) -> None:
        """One JSON frame. Raises UpstreamFailure."""
        await self._write(await aside_if(are_many(words), format_words, words))

    async def send_octets(self, octets: bytes | memoryview) -> None:
        """Octets, in as many frames as they take. Raises UpstreamFailure."""
        view = memoryview(octets)
        for start in range(0, len(view), PIECE_OCTETS):
            piece = view[start : start + PIECE_OCTETS]
            assert len(piece) <= MAX_OCTETS
            await self._write(format_octets_head(len(piece)) + bytes(piece))

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._connection.abort()


async def answer_on(channel: FrameChannel, server: str, parse: Callable[[Words], T]) -> T:
    """What the next frame says. Raises Refusal where the server refuses, UpstreamFailure."""
    try:
        words = await words_of(await channel.receive())
        check_refused(words, server)
        return parse(words)
    except BadSyntax as error:
        raise UpstreamFailure(UpstreamKind.PROTOCOL, server, str(error)) from error
