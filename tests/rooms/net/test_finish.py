"""A connection whose last word has been said ends when the peer closes: nobody counts it any more. Neither that nor another
receiver of what comes has a step of the loop that is not needed, each of which is a system call or two."""

import asyncio
from pathlib import Path

import pytest

from murder.net.connection import Connection
from murder.net.ended import Ended
from tests.rooms.backend.server import running_backend


@pytest.mark.parametrize("closes_first", [False, True])
async def test_a_session_that_has_logged_out_is_over(
    tmp_path: Path, closes_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murder.net.dialogue.CLOSE_GRACE_S", 600.0)
    async with running_backend(tmp_path) as one:
        ended = asyncio.Event()
        for _ in range(3):
            ended.clear()
            reader, writer = await asyncio.open_connection(*one.address)
            await reader.readline()
            (connection,) = one.listener.connections
            before = connection._on_lost

            def lost(which: object, before: object = before) -> None:
                before(which)  # type: ignore[operator] # the listener's
                ended.set()

            connection._on_lost = lost
            writer.write(b"a LOGIN ana secret\r\nb LOGOUT\r\n")
            if closes_first:
                writer.write_eof()
            said = await reader.read()
            assert b"\r\nb OK" in said, said
            writer.close()
            await asyncio.wait_for(ended.wait(), 60)  # a peer that stays is waited for longer
            assert not one.listener.connections and not one.backend.sessions
        assert not one.backend.gate.connections.counter._of.get("ana")


class Asked(asyncio.Transport):
    """A transport that notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_reading(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.asked.append("set_protocol")

    def resume_reading(self) -> None:
        self.asked.append("resume_reading")

    def write_eof(self) -> None:
        self.asked.append("write_eof")

    def close(self) -> None:
        self.asked.append("close")


class Hearing(Ended):
    """Notes what comes, and may give the connection to another one in the midst of that."""

    def __init__(self, connection: Connection | None = None, heir: "Hearing | None" = None) -> None:
        self.heard: list[bytes] = []
        self._connection, self._heir = connection, heir

    def received(self, data: bytes) -> None:
        self.heard.append(data)
        if self._connection is not None and self._heir is not None:
            self._connection.receiver = self._heir

    def input_ended(self) -> bool:
        return True


def made(receiver: Hearing) -> tuple[Connection, Asked]:
    connection, transport = Connection(lambda _: receiver), Asked()
    connection.connection_made(transport)
    return connection, transport


def test_another_receiver_hears_what_comes_without_the_loop_being_told() -> None:
    last = Hearing()
    connection, transport = made(Hearing())
    heard = connection.data_received  # a loop keeps it
    second = Hearing(connection, last)
    connection.receiver = second
    for octets in (b"a", b"b", b"c"):
        heard(octets)
    assert (second.heard, last.heard) == ([b"a"], [b"b", b"c"])
    assert not transport.asked
    connection.connection_lost(None)
    connection.data_received(b"d")
    assert last.heard == [b"b", b"c"]


@pytest.mark.parametrize("has_ended", [False, True])
def test_whose_peer_has_ended_is_closed_at_once(has_ended: bool) -> None:
    """Nothing can come that would reset it; the loop was made to read its end once again."""
    connection, transport = made(Hearing())
    if has_ended:
        assert connection.eof_received()  # they may still hear something
    connection.finish()
    connection.finish()
    assert transport.asked[:1] == ["close" if has_ended else "write_eof"]
    assert has_ended is ("resume_reading" not in transport.asked)
