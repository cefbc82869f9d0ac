"""COMPRESS=DEFLATE (RFC 4978): the same dialogue, deflated; and octets that are none."""

import asyncio
from pathlib import Path

from tests.kit.peer import Deflate, Peer
from tests.rooms.backend.server import running_backend


async def logged_in(address: tuple[str, int]) -> Peer:
    client = await Peer.at(*address)
    await client.line()
    await client.tagged(b"a LOGIN ana secret\r\n")
    return client


async def test_a_deflated_dialogue(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        client = await logged_in(running.address)
        large = b"abc" * 2_000_000
        deflate = Deflate()
        # what comes in one packet with the command is deflated already
        client.send(b"b COMPRESS DEFLATE\r\n" + deflate.pack(b"c NOOP\r\n"))
        assert await client.line() == b"b OK DEFLATE active"
        client.deflate = deflate
        assert await client.line() == b"c OK Completed"
        assert (await client.tagged(b"d COMPRESS DEFLATE\r\n")).startswith(
            b"d NO [COMPRESSIONACTIVE]"
        )
        octets = b"e APPEND INBOX {%d+}\r\n%s\r\n" % (len(large), large)
        assert (await client.tagged(octets)).startswith(b"e OK [APPENDUID")
        client.send(b"f SELECT INBOX\r\ng FETCH 1 BODY.PEEK[]\r\n")
        await client.until(b"f OK")
        (fetched,) = [one for one in await client.until(b"g OK Completed") if b"BODY[]" in one]
        head, _, rest = fetched.partition(b"\r\n")
        assert head.endswith(b"BODY[] {%d}" % len(large))
        assert rest == large + b")"


async def test_octets_that_are_no_deflate_end_the_connection(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        client = await logged_in(running.address)
        await client.tagged(b"b COMPRESS DEFLATE\r\n")
        client.send(b"c NOOP in plain text, which is no deflate\r\n" * 10)
        try:
            rest = await asyncio.wait_for(client.reader.read(), 10)
        except ConnectionResetError:
            rest = b""
        assert b"OK" not in rest
        assert (await logged_in(running.address)) is not None
