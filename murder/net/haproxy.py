"""Connections that come through a load balancer: its PROXY header first, then TLS where it is implicit, then the session.

Only addresses of the trusted networks are asked for one, and must give it; from anybody else it is no header.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, cast

from murder.config.value import Network, contains
from murder.errors import BadSyntax
from murder.log import logger
from murder.net.connection import Connection, Receiver
from murder.wire.haproxy import Origin, octets_wanted, parse_header

HEADER_S: Final = 5.0  # for the header to come

log = logger()


class Preamble(asyncio.BufferedProtocol):
    """Reads the header, and not one octet more (what follows may be TLS); then a Connection takes its place."""

    def __init__(
        self,
        balancers: tuple[Network, ...],
        tls: ssl.SSLContext | None,
        admit: Callable[[Connection], Receiver],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self._balancers = balancers
        self._tls = tls
        self._admit = admit
        self._on_lost = on_lost
        self._header = b""
        self._piece = bytearray()
        self._peer = ""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        if contains(self._balancers, self._peer):
            self._timer = asyncio.get_running_loop().call_later(HEADER_S, self._transport.abort)
        else:
            self._hand_over(Origin())

    def get_buffer(self, sizehint: int) -> bytearray:
        self._piece = bytearray(octets_wanted(self._header))
        return self._piece

    def buffer_updated(self, nbytes: int) -> None:
        self._header += self._piece[:nbytes]
        try:
            origin = None if octets_wanted(self._header) else parse_header(self._header)
        except BadSyntax as error:
            log.info("connection.unintelligible", peer=self._peer, problem=str(error))
            self._transport.abort()
            return
        if origin is not None:
            self._hand_over(origin)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _hand_over(self, origin: Origin) -> None:
        if self._timer is not None:
            self._timer.cancel()

        def make_receiver(connection: Connection) -> Receiver:
            if origin.address:
                connection.peer, connection.peer_port = origin.address, origin.port
            return _Handshake(connection, self._admit, self._tls)

        transport = self._transport
        connection = Connection(make_receiver, self._on_lost)
        transport.pause_reading()  # how a transport reads depends on its protocol
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if self._tls is None:
            connection.resume_reading()


class _Handshake:
    """The receiver of a connection until its session can begin."""

    def __init__(
        self,
        connection: Connection,
        admit: Callable[[Connection], Receiver],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._connection = connection
        self._admit = admit
        self._tls = tls
        self._early = b""  # what comes with the end of the handshake
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        if self._tls is None:
            self._hand_over()
        else:
            self._task = asyncio.get_running_loop().create_task(self._start_tls(self._tls))

    def received(self, data: bytes) -> None:
        self._early += data

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        try:
            await self._connection.start_tls(context, server_side=True)
        except OSError as error:
            log.info("tls.failed", peer=self._connection.peer, problem=str(error))
            return
        self._hand_over()

    def _hand_over(self) -> None:
        connection = self._connection
        if not connection.is_lost:
            connection.receiver = self._admit(connection)
            connection.receiver.begin()
            if self._early and not connection.is_lost:
                connection.receiver.received(self._early)

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        pass
