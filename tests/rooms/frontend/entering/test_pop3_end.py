"""The end of a POP3 session behind QUIT: what is let go of at once, and what is not."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from murder.roles.frontend.shared import Frontend
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.frontend.entering.test_pop3_express import (
    GREETING,
    IN,
    counted,
    entered,
    serving,
)
from tests.rooms.frontend.server import Running

BYE = b"+OK bye\r\n"
LAST = b"QUIT\r\n"


class Told:
    """A backend that says what it is told to, and ends when it is told to."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.heard = b""
        self.has_ended = False  # the frontend

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        while not (line := await reader.readline()).startswith(b"AUTH"):
            assert line.startswith(b"CAPA")
            writer.write(b"+OK\r\nUIDL\r\n.\r\n")
        writer.write(IN)
        self.writers.append(writer)
        self.heard, self.has_ended = b"", False
        try:
            while octets := await reader.read(1000):
                self.heard += octets
        except ConnectionResetError:
            pass
        self.has_ended = True

    def end(self) -> None:
        self.writers[-1].close()


def frontend_of(running: Running) -> Frontend:
    frontend = running.role.frontend
    assert frontend is not None
    return frontend


async def known(running: Running) -> tuple[Peer, Peer]:
    """The first takes the long way, the second the short one."""
    first, _ = await entered(running)
    peer, said = await entered(running)
    assert said == b"+OK Logged in"
    return first, peer


async def talk(peer: Peer, backend: Told, steps: Sequence[tuple[bytes, Sequence[bytes]]]) -> None:
    """What the client says, and what of the answer comes then, piece by piece."""
    for said, pieces in steps:
        peer.send(said)
        heard = backend.heard + said
        await until_soon(lambda heard=heard: backend.heard == heard)  # type: ignore[misc]
        for piece in pieces:
            backend.writers[-1].write(piece)
            assert await peer.reader.readexactly(len(piece)) == piece


@pytest.mark.parametrize(
    "steps",
    [
        [(LAST, [BYE])],
        [(b"quit\r\n", [BYE])],
        [(LAST, [b"+OK b", b"ye\r\n"])],
        [(LAST, [b"-ERR [SYS/TEMP] not all is deleted\r\n"])],
        [(b"STAT\r\n", [b"+OK 1 2\r\n"]), (b"DELE 1\r\n", [b"+OK\r\n"]), (LAST, [BYE])],
        [(b"RETR 1\r\n", [b"+OK 2 octets\r\n", b"+OK\r\n", b"\r\n.\r\n"]), (LAST, [BYE])],
        [(b"UIDL 1\r\n", [b"+OK 1 2\r\n"]), (b"LIST\r\n", [b"+OK\r\n1 2\r\n.\r\n"]), (LAST, [BYE])],
    ],
)
async def test_behind_the_answer_to_quit_nobody_is_waited_for(
    tmp_path: Path, steps: list[tuple[bytes, list[bytes]]]
) -> None:
    """The client has its end before the backend ends; which does that itself, as the port would be kept for a minute by
    who ends first."""
    backend = Told()
    async with serving(tmp_path, backend) as running:
        first, peer = await known(running)
        frontend = frontend_of(running)
        await talk(peer, backend, steps)
        assert not await peer.reader.read()
        await until_soon(lambda: len(frontend.sessions) == 1)
        assert counted(running) == {"ana": 1}
        assert len(frontend.leaving.until) == 1 and not backend.has_ended
        backend.end()
        await until_soon(lambda: not frontend.leaving.until)
        await first.close()


async def test_a_backend_that_does_not_end_is_cut_off(tmp_path: Path) -> None:
    backend = Told()
    async with serving(tmp_path, backend) as running:
        first, peer = await known(running)
        frontend = frontend_of(running)
        await talk(peer, backend, [(LAST, [BYE])])
        assert not await peer.reader.read()
        (ends_at,) = frontend.leaving.until.values()
        assert frontend.leaving.look(ends_at - 1.0) == ends_at and frontend.leaving.until
        assert frontend.leaving.look(ends_at) is None
        await until_soon(lambda: backend.has_ended)
        await first.close()


@pytest.mark.parametrize(
    "steps",
    [
        # QUIT while an answer is under way, of which a part looks like that to it
        [(b"RETR 1\r\n", [b"+OK 9 octets\r\n"]), (LAST, [BYE, b".\r\n", BYE])],
        [(b"STAT\r\n", []), (LAST, [b"+OK 1 2\r\n", BYE])],
        [(b"STAT\r\nSTAT\r\n", [b"+OK 1 2\r\n"]), (LAST, [b"+OK 1 2\r\n", BYE])],
        [(b"RETR 1\r\nRETR 1\r\n", [b"+OK\r\n\r\n.\r\n"]), (LAST, [BYE, b"\r\n.\r\n", BYE])],
        [(b"X" * 100 + b"\r\n", [b"-ERR\r\n"]), (LAST, [BYE])],
        [(b"STAT\r\nQUIT\r\n", [b"+OK 1 2\r\n", BYE])],
        # more at once than is looked at again, the first of which has an answer of more lines
        [(b"LIST\r\n" + b"DELE 1\r\n" * 9, [b"+OK\r\n\r\n.\r\n"]), (LAST, [BYE, b"+OK\r\n", BYE])],
        [(b"QU", []), (b"IT\r\n", [BYE])],
        # the end of an answer is not seen where it comes in two pieces
        [(b"LIST\r\n", [b"+OK\r\n", b".\r\n"]), (LAST, [BYE])],
    ],
)
async def test_where_more_may_come_the_backend_ends_it(
    tmp_path: Path, steps: list[tuple[bytes, list[bytes]]]
) -> None:
    backend = Told()
    async with serving(tmp_path, backend) as running:
        first, peer = await known(running)
        frontend = frontend_of(running)
        await talk(peer, backend, steps)
        assert len(frontend.sessions) == 2 and not frontend.leaving.until
        backend.writers[-1].write(b"more\r\n")
        assert await peer.line() == b"more"
        backend.end()
        assert not await peer.reader.read()
        await peer.close()
        await until_soon(lambda: len(frontend.sessions) == 1)
        await first.close()


class Full:
    """A transport that says that something of what was written waits."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def get_write_buffer_size(self) -> int:
        return 1

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


async def test_a_client_that_has_not_taken_all_has_its_time_for_that(tmp_path: Path) -> None:
    backend = Told()
    async with serving(tmp_path, backend) as running:
        first, peer = await known(running)
        frontend = frontend_of(running)
        port = peer.writer.get_extra_info("sockname")[1]
        session: Any = next(one for one in frontend.sessions if one.connection.peer_port == port)
        session.connection.transport = Full(session.connection.transport)
        await talk(peer, backend, [(LAST, [BYE])])
        await until_soon(lambda: session.is_closing)
        now = asyncio.get_running_loop().time()
        ends_at = session.look(now)
        assert ends_at is not None and now < ends_at <= now + 5.0
        assert session.look(ends_at) is None  # it is cut off
        await until_soon(lambda: len(frontend.sessions) == 1)
        backend.end()
        await until_soon(lambda: not frontend.leaving.until)
        await first.close()
