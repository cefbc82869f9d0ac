"""Many connections that bring much at once take turns."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.net import bulk
from murder.net.bulk import (
    BULK_OCTETS,
    SLICE_OCTETS,
    took_much,
    write_much,
)
from murder.net.connection import Connection
from murder.net.frames import FrameChannel
from murder.net.tls import client_context, server_context
from murder.net.turns import SHORT_TURN_S
from murder.pki.authority import init_authority, issue
from tests.kit.waiting import turns, until_soon
from tests.rooms.frontend.cluster import running_cluster
from tests.rooms.frontend.entering.test_multiplexor import entered


class Hears:
    def __init__(self, _: Connection) -> None:
        self.octets = 0

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        self.octets += len(data)

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        pass


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, connection = await loop.connect_accepted_socket(lambda: Connection(Hears), ours)
    try:
        yield connection, theirs
    finally:
        connection.abort()
        theirs.close()


@pytest.mark.parametrize("mode", ["murder", "multiplexor"])
async def test_much_passes_in_late_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(bulk, "is_late", lambda *_: True)
    async with running_cluster(tmp_path, mode=mode) as cluster:
        peer = await entered(cluster, "ana")
        mail = b"Subject: x\r\n\r\n" + b"y" * 4_000_000
        peer.send(b"a APPEND INBOX {%d+}\r\n%s\r\n" % (len(mail), mail))
        await peer.until(b"a OK")
        await peer.ok(b"SELECT INBOX")
        for _ in range(5):
            peer.send(b"f FETCH 1 BODY.PEEK[]\r\n")
        for _ in range(5):
            said = await peer.until(b"f OK")
            assert sum(map(len, said)) > len(mail)
        await peer.close()


async def test_in_a_late_turn_who_brings_much_stands_in_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk, "is_late", lambda *_: True)
    async with connected() as (first, peer), connected() as (second, _peer):
        took_much(first)
        took_much(second)
        second.pause_reading()  # its receiver wants no more
        assert not first.transport.is_reading()
        await until_soon(first.transport.is_reading)
        await turns()
        assert not second.transport.is_reading()
        second.resume_reading()
        assert second.transport.is_reading()
        peer.send(b"x" * 10)
        heard = first.receiver
        assert isinstance(heard, Hears)
        await until_soon(lambda: heard.octets == 10)


async def test_what_comes_for_long_is_read_on_in_a_later_turn_after_a_short_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mailbox that moves here: a loop would read all that its channel holds, and decrypt it, before anybody else."""
    monkeypatch.setattr(bulk, "is_late", lambda _, share_s: share_s == SHORT_TURN_S)
    async with connected() as (connection, _):
        channel = FrameChannel(connection, "be2.test", 5.0)
        channel.received(b"O" * (BULK_OCTETS - 1))
        assert connection.transport.is_reading()
        channel.received(b"O" * BULK_OCTETS)
        assert not connection.transport.is_reading()
        await until_soon(connection.transport.is_reading)


async def test_whatever_passes_a_frontend_takes_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up and down, by commands and in a pipe; a backend, too, what comes up."""
    late: list[asyncio.AbstractEventLoop] = []

    def note(loop: asyncio.AbstractEventLoop, _: float) -> bool:
        late.append(loop)
        return True

    monkeypatch.setattr(bulk, "is_late", note)
    for mode in ("murder", "multiplexor"):
        async with running_cluster(tmp_path / mode, mode=mode) as cluster:
            peer = await entered(cluster, "ana")
            mail = b"Subject: x\r\n\r\n" + b"y" * 1_000_000
            late.clear()
            peer.send(b"a APPEND INBOX {%d+}\r\n%s\r\n" % (len(mail), mail))
            await peer.until(b"a OK")
            # the frontend and the backend have each had it, in pieces of 256 KiB at most
            assert len(late) >= 2 * len(mail) // (256 * 1024) > 0
            await peer.ok(b"SELECT INBOX")
            late.clear()
            peer.send(b"f FETCH 1 BODY.PEEK[]\r\n")
            said = await peer.until(b"f OK")
            assert sum(map(len, said)) > len(mail)
            assert len(late) >= len(mail) // (256 * 1024)
            await peer.close()
    assert BULK_OCTETS < 256 * 1024


async def test_much_is_written_a_slice_at_a_time_under_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = Connection.write

    def noting(self: Connection, data: bytes) -> None:
        written.append(len(data))
        write(self, data)

    monkeypatch.setattr(Connection, "write", noting)
    octets = bytes(range(256)) * (2 * SLICE_OCTETS // 256) + b"end"
    async with connected() as (connection, peer):
        write_much(connection, octets)
        connection.is_tls = True  # as far as this is about it
        write_much(connection, octets)
        write_much(connection, b"little")
        assert written == [len(octets), SLICE_OCTETS, SLICE_OCTETS, 3, 6]
        peer.setblocking(False)
        loop, came = asyncio.get_running_loop(), b""
        while len(came) < 2 * len(octets) + 6:
            came += await loop.sock_recv(peer, 1 << 20)
        assert came == 2 * octets + b"little"


async def test_behind_starttls_who_stood_in_line_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading is put off until the handshake; that nobody wants to read any more is not what it says of what comes then."""
    monkeypatch.setattr(bulk, "is_late", lambda *_: True)
    init_authority(tmp_path)
    issue(tmp_path, "be1.test", ["backend"])
    context = server_context(tmp_path / "be1.test.pem", tmp_path / "be1.test.key", None)
    async with connected() as (connection, peer):
        caller = client_context(None, None, None, verify=False)
        _, writer = await asyncio.open_connection(sock=peer)
        await asyncio.gather(
            connection.start_tls(context, server_side=True),
            writer.start_tls(caller, server_hostname="be1.test"),
        )
        heard = connection.receiver
        assert isinstance(heard, Hears)
        for number in range(1, 4):
            writer.write(b"x" * 10)
            await until_soon(lambda number=number: heard.octets == 10 * number)  # type: ignore[misc]
            took_much(connection)
            assert not connection.transport.is_reading()
            await until_soon(connection.transport.is_reading)
        writer.close()
