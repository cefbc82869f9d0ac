"""Octets that a stranger on the wire puts behind a backend's answer to STARTTLS must reach nobody (CVE-2011-0411)."""

import asyncio
from pathlib import Path

import pytest

from murder.config import Config, FrontendConfig, NodeConfig
from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.connection import Connection
from murder.net.exchange import Client
from murder.net.pool import open_imap
from murder.net.relay import ImapUpstream
from murder.net.upstream import Upstreams
from tests.kit.sections import server_section


class Nobody(Client):
    """A client to whom nothing may be passed."""

    connection: Connection

    def upstream_lost(self, upstream: ImapUpstream, tags: list[bytes], mid_response: bool) -> None:
        assert tags == []


async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"* OK ready\r\n")
    tag = (await reader.readline()).split()[0]
    writer.write(tag + b" OK go ahead\r\n* OK [ALERT] injected")
    await reader.read()
    writer.close()


async def test_octets_behind_the_answer_to_starttls_end_the_connection(tmp_path: Path) -> None:
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
    assert caught.value.kind is UpstreamKind.PROTOCOL
    server.close()
