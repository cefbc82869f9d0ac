"""HTTP/2 to a member that may be anybody's: what it can make this process keep, and do for nothing, is bounded.

grpclib reads a message of up to 4 GiB into memory, and answers each PING of a peer that reads no answer.
"""

import asyncio
from functools import partial
from typing import Any, Final

from grpclib.client import Channel, Handler
from grpclib.exceptions import ProtocolError
from grpclib.protocol import Connection, H2Protocol
from grpclib.protocol import Stream as HttpStream

from murder.api.addresses import at_an_address

# Octets of frames that belong to no answer, one behind the other: 3,000 PINGs. Of an upload of megabytes some hundred
# WINDOW_UPDATEs come back.
MOST_BESIDE: Final = 64 * 1024
MOST_UNREAD: Final = 4 << 20  # of ours that a member does not read: the largest record, twice


class TooLong(ProtocolError):
    """A message that is not read, as it is longer than `max_message_bytes` allows."""


class BoundedChannel(Channel):
    """One connection to a member; made anew when it is lost."""

    def __init__(self, *where: Any, most_octets: int, **how: Any) -> None:
        super().__init__(*where, **how)
        self._most_octets = most_octets

    async def _create_connection(self) -> H2Protocol:
        """As grpclib has it, at the first of the member's addresses that takes it."""

        async def open_at(address: str) -> H2Protocol:
            _, made = await self._loop.create_connection(
                self._protocol_factory,
                address,
                self._port,
                ssl=self._ssl,
                server_hostname=None if self._ssl is None else self._host,
            )
            return made

        assert self._host is not None
        return await at_an_address(self._host, open_at)

    def _protocol_factory(self) -> H2Protocol:
        return _Bounded(Handler(), self._config, self._h2_config, self._most_octets)


class _Bounded(H2Protocol):
    def __init__(self, handler: Handler, config: Any, h2_config: Any, most_octets: int) -> None:
        super().__init__(handler, config, h2_config)
        self._most_octets = most_octets
        self._beside = 0
        self._why = "Connection lost"
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        transport = _Gathering(transport)
        super().connection_made(transport)
        self._transport = transport
        made = partial(_made, self.connection, transport, self._most_octets)
        self.connection.create_stream = made  # type: ignore[method-assign] # grpclib makes its own

    def data_received(self, data: bytes) -> None:
        before = self.connection.data_received
        super().data_received(data)
        is_answer = self.connection.data_received != before
        self._beside = 0 if is_answer else self._beside + len(data)
        if self._transport.is_closing():
            return
        if self._beside > MOST_BESIDE:
            self._give_up("it sends frames that belong to no answer, without end")
        elif self._transport.get_write_buffer_size() > MOST_UNREAD:
            self._give_up("it does not read what is sent to it")

    def _give_up(self, why: str) -> None:
        self._why = why
        self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.processor.close(self._why)


class _Gathering:
    """A transport that sends at the end of a turn of the loop what has been written in it: a call's head and its message are
    one packet, and one system call."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._pieces:
            asyncio.get_running_loop().call_soon(self._send)
        self._pieces.append(data)

    def _send(self) -> None:
        pieces, self._pieces = self._pieces, []
        if not self._transport.is_closing():
            self._transport.write(b"".join(pieces))

    def close(self) -> None:
        self._send()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Stream(HttpStream):
    most_octets = 0

    async def recv_data(self, size: int) -> bytes:
        if size > self.most_octets:
            text = f"a message of {size} octets; {self.most_octets} are read (max_message_bytes of plugins.list_etcd)"
            raise TooLong(text)
        return await super().recv_data(size)


def _made(
    connection: Connection, transport: Any, most_octets: int, *, wrapper: Any = None
) -> HttpStream:
    stream = _Stream(connection, connection._connection, transport, wrapper=wrapper)
    stream.most_octets = most_octets
    return stream
