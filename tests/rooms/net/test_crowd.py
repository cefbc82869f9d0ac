"""Many peers that take nothing: each is written less ahead, and as much as ever when they are gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.net import connection
from murder.net.connection import CROWD, CROWDED_HIGH_OCTETS, WRITE_HIGH_OCTETS, Connection
from murder.net.ended import Ended
from murder.roles.frontend.imap.dialogue import WAITING_OCTETS
from tests.rooms.frontend.cluster import running_cluster
from tests.rooms.frontend.entering.test_multiplexor import entered


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


@pytest.mark.parametrize("mode", ["murder", "multiplexor"])
async def test_a_frontends_clients_are_written_no_further_ahead_behind_a_crowd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """They have less than others before it, and as much again when it has gone."""
    async with running_cluster(tmp_path, mode=mode) as cluster:
        peer = await entered(cluster, "ana")
        frontend = cluster.frontends[0].role.frontend
        assert frontend is not None
        (session,) = frontend.sessions
        client = session.connection
        limits = client.transport.get_write_buffer_limits()
        assert limits == (WAITING_OCTETS // 4, WAITING_OCTETS)
        with monkeypatch.context() as crowded:
            crowded.setattr(connection, "CROWD", 0)
            client.write(b"* OK Still here\r\n")
            assert client.is_narrow
        client.pause_writing()
        client.resume_writing()  # as the loop does when the client has taken what there was
        assert not client.is_narrow
        assert client.transport.get_write_buffer_limits() == limits
        await peer.close()
