"""Who sends a request octet by octet has so long for the whole of it, however steadily they send."""

import asyncio
import contextlib

import pytest

from murder.model.protocol import METRICS
from murder.net.connection import Connection
from murder.net.listener import Bounds
from murder.node.pages import http
from murder.node.pages.http import HttpConnection, Request, Response
from tests.kit.listening import listening
from tests.kit.waiting import pause_here, until_soon


async def handle(_: Request) -> Response:
    return Response(200, b"whole\n")


def serve(connection: Connection) -> HttpConnection:
    return HttpConnection(connection, handle, is_welcome=lambda: True)


@pytest.mark.parametrize(
    "beginning", [b"G", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"]
)
async def test_who_drips_is_let_go_amid_their_request(
    beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "IDLE_S", 0.2)
    async with listening(serve) as place:
        reader, writer = await asyncio.open_connection(*place.address)
        writer.write(beginning)
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():  # for ever, if nobody ends it: the test's own limit would
            writer.write(b"a")
            await pause_here(0.02, "a client that is slow on purpose")
        # an octet that it had not read when it closed
        with contextlib.suppress(ConnectionResetError):
            assert b"whole" not in await ended
        writer.close()


async def test_who_may_ask_is_asked_anew_at_each_request() -> None:
    """A scraper keeps its connection for days, and the configuration is read again meanwhile."""
    welcome = True
    get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with listening(
        lambda connection: HttpConnection(connection, handle, is_welcome=lambda: welcome)
    ) as place:
        reader, writer = await asyncio.open_connection(*place.address)
        writer.write(get)
        assert (await reader.readuntil(b"whole\n")).startswith(b"HTTP/1.1 200 ")
        welcome = False
        writer.write(get)
        refused = await reader.read()  # to the end: who is let in later comes anew
        assert refused.startswith(b"HTTP/1.1 403 ") and b"Connection: close" in refused
        writer.close()


async def test_of_who_is_refused_nothing_is_kept_and_little_is_read() -> None:
    """Sockets that send a request without end, again and again: what each had sent stayed with its connection."""
    made: list[HttpConnection] = []
    most = 0

    class Measured(HttpConnection):
        def received(self, data: bytes) -> None:
            nonlocal most
            most = max(most, len(data))
            super().received(data)

    def serve_measured(connection: Connection) -> HttpConnection:
        made.append(Measured(connection, handle, is_welcome=lambda: True))
        return made[-1]

    async with listening(serve_measured, Bounds(receive_octets=METRICS.receive_octets)) as place:
        for _ in range(5):
            reader, writer = await asyncio.open_connection(*place.address)
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET / HTTP/1.1\r\nX: " + b"y" * (1 << 20))
                await reader.read()
            writer.close()
        await until_soon(lambda: all(one._connection.is_lost for one in made))
        assert len(made) == 5
        assert [one._http.trailing_data for one in made] == [(b"", False)] * 5
        assert 0 < most <= 4 * http.MAX_HEAD
