"""A peer by hand, which says what octets a test wants and reads lines: IMAP, POP3, LMTP, MUPDATE, all alike.

`Peer` is for coroutines and speaks in octets, `BlockingPeer` is for threads and programs and speaks in text; the same words
mean the same. A *line* has no CRLF; a *message* is a line with its literals in place. All that is waited for has a limit.
What a client library of Python does well (imaplib, smtplib, poplib), tests leave to it.
"""

import asyncio
import re
import socket
import ssl
import zlib
from dataclasses import dataclass, field
from typing import Final, Self, cast

from tests.kit.waiting import until

LIMIT_S: Final = 60.0
STREAM_OCTETS: Final = 1 << 26  # the longest line that is read
_STATUS: Final = (b"OK", b"NO", b"BAD", b"BYE")
_LITERAL: Final = re.compile(rb"\{(\d+)\+?\}\Z")


def literal_behind(line: bytes) -> int | None:
    """The octets of the literal that the line announces."""
    found = _LITERAL.search(line)
    return int(found[1]) if found else None


def ends_command(message: bytes, tag: bytes) -> bool:
    """Whether nothing more comes for the command with this tag: its status, or `* BYE`. The data of MUPDATE have its tag."""
    first, _, rest = message.partition(b" ")
    word = rest.partition(b" ")[0].rstrip(b"\r\n").upper()
    return (first == tag and word in _STATUS) or (first == b"*" and word == b"BYE")


@dataclass(slots=True)
class Deflate:
    """COMPRESS=DEFLATE, both ways (RFC 4978)."""

    _out: "zlib._Compress" = field(default_factory=lambda: zlib.compressobj(wbits=-15))
    _in: "zlib._Decompress" = field(default_factory=lambda: zlib.decompressobj(-15))

    def pack(self, octets: bytes) -> bytes:
        return self._out.compress(octets) + self._out.flush(zlib.Z_SYNC_FLUSH)

    def unpack(self, octets: bytes) -> bytes:
        return self._in.decompress(octets)


