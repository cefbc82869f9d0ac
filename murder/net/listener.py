"""Accepting connections on sockets that somebody else has bound; counting them; draining.

The supervisor binds (low ports, one socket a worker); a worker listens here and hands each connection to its service.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from murder.config.value import Network
from murder.net.connection import TLS_HANDSHAKE_S, Connection, Receiver
from murder.net.haproxy import Preamble
from murder.net.tally import Tally

REFUSED_S = 5.0  # for who is refused to go

Service = Callable[[Connection], Receiver]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a listener allows. `refusal` is sent to whoever comes beyond `max_connections`, or as one more than
    `max_per_address` (0: no limit) from one address."""

    max_connections: int = 10_000
    max_per_address: int = 0
    refusal: bytes = b""
    backlog: int = 1024
    balancers: tuple[Network, ...] = ()  # who must begin with a PROXY header


class Listener:
    """One listening socket with its service; `tls` makes it implicit TLS."""

    def __init__(
        self,
        sock: socket.socket,
        service: Service,
        bounds: Bounds,
        tls: ssl.SSLContext | None = None,
        from_address: Tally | None = None,
    ) -> None:
        self._sock = sock
        self._service = service
        self._bounds = bounds
        self._tls = tls
        self._server: asyncio.AbstractServer | None = None
        self.connections: set[Connection] = set()
        # shared with the worker's other listeners, and with those of other workers
        self._from_address = from_address or Tally()
        self._balancers = bounds.balancers
        self._stopped = False
        self.watch: Callable[[Connection, Receiver], Receiver] | None = (
            None  # while somebody traces
        )

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._accept,
            sock=self._sock,
            backlog=self._bounds.backlog,
            ssl=None if self._balancers else self._tls,
            ssl_handshake_timeout=TLS_HANDSHAKE_S if self._tls and not self._balancers else None,
        )
        if self._stopped:  # meanwhile
            self._server.close()

    async def renew(self, tls: ssl.SSLContext | None) -> None:
        """Another context, for connections from now on; nobody who waits to be accepted is lost. Raises OSError."""
        if self._tls is None or tls is None:
            return
        self._tls = tls
        if self._balancers or self._server is None or self._stopped:
            return  # behind a PROXY header each handshake takes what we have then
        before, self._sock = (
            self._server,
            self._sock.dup(),
        )  # a server keeps the context it began with
        await self.start()
        before.close()

    def _accept(self) -> Connection | Preamble:
        if self._balancers:
            return Preamble(self._balancers, self._tls, self._admit, self._forget)
        return Connection(self._admit, self._forget)

    def configure(self, service: Service, bounds: Bounds) -> None:
        """For connections from now on. Whether there are balancers at all is decided at the start."""
        self._service, self._bounds = service, bounds
        if self._balancers:
            self._balancers = bounds.balancers or self._balancers

    def _admit(self, connection: Connection) -> Receiver:
        """The connection stands (TLS handshakes that fail never come here)."""
        bounds, peer = self._bounds, connection.peer
        if (
            self._stopped  # it was accepted in the turn of the loop before
            or len(self.connections) >= bounds.max_connections
            or not self._from_address.enter(peer, bounds.max_per_address)
        ):
            return _Refused(connection, bounds.refusal)
        self.connections.add(connection)
        receiver = self._service(connection)
        return receiver if self.watch is None else self.watch(connection, receiver)

    def _forget(self, connection: Connection) -> None:
        if connection not in self.connections:
            return
        self.connections.discard(connection)
        self._from_address.leave(connection.peer)

    def stop_accepting(self) -> None:
        self._stopped = True
        if self._server is not None:
            self._server.close()

    def let_go(self) -> None:
        """Take no more from this socket; whoever came by it stays."""
        if self._server is not None:
            self._server.close()

    def abort(self) -> None:
        """Cut off whoever is still there."""
        for connection in list(self.connections):
            connection.abort()


class _Refused:
    """Says that there is no room, and closes."""

    __slots__ = ("_connection", "_refusal")

    def __init__(self, connection: Connection, refusal: bytes) -> None:
        self._connection = connection
        self._refusal = refusal

    def begin(self) -> None:
        self._connection.write(self._refusal)
        self._connection.finish()
        asyncio.get_running_loop().call_later(REFUSED_S, self._connection.abort)

    def received(self, data: bytes) -> None:
        pass

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        pass
