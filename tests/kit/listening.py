"""Listeners of murder's own on ports of loopback, in the test's event loop."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from murder.model.protocol import ProtocolSpec
from murder.net.listener import Bounds, Guests, Listener, Service


@dataclass(frozen=True, slots=True)
class Place:
    """Where one listens."""

    listener: Listener
    address: tuple[str, int]

    @property
    def port(self) -> int:
        return self.address[1]


async def _listen(
    service: Service,
    bounds: Bounds | None = None,
    tls: ssl.SSLContext | None = None,
    guests: Guests | None = None,
) -> Place:
    sock = socket.create_server(("127.0.0.1", 0))
    listener = Listener(sock, service, bounds or Bounds(), tls, guests)
    await listener.start()
    return Place(listener, sock.getsockname())


@asynccontextmanager
async def listening(
    service: Service,
    bounds: Bounds | None = None,
    tls: ssl.SSLContext | None = None,
    guests: Guests | None = None,
) -> AsyncIterator[Place]:
    """A service; at the end whoever is there is cut off."""
    place = await _listen(service, bounds, tls, guests)
    try:
        yield place
    finally:
        place.listener.stop_accepting()
        place.listener.abort()
        await asyncio.sleep(0)  # they are told


class Role(Protocol):
    """What has services, and ends."""

    def services(self) -> Mapping[ProtocolSpec, Service]: ...

    async def stop(self) -> None: ...


@asynccontextmanager
async def role_listening(
    role: Role,
    protocols: Sequence[ProtocolSpec],
    bounds: Bounds | None = None,
    guests: Guests | None = None,
) -> AsyncIterator[list[Place]]:
    """A role that has started, with these of its services, in this order; at the end it is stopped."""
    services = role.services()
    places = [await _listen(services[spec], bounds, None, guests) for spec in protocols]
    try:
        yield places
    finally:
        for place in places:
            place.listener.stop_accepting()
        await role.stop()
        for place in places:
            place.listener.abort()
