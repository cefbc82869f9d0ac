"""Names whose servers are silent keep nobody else waiting, and a name that was known once is known on."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.connection import Connection
from murder.net.ended import Ended
from murder.net.outgoing import resolve
from murder.net.outgoing.connect import connect
from murder.net.outgoing.resolve import AT_ONCE, resolver_of
from tests.kit.waiting import until_soon
from tests.kit.zone import Zone, zone_of


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    with zone_of(monkeypatch) as made:
        yield made


async def connected(host: str, port: int, timeout_s: float = 10.0) -> str:
    """The address that took it."""
    connection = await connect(host, port, lambda _: Ended(), server=host, timeout_s=timeout_s)
    peer = connection.transport.get_extra_info("peername")
    connection.abort()
    return str(peer[0])


async def listening() -> tuple[asyncio.AbstractServer, int]:
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(lambda _: Ended()), "127.0.0.1", 0
    )
    return server, server.sockets[0].getsockname()[1]


async def test_names_that_nobody_answers_keep_no_other_from_being_found(zone: Zone) -> None:
    server, port = await listening()
    zone.silent = {f"silent{number}.test" for number in range(AT_ONCE - 1)}
    waiting = [asyncio.ensure_future(connected(name, port)) for name in sorted(zone.silent)]
    await until_soon(lambda: len(zone.asked) == len(zone.silent))
    assert await connected("well.test", port) == "127.0.0.1"
    assert not any(one.done() for one in waiting)
    zone.released.set()
    assert set(await asyncio.gather(*waiting)) == {"127.0.0.1"}
    server.close()


async def test_a_name_is_looked_up_once_for_all_who_wait_for_it(zone: Zone) -> None:
    server, port = await listening()
    zone.silent = {"silent.test"}
    for _ in range(3):  # who gives up leaves nothing behind that the next one waits for
        with pytest.raises(UpstreamFailure, match="no answer"):
            await connected("silent.test", port, timeout_s=0.01)
    waiting = [asyncio.ensure_future(connected("silent.test", port)) for _ in range(100)]
    await asyncio.sleep(0)
    zone.released.set()
    assert await asyncio.gather(*waiting) == ["127.0.0.1"] * 100
    assert zone.asked == ["silent.test"]
    server.close()


@pytest.mark.parametrize("trouble", ["silent", "failing"])
async def test_a_name_that_nobody_answers_for_now_is_where_it_was_last(
    trouble: str, zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, port = await listening()
    assert await connected("well.test", port) == "127.0.0.1"
    monkeypatch.setattr(resolve, "PATIENCE_S", 0.01)
    if trouble == "silent":
        zone.silent = {"well.test"}
    else:
        zone.said = {"well.test": socket.gaierror(socket.EAI_AGAIN, "for now")}
    with capture_logs() as logged:
        for _ in range(3):
            assert await connected("well.test", port) == "127.0.0.1"
    told = [entry for entry in logged if entry["event"] == "name.not_answered"]
    assert [(entry["host"], entry["addresses"]) for entry in told] == [("well.test", ["127.0.0.1"])]
    server.close()


async def test_a_name_that_is_no_more_is_not_where_it_was_last(zone: Zone) -> None:
    server, port = await listening()
    await connected("well.test", port)
    zone.said = {"well.test": socket.gaierror(socket.EAI_NONAME, "unknown")}
    for _ in range(2):
        with pytest.raises(UpstreamFailure, match="its name has no address") as caught:
            await connected("well.test", port)
        assert caught.value.kind is UpstreamKind.RESOLVE
    server.close()


async def test_the_first_address_that_takes_it_is_used(zone: Zone) -> None:
    server, port = await listening()
    zone.said = {"several.test": ["127.0.0.2", "127.0.0.1"]}
    assert await connected("several.test", port) == "127.0.0.1"
    server.close()
    await server.wait_closed()
    with pytest.raises(UpstreamFailure, match="refused"):
        await connected("several.test", port)


async def test_an_address_is_looked_up_by_nobody(zone: Zone) -> None:
    server, port = await listening()
    assert await connected("127.0.0.1", port) == "127.0.0.1"
    assert zone.asked == []
    server.close()


async def test_of_names_so_many_are_remembered(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "MOST_NAMES", 3)
    resolver = resolver_of(asyncio.get_running_loop())
    for number in range(6):
        assert await resolver.addresses(f"n{number}.test") == ("127.0.0.1",)
    assert list(resolver._names) == ["n3.test", "n4.test", "n5.test"]


@pytest.mark.parametrize("is_known", [False, True])
async def test_where_no_thread_can_be_had_the_next_try_asks_again(
    is_known: bool, zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host may have its most for a moment."""

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server, port = await listening()
    if is_known:
        await connected("well.test", port)
    monkeypatch.setattr(resolve, "_threads", resolve._Threads())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        for _ in range(2):
            if is_known:
                assert await connected("well.test", port) == "127.0.0.1"
                continue
            with pytest.raises(UpstreamFailure, match="can't start new thread"):
                await connected("well.test", port)
    assert await connected("well.test", port) == "127.0.0.1"
    assert len(zone.asked) == 1 + is_known
    server.close()
