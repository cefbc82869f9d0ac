"""Names that plugins and exporters connect to are looked up beside the loop, each once at a time: one whose servers are
silent keeps nobody else waiting."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpcore
import pytest

from murder.api.addresses import _by_loop, addresses_of, set_addresses
from murder.config import TracesConfig, load_config
from murder.config.value import Endpoint
from murder.errors import UpstreamFailure, UpstreamKind
from murder.hooks import load_plugins
from murder.kit.http import make_client
from murder.net.outgoing import resolve
from murder.node.process.otlp import NotTaken, post
from murder.node.process.server import RoleServer
from plugins.auth_ldap.connection import Server, connect
from plugins.list_etcd.channel import BoundedChannel
from tests.kit.waiting import until_soon
from tests.kit.zone import Zone, zone_of
from tests.rooms.frontend.server import served
from tests.rooms.node import fake_roles

TRIES = 40  # more than a loop has threads for it


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    set_addresses(resolve.addresses_of)
    with zone_of(monkeypatch) as made:
        yield made
    set_addresses(_by_loop)


async def by_ldap(host: str, port: int) -> None:
    context = ssl.create_default_context()
    connection = await connect(Server(host, port, is_tls=False, start_tls=False), context, 30.0)
    connection.close()


async def by_http(host: str, port: int) -> None:
    async with make_client(verify=False, timeout_s=30.0, most_octets=1000) as client:
        await client.get(f"http://{host}:{port}/")


async def by_otlp(host: str, port: int) -> None:
    await post(replace(TracesConfig(), collector=Endpoint(host, port), timeout_s=30.0), b"{}")


async def by_etcd(host: str, port: int) -> None:
    channel = BoundedChannel(host, port, most_octets=1000)
    await channel.__connect__()
    channel.close()


WAYS = [by_ldap, by_http, by_otlp, by_etcd]


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        if await reader.read(4096):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
    writer.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_name_that_nobody_answers_is_asked_for_once_and_keeps_no_other(
    way: Callable[[str, int], Awaitable[None]], zone: Zone
) -> None:
    zone.silent = {"silent.test"}
    async with contextlib.AsyncExitStack() as stack:
        port = await served(stack, answering)
        waiting = [asyncio.ensure_future(way("silent.test", port)) for _ in range(TRIES)]
        await until_soon(lambda: zone.asked == ["silent.test"])
        await way("well.test", port)
        assert not any(it.done() for it in waiting)
        zone.released.set()
        await asyncio.gather(*waiting)
        assert zone.asked == ["silent.test", "well.test"]


@pytest.mark.parametrize("way", WAYS)
async def test_the_first_address_that_takes_it_is_used(
    way: Callable[[str, int], Awaitable[None]], zone: Zone
) -> None:
    zone.said = {"several.test": ["127.0.0.2", "127.0.0.1"]}
    async with contextlib.AsyncExitStack() as stack:
        await way("several.test", await served(stack, answering))


async def test_a_name_that_is_none_is_told_as_before(zone: Zone) -> None:
    trouble = socket.gaierror(socket.EAI_NONAME, "unknown")
    zone.said = {"none.test": trouble}
    with pytest.raises(UpstreamFailure, match="put its name into DNS") as caught:
        await by_ldap("none.test", 1)
    assert caught.value.kind is UpstreamKind.CONNECT
    with pytest.raises(NotTaken, match="unknown"):
        await by_otlp("none.test", 1)
    with pytest.raises(OSError, match="unknown"):
        await by_etcd("none.test", 1)
    with pytest.raises(Exception, match="unknown") as told:
        await by_http("none.test", 1)
    assert isinstance(told.value.__cause__, httpcore.ConnectError)


@pytest.mark.parametrize("role", ["frontend", "mupdate"])
async def test_a_server_has_its_plugins_look_names_up_so(
    role: str, tmp_path: Path, zone: Zone
) -> None:
    set_addresses(_by_loop)
    file = tmp_path / "murder.toml"
    file.write_text('[node]\nname = "n.example.org"\ndata = "data"\n')
    (tmp_path / "data").mkdir()
    config = load_config(file)
    target = f"{fake_roles.__name__}:FakeRole"
    server = RoleServer(config, load_plugins(config, ()), role, 0, [], target)
    await server.start()
    zone.said = {"there.test": ["192.0.2.7"]}
    assert await addresses_of("there.test") == ("192.0.2.7",)
    assert await addresses_of("192.0.2.8") == ("192.0.2.8",)
    assert zone.asked == ["there.test"]
    await server.stop()
