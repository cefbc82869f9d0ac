"""Connections within this process: a proxy and the server that it runs beside, without a socket between them.

Two ends, each a transport to its connection. What one writes the other gets in the next turn of the loop, a bounded
piece at a time; back-pressure is that of sockets. Nobody can listen or pretend: such a connection counts as one under TLS,
and the server's end knows who the other is.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.protocol import ProtocolSpec
from murder.net.connection import (
    WRITE_HIGH_OCTETS,
    WRITE_LOW_OCTETS,
    Connection,
    Receiver,
    untapped,
)
from murder.net.listener import Service
from murder.net.tls import PeerCertificate

PIECE_OCTETS: Final = 256 * 1024  # handed over in one turn, as a loop reads from a socket
FRONTEND_ROLE: Final = "frontend"


class Within(Protocol):
    """The server that runs in this process, by its name in the list; what it serves now."""

    @property
    def server(self) -> str: ...

    def services(self) -> Mapping[ProtocolSpec, Service]: ...


class _End(asyncio.Transport):
    """One end. `peer` is the other."""

    peer: "_End"

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._pieces: deque[bytes] = deque()  # written by the peer, and not handed over
        self._octets = 0
        self._high, self._low = WRITE_HIGH_OCTETS, WRITE_LOW_OCTETS
        self._is_reading = True
        self._is_due = False  # a turn is asked for
        self._is_paused = False  # the protocol, in its writing
        self._is_closing = False
        self._is_lost = False
        self._has_ended = False  # the peer sends no more
        self.was_reset = False  # the peer has aborted

    # --- out

    def write(self, data: Any) -> None:
        if self._is_closing:
            return
        peer = self.peer
        if peer._is_closing:
            self._lose_soon(ConnectionResetError("the other end has gone"))
            return
        peer._pieces.append(data if type(data) is bytes else bytes(data))
        peer._octets += len(data)
        if not peer._is_due and peer._is_reading:
            peer._is_due = True
            peer._loop.call_soon(peer._hand_over)
        if peer._octets > self._high and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.peer._octets

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = WRITE_HIGH_OCTETS if high is None else high
        self._low = self._high // 4 if low is None else low

    # --- in

    def _hand_over(self) -> None:
        self._is_due = False
        if self._is_lost or self._is_closing or not self._is_reading:
            return
        if self._pieces:
            data = self._next_piece()
            try:
                self._protocol.data_received(data)
            except BaseException:
                self.abort()
                raise
            peer = self.peer
            if peer._is_paused and self._octets <= peer._low:
                peer._is_paused = False
                if not peer._is_lost:
                    peer._protocol.resume_writing()
        self._look_again()

    def _next_piece(self) -> bytes:
        pieces = self._pieces
        if len(pieces) == 1 and len(pieces[0]) <= PIECE_OCTETS:
            self._octets = 0
            return pieces.popleft()
        taken, size = [], 0
        while pieces and size < PIECE_OCTETS:
            piece = pieces.popleft()
            room = PIECE_OCTETS - size
            if len(piece) > room:
                pieces.appendleft(piece[room:])
                piece = piece[:room]
            taken.append(piece)
            size += len(piece)
        self._octets -= size
        return b"".join(taken)

    def _look_again(self) -> None:
        """Whether there is more to hand over: octets, or the end."""
        if self._is_lost or self._is_closing or not self._is_reading or self._is_due:
            return
        if self._pieces:
            self._is_due = True
            self._loop.call_soon(self._hand_over)
        elif self._has_ended:
            self._is_closing = True
            self._lose_soon(None)

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._look_again()

    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing

    # --- the end

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """The peer gets what is written, then the end."""
        if self._is_closing:
            return
        self._is_closing = True
        self._lose_soon(None)
        self.peer._has_ended = True
        self.peer._look_again()

    def abort(self) -> None:
        """The peer gets nothing more."""
        peer = self.peer
        if not self._is_lost and not peer._is_lost:
            peer.was_reset = True
            peer._pieces.clear()
            peer._octets = 0
            peer._is_closing = True
            peer._lose_soon(ConnectionResetError("the other end has given up"))
        if not self._is_closing:
            self._is_closing = True
            self._lose_soon(None)

    def _lose_soon(self, error: Exception | None) -> None:
        self._is_closing = True
        self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._pieces.clear()
        self._octets = 0
        try:
            self._protocol.connection_lost(error)
        finally:
            if not self.peer._is_closing:
                self.peer._has_ended = True
                self.peer._look_again()

    # --- asyncio's

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol


class LocalConnection(Connection):
    """One end, as receivers use it. `shown`: who the other end is."""

    __slots__ = ()

    def __init__(
        self,
        make_receiver: Callable[[Connection], Receiver],
        certificate: PeerCertificate | None = None,
    ) -> None:
        super().__init__(make_receiver)
        self.is_tls = True
        self.certificate = certificate

    def is_reset(self) -> bool:
        transport = untapped(self.transport)
        return not isinstance(transport, _End) or transport.was_reset


def open_within(
    within: Within, protocol: ProtocolSpec, make_receiver: Callable[[Connection], Receiver]
) -> Connection:
    """Connect to the server in this process, as its proxy. Raises UpstreamFailure(CONNECT)."""
    service = within.services().get(protocol)
    if service is None:
        text = f"this node's server does not serve {protocol.name}"
        raise UpstreamFailure(UpstreamKind.CONNECT, within.server, text)
    loop = asyncio.get_running_loop()
    certificate = PeerCertificate((within.server.lower(),), frozenset({FRONTEND_ROLE}))
    near, far = LocalConnection(make_receiver), LocalConnection(service, certificate)
    here, there = _End(loop, near), _End(loop, far)
    here.peer, there.peer = there, here
    near.connection_made(here)
    far.connection_made(there)
    return near
