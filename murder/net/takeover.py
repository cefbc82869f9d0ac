"""A connection taken over from its dialogue, for a protocol that reads and writes in order, with its own coroutine.

Reading stops while octets wait to be taken; writing waits for the peer. Every wait has the timeout given. Who takes much
that has come already, or sends much, has short turns of the loop, and the others have theirs in between.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from typing import Final

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.bulk import BULK_OCTETS, took_much
from murder.net.connection import Connection
from murder.net.turns import SHORT_TURN_S, line_up

HELD_OCTETS: Final = 4 * 1024 * 1024  # received and not yet taken: reading stops


class TakenOver(ABC):
    """See the module. A `Receiver` once it is put in a connection's place. `server` names the peer in errors."""

    def __init__(self, connection: Connection, server: str, timeout_s: float) -> None:
        self._connection = connection
        self._server = server
        self._timeout_s = timeout_s
        self._waiter: asyncio.Future[None] | None = None
        self._turn_ends = 0.0
        self._former = connection.receiver
        connection.receiver = self

    @abstractmethod
    def _hold(self, data: bytes) -> int:
        """Keep what has come; how many octets are held now."""

    # --- Receiver

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        held = self._hold(data)
        self._wake()
        if held > HELD_OCTETS:
            self._connection.pause_reading()
        elif len(data) >= BULK_OCTETS:  # a loop would read on up to HELD_OCTETS, and decrypt it all
            took_much(self._connection, SHORT_TURN_S)

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        self._wake()
        self._former.lost(error)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- what the protocols use

    async def _taken(self) -> None:
        """Something has been taken from what had come, or sent: the end of a turn, where this one is over."""
        if time.perf_counter() >= self._turn_ends:
            await line_up()
            self._turn_ends = time.perf_counter() + SHORT_TURN_S

    async def _more(self) -> None:
        """Until more has come. Raises UpstreamFailure: LOST, TIMEOUT."""
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

    async def _write(self, octets: bytes) -> None:
        """Raises UpstreamFailure."""
        self._connection.write(octets)
        try:
            await self._connection.drain(self._timeout_s)
        except ConnectionError as error:
            raise UpstreamFailure(UpstreamKind.LOST, self._server, str(error)) from error
        await self._taken()  # the kernel may have room for all of it
