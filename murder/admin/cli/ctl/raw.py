"""`murder ctl raw`: a protocol spoken to a node by hand."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options
from murder.admin.operate.reach import Reach
from murder.config import ServerConfig
from murder.config.load import unknown
from murder.model.protocol import IMAP, MUPDATE, PROTOCOLS, protocol_named
from murder.net.connection import Connection
from murder.roles.mupdate.remote.link import Target, open_link

TRY_S: Final = 5.0
SPOKEN: Final = [spec.name for spec in (MUPDATE, *PROTOCOLS)]


@click.command()
@operator_options
@click.argument("protocol", metavar=f"{'|'.join(SPOKEN)}|KEY")
@click.argument("host", required=False)
async def raw(reach: Reach, protocol: str, host: str | None) -> int:
    """Speak a protocol to a node yourself, logged in as the operator where the protocol allows that: lines of standard
    input go there, what comes is printed. HOST: a backend's name, or HOST:PORT; mupdate: the master. KEY: a plugin's
    protocol, as in `[servers."NAME"] services`.

    \b
    murder ctl raw mupdate
    murder ctl raw imap be1.example.org
    printf 'LHLO me\\r\\nQUIT\\r\\n' | murder ctl raw lmtp be1.example.org
    """
    if protocol == IMAP.name:
        if not host:
            raise click.UsageError("name a backend")
        upstream = await reach.backend(host)
        await _talk_on(upstream.connection, f"logged in at {host}; write tagged commands")
        return 0
    if protocol == MUPDATE.name:
        link = await open_link(_master_at(reach, host))
        assert link.connection is not None
        await _talk_on(link.connection, f"logged in at {link.target.name}; write tagged commands")
        return 0
    if not host:
        raise click.UsageError("name a HOST")
    name, port = _split(
        reach.config.address_of(host), _port_at(reach.config.server(host), protocol)
    )
    async with asyncio.timeout(TRY_S):
        reader, writer = await asyncio.open_connection(name, port)
    await _pass_on(reader.read, writer.write)
    writer.close()
    return 0


def _port_at(server: ServerConfig, protocol: str) -> int:
    """Raises UsageError for a protocol that nobody speaks there."""
    if protocol in server.services:
        return server.services[protocol]
    if protocol not in SPOKEN:
        raise click.UsageError(
            f"{protocol!r}: {unknown('protocol', protocol, [*SPOKEN, *server.services])}"
        )
    return server.port(protocol_named(protocol).keys[0])


def _master_at(reach: Reach, host: str | None) -> Target:
    """The configured master, or the operator's way in at another one."""
    target = reach.target
    if host:
        name, port = _split(host, target.port)
        target = replace(target, host=name, port=port)
    return target


def _split(place: str, port: int) -> tuple[str, int]:
    """HOST or HOST:PORT."""
    name, mark, given = place.rpartition(":")
    if not mark or not given.isdigit():
        return place, port
    return name, int(given)


async def _talk_on(connection: Connection, greeting: str) -> None:
    """Take over a connection that is logged in."""
    got: asyncio.Queue[bytes] = asyncio.Queue()

    class Here:
        """Takes what the server says from now on."""

        def begin(self) -> None:
            pass

        def received(self, data: bytes) -> None:
            got.put_nowait(data)

        def writable(self) -> None:
            pass

        def lost(self, error: Exception | None) -> None:
            got.put_nowait(b"")

    async def read(_: int) -> bytes:
        return await got.get()

    connection.receiver = Here()
    click.echo(greeting, err=True)
    await _pass_on(read, connection.write)


async def _pass_on(read: Callable[[int], Awaitable[bytes]], write: Callable[[bytes], None]) -> None:
    """Until either side ends; what a pipe gave last is answered first."""

    async def come() -> None:
        while octets := await read(65536):
            sys.stdout.buffer.write(octets)
            sys.stdout.buffer.flush()

    coming = asyncio.ensure_future(come())
    loop = asyncio.get_running_loop()
    while not coming.done():
        line = await loop.run_in_executor(None, sys.stdin.buffer.readline)
        if not line:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(coming), 1.0)
            break
        write(line.rstrip(b"\r\n") + b"\r\n")
    coming.cancel()
