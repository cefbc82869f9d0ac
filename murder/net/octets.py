"""A connection taken over for lines and counted octets: for a protocol that cuts its stream itself.

Reading stops while octets wait to be taken; writing waits for the peer. Every wait has the timeout given.
"""

import asyncio
from typing import Final

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.connection import Connection

HELD_OCTETS: Final = 4 * 1024 * 1024  # received and not yet taken: reading stops


class OctetChannel:
    """See the module. A `Receiver` once it is put in a connection's place. `server` names the peer in errors."""

    def __init__(self, connection: Connection, server: str, timeout_s: float) -> None:
        self._connection = connection
        self._server = server
        self._timeout_s = timeout_s
        self._held = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._former = connection.receiver
        connection.receiver = self

    # --- Receiver

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        self._held += data
        self._wake()
        if len(self._held) > HELD_OCTETS:
            self._connection.pause_reading()

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        self._wake()
        self._former.lost(error)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- what comes

    async def line(self, most: int) -> bytes:
        """The next line without its end. Raises UpstreamFailure: LOST, TIMEOUT, PROTOCOL where it is longer."""
        scanned = 0
        while (end := self._held.find(b"\n", scanned)) < 0:
            scanned = len(self._held)
            if scanned > most:
                raise UpstreamFailure(
                    UpstreamKind.PROTOCOL, self._server, f"a line is longer than {most} octets"
                )
            await self._more()
        line = bytes(memoryview(self._held)[:end]).rstrip(b"\r")
        del self._held[: end + 1]
        return line

    async def some(self, most: int) -> bytes:
        """What has come, at least one octet and no more than so many. Raises UpstreamFailure."""
        while not self._held:
            await self._more()
        octets = bytes(memoryview(self._held)[:most])
        del self._held[: len(octets)]
        return octets

    async def exactly(self, length: int) -> bytes:
        """So many octets. Raises UpstreamFailure."""
        taken = bytearray()
        while len(taken) < length:
            taken += await self.some(length - len(taken))
        return bytes(taken)

    async def _more(self) -> None:
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

    # --- what goes

    async def send(self, octets: bytes) -> None:
        """Raises UpstreamFailure."""
        self._connection.write(octets)
        try:
            await self._connection.drain(self._timeout_s)
        except ConnectionError as error:
            raise UpstreamFailure(UpstreamKind.LOST, self._server, str(error)) from error

    def give_back(self) -> None:
        """The connection's former receiver goes on, with what came behind the last line."""
        self._connection.receiver = self._former
        rest = bytes(self._held)
        self._held.clear()
        self._connection.resume_reading()
        if rest:
            self._former.received(rest)