class Peer:
    """See the module. `deflate` is set when both sides have agreed to it; what `pack`s is then sent so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.deflate: Deflate | None = None
        self._inflated = b""

    @classmethod
    async def at(cls, *where: str | int, tls: ssl.SSLContext | None = None) -> Self:
        """`Peer.at(port)` on loopback, `Peer.at(host, port)`."""
        host, port = where if len(where) == 2 else ("127.0.0.1", where[0])
        return cls(
            *await asyncio.open_connection(str(host), int(port), limit=STREAM_OCTETS, ssl=tls)
        )

    def send(self, octets: bytes) -> None:
        self.writer.write(octets if self.deflate is None else self.deflate.pack(octets))

    async def line(self) -> bytes:
        """The next line; what there was without its end, b"" at last, where the connection has ended."""
        async with asyncio.timeout(LIMIT_S):
            if self.deflate is None:
                return (await self.reader.readline()).removesuffix(b"\n").removesuffix(b"\r")
            while b"\n" not in self._inflated and await self._more():
                pass
        line, _, self._inflated = self._inflated.partition(b"\n")
        return line.removesuffix(b"\r")

    async def octets(self, count: int) -> bytes:
        """Exactly so many. Raises asyncio.IncompleteReadError."""
        async with asyncio.timeout(LIMIT_S):
            if self.deflate is None:
                return await self.reader.readexactly(count)
            while len(self._inflated) < count and await self._more():
                pass
        found, self._inflated = self._inflated[:count], self._inflated[count:]
        if len(found) < count:
            raise asyncio.IncompleteReadError(found, count)
        return found

    async def _more(self) -> bool:
        assert self.deflate is not None
        octets = await self.reader.read(65536)
        self._inflated += self.deflate.unpack(octets)
        return bool(octets)

    async def message(self) -> bytes:
        whole = await self.line()
        while (size := literal_behind(whole)) is not None:
            whole += b"\r\n" + await self.octets(size) + await self.line()
        return whole

    async def until(self, *beginnings: bytes) -> list[bytes]:
        """Messages up to the one that begins so. AssertionError where the connection ends before."""
        found = [await self.message()]
        while not found[-1].startswith(beginnings):
            assert found[-1] or not self.reader.at_eof(), found
            found.append(await self.message())
        return found

    async def ask(self, command: bytes) -> list[bytes]:
        """A command with its tag in front (CRLF is added); the messages up to its status."""
        self.send(command + b"\r\n")
        tag = command.partition(b" ")[0]
        found: list[bytes] = []
        while not found or not ends_command(found[-1], tag):
            assert not found or found[-1] or not self.reader.at_eof(), found
            found.append(await self.message())
        return found

    async def command(self, words: bytes | str) -> list[bytes]:
        """The same with the tag `t`."""
        return await self.ask(b"t " + (words.encode() if isinstance(words, str) else words))

    async def ok(self, words: bytes | str) -> list[bytes]:
        """Of one that must succeed: the messages before its status."""
        found = await self.command(words)
        assert found[-1].startswith(b"t OK"), (words, found)
        return found[:-1]

    async def reply(self) -> bytes:
        """The last line of an LMTP reply."""
        while (line := await self.line())[3:4] == b"-":
            pass
        return line

    async def replied(self, octets: bytes) -> bytes:
        """Send LMTP as it is; the last line of the reply."""
        self.send(octets)
        return await self.reply()

    async def tagged(self, octets: bytes) -> bytes:
        """Send IMAP as it is, literals and more commands and all; the status of the first command. What else comes, of
        this and of those, is passed over up to there."""
        self.send(octets)
        return (await self.until(octets.partition(b" ")[0] + b" "))[-1]

    @property
    def transport(self) -> asyncio.Transport:
        """Which can be told to read no more."""
        return cast(asyncio.Transport, self.writer.transport)

    async def close(self) -> None:
        self.writer.close()


class BlockingPeer:
    """The same for a thread, and for programs. Raises TimeoutError, OSError."""

    def __init__(self, host: str, port: int, limit_s: float = LIMIT_S) -> None:
        self.sock = socket.create_connection((host, port), limit_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.sock.makefile("rb", 1 << 20)

    def send(self, text: str) -> None:
        self.sock.sendall(text.encode("utf-8", "surrogateescape"))

    def line(self) -> str:
        """The next line. AssertionError where the connection has ended."""
        line = self.stream.readline()
        assert line.endswith(b"\n"), f"the connection was closed, after {line!r}"
        return line.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")

    def octets(self, count: int) -> bytes:
        found: bytes = self.stream.read(count)
        assert len(found) == count, "the connection was closed"
        return found

    def message(self) -> str:
        whole = self.line()
        while (size := literal_behind(whole.encode("utf-8", "surrogateescape"))) is not None:
            literal = self.octets(size).decode("utf-8", "surrogateescape")
            whole += "\r\n" + literal + self.line()
        return whole

    def until(self, *beginnings: str) -> list[str]:
        """Messages up to the one that begins so."""
        found = [self.message()]
        while not found[-1].startswith(beginnings):
            found.append(self.message())
        return found

    def ask(self, command: str) -> list[str]:
        """A command with its tag in front (CRLF is added); the messages up to its status."""
        self.send(command + "\r\n")
        tag = command.partition(" ")[0].encode()
        found = [self.message()]
        while not ends_command(found[-1].encode("utf-8", "surrogateescape"), tag):
            found.append(self.message())
        return found

    def command(self, words: str) -> list[str]:
        """The same with the tag `t`."""
        return self.ask("t " + words)

    def ok(self, words: str) -> list[str]:
        """Of one that must succeed: the messages before its status."""
        found = self.command(words)
        assert found[-1].startswith("t OK"), (words, found)
        return found[:-1]

    def until_ok(self, words: str) -> list[str]:
        """The same, said again until it succeeds."""
        said: list[list[str]] = []

        def succeeds() -> bool:
            said[:] = [self.command(words)]
            return said[0][-1].startswith("t OK")

        until(succeeds, lambda: f"{words}: {said}", every_s=0.1)
        return said[0][:-1]

    def reply(self) -> str:
        """The last line of an LMTP reply."""
        while (line := self.line())[3:4] == "-":
            pass
        return line

    def close(self) -> None:
        self.stream.close()
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
