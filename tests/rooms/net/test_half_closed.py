"""A client that sends its close_notify, perhaps the end of TCP behind it, and reads on: what it asked for is answered."""

import asyncio
import ssl
from pathlib import Path

import pytest

from murder.model import protocol as protocols
from murder.net.listener import Service
from murder.net.tls import server_context
from murder.pki.authority import init_authority, issue
from tests.kit.listening import listening
from tests.rooms.backend.server import running_backend
from tests.rooms.frontend.test_pop3 import Backend, with_backend

IMAP = (
    b"a LOGIN ana secret\r\nb SELECT INBOX\r\nc APPEND INBOX {12+}\r\nSubject: x\r\n\r\n"
    b"d FETCH 1 BODY.PEEK[]\r\ne UID SEARCH ALL\r\nf IDLE\r\n"
)
POP3 = b"USER ana\r\nPASS secret\r\nSTAT\r\nNOOP\r\n"
LMTP = b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ana>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nNOOP\r\n"


class HalfClosed:
    """A client's TLS by hand: a socket object of Python's closes both halves."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    async def shake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.writer.write(self.outgoing.read())
                self.incoming.write(await self.reader.read(65536))
            else:
                return

    def send_all(self, octets: bytes, *, ends_tcp: bool) -> None:
        self.tls.write(octets)
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.writer.write(self.outgoing.read())
        if ends_tcp:
            self.writer.write_eof()

    async def read_all(self) -> bytes:
        """Until the server's own close_notify."""
        said = b""
        while True:
            try:
                octets = self.tls.read(65536)
            except ssl.SSLWantReadError:
                more = await self.reader.read(65536)
                assert more, (said, "TCP has ended without a close_notify")
                self.incoming.write(more)
            except ssl.SSLZeroReturnError:
                return said
            else:
                if not octets:
                    return said
                said += octets


async def ask(service: Service, tls: ssl.SSLContext, octets: bytes, *, ends_tcp: bool) -> bytes:
    async with listening(service, tls=tls) as place:
        client = HalfClosed(*await asyncio.open_connection(*place.address))
        await client.shake()
        client.send_all(octets, ends_tcp=ends_tcp)
        async with asyncio.timeout(20):
            return await client.read_all()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("authority")
    init_authority(folder)
    issue(folder, "be1.test", ["backend"])
    return server_context(folder / "be1.test.pem", folder / "be1.test.key", None)


@pytest.mark.parametrize("ends_tcp", [False, True])
async def test_what_was_asked_before_a_close_notify_is_answered(
    tmp_path: Path, tls: ssl.SSLContext, ends_tcp: bool
) -> None:
    async with running_backend(tmp_path) as running:
        for protocol, octets, wanted in (
            (protocols.IMAP, IMAP, (b"b OK", b"c OK", b"d OK", b"* SEARCH 1\r\ne OK", b"+ ")),
            (protocols.POP3, POP3, (b"+OK 1 12\r\n", b"+OK\r\n")),
            (protocols.LMTP, LMTP, (b"250 2.1.5", b"\r\n354 ", b"\r\n250 2.0.0")),
        ):
            service = running.role.services()[protocol]
            said = await ask(service, tls, octets, ends_tcp=ends_tcp)
            at = 0
            for one in wanted:
                at = said.find(one, at) + len(one)
                assert at >= len(one), (protocol, one, said)


@pytest.mark.parametrize("ends_tcp", [False, True])
async def test_pop3_that_ends_before_there_is_a_pipe_is_answered_and_lets_the_maildrop_go(
    tmp_path: Path, tls: ssl.SSLContext, ends_tcp: bool
) -> None:
    async with with_backend(tmp_path, Backend()) as running:
        service = running.role.services()[protocols.POP3]
        said = await ask(service, tls, POP3, ends_tcp=ends_tcp)
        assert said.endswith(b"+OK relayed STAT\r\n+OK relayed NOOP\r\n"), said
