"""COMPRESS=DEFLATE (RFC 4978): the same dialogue, deflated; and octets that are none."""

import asyncio
import zlib
from pathlib import Path

from tests.backend.server import running_backend


class Deflated:
    """A client behind COMPRESS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        self.inflate = zlib.decompressobj(-15)
        self.seen = b""

    def pack(self, octets: bytes) -> bytes:
        return self.deflate.compress(octets) + self.deflate.flush(zlib.Z_SYNC_FLUSH)

    async def until(self, mark: bytes) -> bytes:
        while mark not in self.seen:
            octets = await asyncio.wait_for(self.reader.read(65536), 10)
            assert octets, "the server has closed"
            self.seen += self.inflate.decompress(octets)
        found, _, self.seen = self.seen.partition(mark)
        return found


async def logged_in(address: tuple[str, int]) -> Deflated:
    reader, writer = await asyncio.open_connection(*address)
    await reader.readline()
    writer.write(b"a LOGIN ana secret\r\n")
    await reader.readline()
    return Deflated(reader, writer)


async def test_a_deflated_dialogue(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        client = await logged_in(running.address)
        large = b"abc" * 2_000_000
        # what comes in one packet with the command is deflated already
        client.writer.write(b"b COMPRESS DEFLATE\r\n" + client.pack(b"c NOOP\r\n"))
        assert await client.reader.readline() == b"b OK DEFLATE active\r\n"
        assert await client.until(b"\r\n") == b"c OK Completed"
        client.writer.write(client.pack(b"d COMPRESS DEFLATE\r\n"))
        assert (await client.until(b"\r\n")).startswith(b"d NO [COMPRESSIONACTIVE]")
        client.writer.write(client.pack(b"e APPEND INBOX {%d+}\r\n%s\r\n" % (len(large), large)))
        assert (await client.until(b"\r\n")).startswith(b"e OK [APPENDUID")
        client.writer.write(client.pack(b"f SELECT INBOX\r\ng FETCH 1 BODY.PEEK[]\r\n"))
        await client.until(b"BODY[] {%d}\r\n" % len(large))
        assert await client.until(b")\r\ng OK Completed\r\n") == large


async def test_octets_that_are_no_deflate_end_the_connection(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:
        client = await logged_in(running.address)
        client.writer.write(b"b COMPRESS DEFLATE\r\n")
        await client.reader.readline()
        client.writer.write(b"c NOOP in plain text, which is no deflate\r\n" * 10)
        try:
            rest = await asyncio.wait_for(client.reader.read(), 10)
        except ConnectionResetError:
            rest = b""
        assert b"OK" not in rest
        assert (await logged_in(running.address)) is not None
