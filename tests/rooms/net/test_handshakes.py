"""Handshakes of one address: so many at once, the others in line."""

import asyncio
import ssl

import pytest

from murder.net import handshakes
from murder.net.handshakes import HANDSHAKES, Handshakes
from murder.net.listener import Bounds
from tests.kit.waiting import until_soon
from tests.rooms.net.test_doorway import Place, contexts, place

__all__ = ["contexts"]  # a fixture


class Shaking:
    """Handshakes that end when they are told to."""

    def __init__(self, line: Handshakes) -> None:
        self.line = line
        self.begun: list[int] = []
        self.ends: dict[int, asyncio.Event] = {}

    async def shake(self, number: int, peer: str) -> None:
        self.ends[number] = asyncio.Event()
        async with self.line.one(peer):
            self.begun.append(number)
            await self.ends[number].wait()


async def turns() -> None:
    for _ in range(30):  # two of the loop for each in line
        await asyncio.sleep(0)


async def test_more_than_so_many_wait_for_their_turn() -> None:
    shaking = Shaking(Handshakes(most=2))
    peers = ["192.0.2.1"] * 4 + ["192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8::3"]
    tasks = [asyncio.create_task(shaking.shake(*both)) for both in enumerate(peers)]
    await turns()
    assert shaking.begun == [0, 1, 4, 5, 6]  # of IPv6 a whole /64 is one
    tasks[2].cancel()  # it goes, while it waits
    shaking.ends[0].set()
    await turns()
    assert shaking.begun == [0, 1, 4, 5, 6, 3]
    for number in shaking.ends:
        shaking.ends[number].set()
        await turns()
    assert await asyncio.gather(*tasks, return_exceptions=True)
    assert shaking.begun == [0, 1, 4, 5, 6, 3, 7]
    assert not shaking.line._under_way
    assert not shaking.line._waiting


async def test_a_turn_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "WAIT_S", 0)
    line = Handshakes(most=1)
    async with line.one("192.0.2.1"):
        with pytest.raises(TimeoutError):
            async with line.one("192.0.2.1"):
                pass
    assert not line._under_way
    assert not line._waiting


async def until_arrived(here: Place, number: int) -> None:
    doorway = here.listener._doorway
    assert doorway is not None
    async with asyncio.timeout(10):
        await until_soon(
            lambda: sum(arrival._task is not None for arrival in doorway.arrivals) == number
        )


async def test_half_a_handshake_lets_no_more_than_that_begin(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HANDSHAKES, "_most", 1)
    server, client = contexts
    async with place(Bounds(), server) as here:
        half = await here.come()
        half.writer.write(b"\x16")
        await until_arrived(here, 1)
        coming = asyncio.create_task(here.come(tls=client))
        await until_arrived(here, 2)
        assert await (await here.come("127.0.0.2", tls=client)).said() == b"hello"
        assert not coming.done()
        half.writer.close()
        assert await (await coming).said() == b"hello"


async def test_who_has_gone_before_the_handshake_gets_none(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = contexts
    monkeypatch.setattr("murder.net.doorway.Arrival._stand", None)
    async with place(Bounds(), server) as here:
        silent = await here.come()
        await here.until_strangers(1)
        silent.writer.close()
        await here.until_strangers(0)
