"""Many peers that take nothing: each is written less ahead, and as much as ever when they are gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from murder.net import connection
from murder.net.connection import CROWD, CROWDED_HIGH_OCTETS, WRITE_HIGH_OCTETS, Connection
from murder.net.ended import Ended


class Counted(asyncio.Transport):
    """A transport whose peer takes nothing; it tells as asyncio's do that it is full."""

    def __init__(self, own: Connection) -> None:
        super().__init__()
        self.own = own
        self.octets = 0
        self.most = 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.most = high
        self._look()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.octets += len(data)
        self._look()

    def _look(self) -> None:
        if self.octets > self.most:
            self.own.pause_writing()

    def takes_all(self) -> None:
        self.octets = 0
        self.own.resume_writing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass


@asynccontextmanager
async def many(number: int) -> AsyncIterator[list[Connection]]:
    made = [Connection(lambda _: Ended()) for _ in range(number)]
    for one in made:
        one.connection_made(Counted(one))
    others = connection._Crowd.waiting  # of other tests
    connection._Crowd.waiting = 0
    try:
        yield made
    finally:
        for one in made:
            one.connection_lost(None)
        assert connection._Crowd.waiting == 0
        connection._Crowd.waiting = others


def filled(one: Connection) -> int:
    while not one.writing_paused:
        one.write(bytes(1024))
    transport = one.transport
    assert isinstance(transport, Counted)
    return transport.octets


async def test_who_comes_behind_a_crowd_is_written_little_ahead() -> None:
    async with many(CROWD + 2) as made:
        *crowd, late, gone = made
        assert all(filled(one) == WRITE_HIGH_OCTETS + 1024 for one in crowd)
        assert filled(late) == filled(gone) == CROWDED_HIGH_OCTETS + 1024
        assert late.is_narrow
        late.write_at_most(1024)
        late.write_at_most(WRITE_HIGH_OCTETS)  # which a role may change at any time
        for one in (*crowd, late):
            assert isinstance(one.transport, Counted)
            one.transport.takes_all()
        assert not late.is_narrow
        assert filled(late) == WRITE_HIGH_OCTETS + 1024
        assert gone.is_narrow, "it is lost as it is"


async def test_a_few_who_take_nothing_are_no_crowd() -> None:
    async with many(CROWD) as made:
        assert all(filled(one) == WRITE_HIGH_OCTETS + 1024 for one in made)
