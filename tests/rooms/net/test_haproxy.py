"""A listener behind a load balancer."""

import asyncio
import ssl
from pathlib import Path

import pytest

from murder.config.value import parse_network
from murder.net.connection import Connection, Receiver
from murder.net.listener import Bounds
from murder.net.tls import server_context
from murder.pki.authority import init_authority, issue
from tests.kit.listening import listening

LINE = b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 143\r\n"


class WhoAmI:
    """Tells the client its address, and gives back what it says."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begin(self) -> None:
        self._connection.write(f"{self._connection.peer} {self._connection.peer_port}\n".encode())

    def received(self, data: bytes) -> None:
        self._connection.write(bytes(data))

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        pass


def serve(connection: Connection) -> Receiver:
    return WhoAmI(connection)


async def visit(
    bounds: Bounds,
    sent: bytes,
    tls: ssl.SSLContext | None = None,
    client: ssl.SSLContext | None = None,
) -> bytes:
    """What a client is told that sends this first, and `hello` in its session; b"" if it is cut off."""
    try:
        async with listening(serve, bounds, tls) as place, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*place.address)
            writer.write(sent if client else sent + b"hello")
            if client is not None:
                await writer.start_tls(client, server_hostname="be1.test")
                writer.write(b"hello")
            said = await reader.readline()
            if said:
                said += await reader.readexactly(5)
            writer.close()
            return said
    except ConnectionError:
        return b""


TRUSTED = Bounds(balancers=(parse_network("127.0.0.0/8"),))


def test_a_balancers_client_is_known_by_its_own_address() -> None:
    assert asyncio.run(visit(TRUSTED, LINE)) == b"192.0.2.7 4000\nhello"


def test_a_trusted_address_must_begin_with_a_header() -> None:
    assert asyncio.run(visit(TRUSTED, b"a CAPABILITY\r\n")) == b""


def test_another_address_gives_no_header() -> None:
    bounds = Bounds(balancers=(parse_network("192.0.2.0/24"),))

    async def run() -> bytes:
        return (await visit(bounds, b""))[:10]

    assert asyncio.run(run()) == b"127.0.0.1 "


@pytest.mark.parametrize("balancer", ["127.0.0.0/8", "192.0.2.0/24"])
def test_tls_begins_behind_the_header(tmp_path: Path, balancer: str) -> None:
    init_authority(tmp_path)
    issue(tmp_path, "be1.test", ["backend"])
    server = server_context(
        tmp_path / "be1.test.pem", tmp_path / "be1.test.key", tmp_path / "ca.pem"
    )
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    bounds = Bounds(balancers=(parse_network(balancer),))
    is_trusted = balancer.startswith("127")
    said = asyncio.run(visit(bounds, LINE if is_trusted else b"", server, client))
    assert said.endswith(b"hello")
    assert said.startswith(b"192.0.2.7 4000\n" if is_trusted else b"127.0.0.1 ")
