"""Octets that a stranger on the wire puts behind a backend's answer to STARTTLS must reach nobody (CVE-2011-0411)."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from murder.config import Config, FrontendConfig, NodeConfig
from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.connection import Connection
from murder.net.outgoing.exchange import Client
from murder.net.outgoing.pool import open_imap
from murder.net.outgoing.relay import ImapUpstream
from murder.net.outgoing.upstream import Upstreams
from tests.kit.sections import server_section


class Nobody(Client):
    """A client to whom nothing may be passed."""

    connection: Connection

    def upstream_lost(self, upstream: ImapUpstream, tags: list[bytes], mid_response: bool) -> None:
        assert tags == []


Answer = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def injects(tag: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(tag + b" OK go ahead\r\n* OK [ALERT] injected")
    await reader.read()


async def dies(tag: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(tag + b" OK go ahead\r\n")
    await reader.read(1)  # the handshake has begun
    writer.transport.abort()


@pytest.mark.parametrize(
    ("answer", "kind"), [(injects, UpstreamKind.PROTOCOL), (dies, UpstreamKind.LOST)]
)
async def test_what_may_come_behind_the_answer_to_starttls(
    tmp_path: Path, answer: Answer, kind: UpstreamKind
) -> None:
    """Octets end the connection. A server that goes has not failed in TLS: another worker of it may be asked."""

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK ready\r\n")
        await answer((await reader.readline()).split()[0], reader, writer)
        writer.close()

    server = await asyncio.start_server(backend, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = Config(
        tmp_path / "murder.toml",
        NodeConfig("fe1.test", tmp_path),
        frontend=FrontendConfig(),
        servers={"be1.test": server_section(address="127.0.0.1", imap=port)},
    )
    with pytest.raises(UpstreamFailure) as caught:
        await open_imap(
            Upstreams(config),
            "be1.test",
            Nobody(),
            user="ana",
            password=None,
            identity=[],
            timeout_s=5,
            max_message=1000,
        )
    assert caught.value.kind is kind
    server.close()
