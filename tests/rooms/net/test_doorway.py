"""Who comes is counted before anything is done for them: by address, in all, and while they have not logged in."""

import asyncio
import gc
import mmap
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import uvloop

from murder.config.value import parse_network
from murder.net import listener as listener_module
from murder.net.connection import Connection, Receiver
from murder.net.listener import Bounds, Guests, Listener
from murder.net.shared_counter import PART_OCTETS, TABLES, Counts
from murder.net.tls import server_context
from murder.pki.authority import init_authority, issue
from tests.kit.listening import listening
from tests.kit.waiting import until_soon
from tests.rooms.node.test_limits import Greeting

FULL = b"full"
LOCAL = parse_network("127.0.0.0/8")


class Known(Greeting):
    """Lets everybody in who says something."""

    def received(self, data: bytes) -> None:
        self._connection.became_known()
        self._connection.write(b"in")


class Visitor:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def said(self) -> bytes:
        async with asyncio.timeout(10):
            try:
                return await self.reader.read(100)
            except OSError:  # uvloop's word for a connection that has gone is ENOTCONN
                return b""


class Place:
    """A listener with everything a test asks for."""

    def __init__(self, listener: Listener, guests: Guests, port: int) -> None:
        self.listener, self.guests, self.port = listener, guests, port
        self._stay: list[Visitor] = []

    async def come(self, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Visitor:
        options = {"ssl": tls, "server_hostname": "be1.test"} if tls else {}
        visitor = Visitor(
            *await asyncio.open_connection(
                "127.0.0.1",
                self.port,
                local_addr=(source, 0),
                **options,  # type: ignore[arg-type] # as given
            )
        )
        self._stay.append(visitor)
        return visitor

    async def until_strangers(self, number: int) -> None:
        async with asyncio.timeout(10):
            await until_soon(lambda: len(self.guests._strangers) == number)


@asynccontextmanager
async def place(
    bounds: Bounds, tls: ssl.SSLContext | None = None, counts: Counts | None = None
) -> AsyncIterator[Place]:
    def serve(connection: Connection) -> Receiver:
        return Known(connection)

    guests = Guests(counts)
    async with listening(serve, replace(bounds, refusal=FULL), tls, guests) as there:
        yield Place(there.listener, guests, there.port)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("ca")
    init_authority(folder)
    issue(folder, "be1.test", ["backend"])
    server = server_context(folder / "be1.test.pem", folder / "be1.test.key", folder / "ca.pem")
    return server, ssl.create_default_context(cafile=str(folder / "ca.pem"))


async def test_of_strangers_an_address_has_fewer() -> None:
    async with place(Bounds(max_strangers=2)) as here:
        first, second = await here.come(), await here.come()
        assert await first.said() == await second.said() == b"hello"
        assert await (await here.come()).said() == FULL
        assert await (await here.come("127.0.0.2")).said() == b"hello"
        first.writer.write(b"x")
        assert await first.said() == b"in"
        assert await (await here.come()).said() == b"hello"
        second.writer.close()
        await here.until_strangers(2)
        assert await (await here.come()).said() == b"hello"


async def test_limits_by_address_do_not_bind_trusted_networks() -> None:
    bounds = Bounds(max_per_address=1, max_strangers=1, trusted=(LOCAL,))
    async with place(bounds) as here:
        assert [await (await here.come()).said() for _ in range(3)] == [b"hello"] * 3


async def test_where_all_is_full_the_stranger_who_has_been_here_longest_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener_module, "LOGIN_S", 0.0)

    async with place(Bounds(max_connections=3)) as here:
        guests = [await here.come() for _ in range(3)]
        for guest in guests:
            assert await guest.said() == b"hello"
        guests[0].writer.write(b"x")
        assert await guests[0].said() == b"in"
        newcomer = await here.come()
        assert await newcomer.said() == b"hello"
        assert await guests[1].said() == b""
        for guest in (guests[2], newcomer):
            guest.writer.write(b"x")
            assert await guest.said() == b"in"
        assert await (await here.come()).said() == FULL  # nobody is a stranger
        guests[0].writer.close()
        async with asyncio.timeout(10):
            await until_soon(lambda: len(here.listener.connections) <= 2)
        assert await (await here.come()).said() == b"hello"


async def test_the_limit_of_all_holds_over_workers() -> None:
    memory = mmap.mmap(-1, TABLES * 3 * PART_OCTETS)
    one, two = (Counts(memory, 3, own) for own in (0, 1))
    async with (
        place(Bounds(max_connections=3), counts=one) as here,
        place(Bounds(max_connections=3), counts=two) as there,
    ):
        guests = [await here.come(), await there.come(), await there.come()]
        assert [await guest.said() for guest in guests] == [b"hello"] * 3
        assert await (await here.come()).said() == FULL
        guests[1].writer.close()
        await there.until_strangers(1)
        assert await (await here.come()).said() == b"hello"


async def silent_handshakes(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Two of the two that may come say nothing; then one begins, one goes."""
    async with place(Bounds(max_strangers=2), server) as here:
        silent = [await here.come() for _ in range(2)]
        await here.until_strangers(2)
        gc.collect()
        arrivals = here.listener._doorway.arrivals  # type: ignore[union-attr] # it has TLS
        assert [arrival._task for arrival in arrivals] == [None, None]
        assert await (await here.come(tls=client)).said() == FULL
        silent[0].writer.write(b"this is no TLS")
        await here.until_strangers(1)
        assert await (await here.come(tls=client)).said() == b"hello"
        silent[1].writer.close()
        await here.until_strangers(1)
        last = await here.come(tls=client)
        assert await last.said() == b"hello"
        last.writer.write(b"x")
        assert await last.said() == b"in"
        await here.until_strangers(1)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_handshake_that_says_nothing_counts_and_costs_no_tls(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], loop_factory: object
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type] # one of two
        runner.run(silent_handshakes(*contexts))


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 143",
        b"PROXY TCP4 " + b"1" * 200,
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01\0",
        b"\x16\x03\x01\x02\0\x01",
        b"",
    ],
)
async def test_a_header_that_is_none_or_half_leaves_nothing(header: bytes) -> None:
    async with place(Bounds(max_connections=1, balancers=(LOCAL,))) as here:
        visitor = await here.come()
        visitor.writer.write(header)
        visitor.writer.write_eof()
        assert await visitor.said() == b""
        assert not here.guests._strangers
        good = await here.come()
        good.writer.write(b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 143\r\n")
        assert await good.said() == b"hello"


async def test_who_comes_through_a_balancer_is_counted_by_their_own_address() -> None:
    async with place(Bounds(max_per_address=1, balancers=(LOCAL,))) as here:
        said = []
        for last in (7, 7, 8):
            visitor = await here.come()
            visitor.writer.write(b"PROXY TCP4 192.0.2.%d 127.0.0.1 4000 143\r\n" % last)
            said.append(await visitor.said())
        assert said == [b"hello", FULL, b"hello"]
