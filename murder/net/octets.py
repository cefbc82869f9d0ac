"""A connection taken over for lines and counted octets: for a protocol that cuts its stream itself."""

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.connection import Connection
from murder.net.takeover import TakenOver


class OctetChannel(TakenOver):
    """See the module."""

    def __init__(self, connection: Connection, server: str, timeout_s: float) -> None:
        self._held = bytearray()
        super().__init__(connection, server, timeout_s)

    def _hold(self, data: bytes) -> int:
        self._held += data
        return len(self._held)

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
        await self._taken()
        return line

    async def some(self, most: int) -> bytes:
        """What has come, at least one octet and no more than so many. Raises UpstreamFailure."""
        while not self._held:
            await self._more()
        octets = bytes(memoryview(self._held)[:most])
        del self._held[: len(octets)]
        await self._taken()
        return octets

    async def exactly(self, length: int) -> bytes:
        """So many octets. Raises UpstreamFailure."""
        taken = bytearray()
        while len(taken) < length:
            taken += await self.some(length - len(taken))
        return bytes(taken)

    async def send(self, octets: bytes) -> None:
        """Raises UpstreamFailure."""
        await self._write(octets)

    def give_back(self) -> None:
        """The connection's former receiver goes on, with what came behind the last line."""
        self._connection.receiver = self._former
        rest = bytes(self._held)
        self._held.clear()
        self._connection.resume_reading()
        if rest:
            self._former.received(rest)
