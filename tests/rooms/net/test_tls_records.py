"""Small records of TLS: a loop would read all that have come in one turn, thousands of one octet each."""

import asyncio
import socket
from pathlib import Path

from murder.net.connection import Connection
from murder.net.listener import Bounds, Listener
from murder.net.tls import MOST_RECORDS, server_context
from murder.pki.authority import init_authority, issue
from tests.kit.waiting import until_soon
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
    sock = socket.create_server(("127.0.0.1", 0))
    listener = Listener(sock, pieces, Bounds(), context)
    await listener.start()
    client = HalfClosed(*await asyncio.open_connection(*sock.getsockname()))
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
    listener.stop_accepting()
    listener.abort()
