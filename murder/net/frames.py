"""A connection taken over for frames of JSON and octets, either side: what two backends speak while a mailbox moves.

Reading stops while frames wait to be taken; writing waits for the peer. Every wait has the timeout given.
"""

import asyncio
from typing import Final

from murder.errors import BadSyntax, UpstreamFailure, UpstreamKind
from murder.net.connection import Connection
from murder.wire.carry import (
    MAX_OCTETS,
    Frame,
    FrameCutter,
    Words,
    format_octets_head,
    format_words,
)

HELD_OCTETS: Final = 4 * 1024 * 1024  # received and not yet taken: reading stops
PIECE_OCTETS: Final = 256 * 1024  # of a large message, written at once


class FrameChannel:
    """See the module. A `Receiver` once it is put in a connection's place. `server` names the peer in errors."""

    def __init__(self, connection: Connection, server: str, timeout_s: float) -> None:
        self._connection = connection
        self._server = server
        self._timeout_s = timeout_s
        self._cutter = FrameCutter()
        self._waiter: asyncio.Future[None] | None = None
        self._former = connection.receiver
        connection.receiver = self

    # --- Receiver

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        self._cutter.feed(data)
        self._wake()
        if self._cutter.held > HELD_OCTETS:
            self._connection.pause_reading()

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        self._wake()
        self._former.lost(error)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- what both sides use

    async def receive(self) -> Frame:
        """The next frame. Raises UpstreamFailure: LOST, TIMEOUT, PROTOCOL."""
        while True:
            try:
                frame = self._cutter.next()
            except BadSyntax as error:
                raise UpstreamFailure(UpstreamKind.PROTOCOL, self._server, str(error)) from error
            if frame is not None:
                return frame
            if self._connection.is_lost:
                raise UpstreamFailure(UpstreamKind.LOST, self._server, "it closed the connection")
            self._connection.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._waiter
            except TimeoutError:
                raise UpstreamFailure(
                    UpstreamKind.TIMEOUT, self._server, f"nothing came for {self._timeout_s:g} s"
                ) from None
            finally:
                self._waiter = None

    async def send(self, words: Words) -> None:
        """One JSON frame. Raises UpstreamFailure."""
        self._connection.write(format_words(words))
        await self._drain()

    async def send_octets(self, octets: bytes | memoryview) -> None:
        """Octets, in as many frames as they take. Raises UpstreamFailure."""
        view = memoryview(octets)
        for start in range(0, len(view), PIECE_OCTETS):
            piece = view[start : start + PIECE_OCTETS]
            assert len(piece) <= MAX_OCTETS
            self._connection.write(format_octets_head(len(piece)) + bytes(piece))
            await self._drain()

    async def _drain(self) -> None:
        try:
            await self._connection.drain(self._timeout_s)
        except ConnectionError as error:
            raise UpstreamFailure(UpstreamKind.LOST, self._server, str(error)) from error

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._connection.abort()
