"""What a listener allows: so many connections at all, and so many from one address."""

import asyncio

import pytest

from murder.net.connection import Connection, Receiver
from murder.net.listener import Bounds
from tests.kit.listening import listening
from tests.kit.waiting import until_soon

LIMIT_S = 60.0


class Greeting:
    """Says hello."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begin(self) -> None:
        self._connection.write(b"hello")

    def received(self, data: bytes) -> None:
        pass

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        pass


async def greeting(port: int, source: str) -> tuple[bytes, asyncio.StreamWriter]:
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        return await reader.read(100), writer


async def visit(bounds: Bounds, sources: list[str]) -> tuple[list[bytes], bytes]:
    """What each is greeted with, all staying; and what the first is greeted with after all have gone."""

    def serve(connection: Connection) -> Receiver:
        return Greeting(connection)

    async with listening(serve, bounds) as place:
        visits = [await greeting(place.port, source) for source in sources]
        for _, writer in visits:
            writer.close()
        async with asyncio.timeout(LIMIT_S):
            await until_soon(lambda: not place.listener.connections)
        again, writer = await greeting(place.port, sources[0])
        writer.close()
        return [said for said, _ in visits], again


@pytest.mark.parametrize(
    ("bounds", "sources", "said"),
    [
        (Bounds(2, refusal=b"full"), ["127.0.0.1"] * 3, [b"hello", b"hello", b"full"]),
        (
            Bounds(9, max_per_address=1, refusal=b"full"),
            ["127.0.0.1", "127.0.0.1", "127.0.0.2"],
            [b"hello", b"full", b"hello"],
        ),
    ],
)
def test_one_too_many_is_refused_and_has_room_later(
    bounds: Bounds, sources: list[str], said: list[bytes]
) -> None:
    assert asyncio.run(visit(bounds, sources)) == (said, b"hello")
