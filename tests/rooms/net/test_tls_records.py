"""Small records of TLS: a loop would read all that have come in one turn, thousands of one octet each. And what a peer sends
together with the end of its handshake, behind STARTTLS: it is read once TLS is what is written to."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.net.connection import Connection
from murder.net.tls import MOST_RECORDS, NodeContext, server_context
from murder.pki.authority import init_authority, issue
from tests.kit.listening import listening
from tests.kit.waiting import turns, until_soon
from tests.rooms.net.test_half_closed import HalfClosed


class Pieces:
    """A receiver that notes what comes at a time, and reads nothing behind a piece of this number until it is asked to."""

    role = protocol = "imap"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.octets = b""
        self.pauses_at = 0

    def __call__(self, connection: Connection) -> "Pieces":
        self.connection = connection
        return self

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        self.sizes.append(len(data))
        self.octets += data
        if len(self.sizes) == self.pauses_at:
            self.connection.pause_reading()

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        pass


async def test_a_turn_has_so_many_records_and_none_is_lost(tmp_path: Path) -> None:
    init_authority(tmp_path)
    issue(tmp_path, "be1.test", ["backend"])
    context = server_context(tmp_path / "be1.test.pem", tmp_path / "be1.test.key", None)
    pieces = Pieces()
    pieces.pauses_at = 2
    async with listening(pieces, tls=context) as place:
        client = HalfClosed(*await asyncio.open_connection(*place.address))
        await client.shake()
        sent = bytes(number % 251 for number in range(4 * MOST_RECORDS))
        for number in range(len(sent)):
            client.tls.write(sent[number : number + 1])
        client.writer.write(client.outgoing.read())
        await until_soon(lambda: len(pieces.sizes) == 2)
        pieces.connection.resume_reading()
        await until_soon(lambda: pieces.octets == sent)
        assert max(pieces.sizes) <= MOST_RECORDS
        client.writer.close()


LARGE = bytes(number % 251 for number in range(70_000))


class Answers:
    """A receiver that answers what comes with its size, and reads nothing behind it until it is asked to."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.octets = b""
        self.sizes: list[int] = []
        self.is_over = False

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        assert self.connection.is_tls
        self.octets += data
        self.sizes.append(len(data))
        self.connection.pause_reading()
        self.connection.write(b"%d\n" % len(data))

    def writable(self) -> None:
        pass

    def input_ended(self) -> bool:
        self.connection.write(b"to the end")
        self.connection.close()
        return True

    def lost(self, error: Exception | None) -> None:
        self.is_over = True


@pytest.fixture
def context(tmp_path: Path) -> NodeContext:
    init_authority(tmp_path)
    issue(tmp_path, "be1.test", ["backend"])
    return server_context(tmp_path / "be1.test.pem", tmp_path / "be1.test.key", None)


@asynccontextmanager
async def shaken(
    context: NodeContext, sent: list[bytes], *, ends: bool = False
) -> AsyncIterator[tuple[HalfClosed, Answers]]:
    """A client that has sent these records with its last octets of the handshake, and, where it `ends`, its close_notify."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, connection = await loop.connect_accepted_socket(lambda: Connection(Answers), ours)
    client = HalfClosed(*await asyncio.open_connection(sock=theirs))
    began = loop.create_task(connection.start_tls(context, server_side=True))
    await turns()  # so that nothing is read any more as plain text
    await client.shake()
    for record in sent:
        client.tls.write(record)
    if ends:
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
    client.writer.write(client.outgoing.read())
    await began
    receiver = connection.receiver
    assert isinstance(receiver, Answers)
    try:
        yield client, receiver
    finally:
        connection.abort()
        client.writer.close()
        await until_soon(lambda: receiver.is_over)


async def next_of(receiver: Answers) -> None:
    """What it holds off."""
    before = len(receiver.octets)
    receiver.connection.resume_reading()
    await until_soon(lambda: len(receiver.octets) > before)


async def heard(client: HalfClosed, least: int) -> bytes:
    said = b""
    while len(said) < least:
        try:
            said += client.tls.read(65536)
        except ssl.SSLWantReadError:
            octets = await client.reader.read(65536)
            assert octets
            client.incoming.write(octets)
    return said


@pytest.mark.parametrize("size", [1, 40_000, 70_000])
async def test_much_behind_a_handshake_is_answered_by_tls_and_more_is_read_behind_it(
    context: NodeContext, size: int
) -> None:
    async with shaken(context, [LARGE[:size]]) as (client, receiver):
        sent = LARGE[:size]
        while len(receiver.octets) < size:
            await next_of(receiver)
        client.tls.write(b"more")
        client.writer.write(client.outgoing.read())
        receiver.connection.resume_reading()
        await until_soon(lambda: receiver.octets == sent + b"more")
        answers = b"".join(b"%d\n" % one for one in receiver.sizes)
        assert await heard(client, len(answers)) == answers


async def test_a_turn_behind_a_handshake_has_so_many_records_and_none_is_lost(
    context: NodeContext,
) -> None:
    count = 3 * MOST_RECORDS
    async with shaken(context, [LARGE[n : n + 1] for n in range(count)]) as (_, receiver):
        while len(receiver.octets) < count:
            await next_of(receiver)
        assert receiver.octets == LARGE[:count]
        assert max(receiver.sizes) <= MOST_RECORDS


async def test_a_close_notify_behind_a_handshake_ends_one_half_only(context: NodeContext) -> None:
    async with shaken(context, [b"hello"], ends=True) as (client, receiver):
        assert await heard(client, 12) == b"5\nto the end"
        assert receiver.octets == b"hello"


async def test_another_receiver_in_the_middle_of_a_handshake_does_not_pass_tls_by(
    context: NodeContext,
) -> None:
    """One who traces a user comes and goes at any time."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, connection = await loop.connect_accepted_socket(lambda: Connection(Answers), ours)
    client = HalfClosed(*await asyncio.open_connection(sock=theirs))
    began = loop.create_task(connection.start_tls(context, server_side=True))
    await turns(5)  # the handshake waits for its first octets
    receiver = connection.receiver = Answers(connection)
    await client.shake()
    client.tls.write(b"hello")
    client.writer.write(client.outgoing.read())
    await began
    await until_soon(lambda: receiver.octets == b"hello")
    connection.abort()
    client.writer.close()
    await until_soon(lambda: receiver.is_over)
