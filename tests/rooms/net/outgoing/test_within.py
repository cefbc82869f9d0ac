"""A connection within the process: in order, a bounded piece in a turn, with back-pressure, and an end that both hear of."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.protocol import IMAP, POP3, ProtocolSpec
from murder.net.connection import WRITE_HIGH_OCTETS, Connection
from murder.net.listener import Service
from murder.net.outgoing.within import PIECE_OCTETS, open_within
from tests.kit.waiting import turns, until_soon


@dataclass
class Ears:
    """A receiver that notes what it hears."""

    connection: Connection
    heard: list[bytes] = field(default_factory=list)
    ends: list[Exception | None] = field(default_factory=list)
    drained: int = 0

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        self.heard.append(data)

    def writable(self) -> None:
        self.drained += 1

    def lost(self, error: Exception | None) -> None:
        self.ends.append(error)


class Server:
    """A server in this process; `far` is what it has of the connection."""

    server = "N1.test"
    far: Ears

    def services(self) -> Mapping[ProtocolSpec, Service]:
        return {IMAP: self._serve}

    def _serve(self, connection: Connection) -> Ears:
        self.far = Ears(connection)
        return self.far


def pair() -> tuple[Ears, Ears]:
    server, made = Server(), list[Ears]()

    def receiver(connection: Connection) -> Ears:
        made.append(Ears(connection))
        return made[-1]

    open_within(server, IMAP, receiver)
    return made[0], server.far


async def test_the_server_knows_who_calls_and_what_is_written_comes_in_the_next_turn() -> None:
    near, far = pair()
    certificate = far.connection.certificate
    assert certificate is not None
    assert (certificate.name, certificate.roles) == ("n1.test", frozenset({"frontend"}))
    assert near.connection.certificate is None
    assert near.connection.is_tls
    assert far.connection.is_tls
    near.connection.write(b"a")
    near.connection.write(b"b")
    assert not far.heard  # never inside the caller's turn
    await turns(1)
    assert far.heard == [b"ab"]
    far.connection.write(b"c")
    await turns(1)
    assert near.heard == [b"c"]


async def test_much_comes_in_pieces_and_who_does_not_read_is_not_written_to() -> None:
    near, far = pair()
    far.connection.pause_reading()
    octets = bytes(PIECE_OCTETS + 10)
    near.connection.write(octets)
    await turns(3)
    assert not far.heard
    assert near.connection.writing_paused
    assert near.connection.pending() == len(octets) > WRITE_HIGH_OCTETS
    far.connection.resume_reading()
    await turns(1)
    assert [len(piece) for piece in far.heard] == [PIECE_OCTETS]
    assert near.drained == 1
    await turns(1)
    assert b"".join(far.heard) == octets


async def test_who_closes_has_all_delivered_first() -> None:
    near, far = pair()
    far.connection.pause_reading()
    near.connection.write(b"the last word")
    near.connection.close()
    await turns(3)
    assert near.ends == [None]
    assert not far.ends
    far.connection.resume_reading()
    await until_soon(lambda: far.ends)
    assert (far.heard, far.ends) == ([b"the last word"], [None])
    assert not far.connection.is_reset() or far.connection.is_lost


async def test_an_abort_is_known_at_once_and_nothing_more_comes() -> None:
    near, far = pair()
    near.connection.write(b"never heard")
    assert not far.connection.is_reset()
    near.connection.reset()
    assert far.connection.is_reset()
    await until_soon(lambda: near.ends and far.ends)
    assert not far.heard
    assert isinstance(far.ends[0], ConnectionResetError)


async def test_writing_to_who_has_gone_ends_it_also_where_nothing_is_read() -> None:
    near, far = pair()
    far.connection.pause_reading()
    near.connection.close()
    await turns(2)
    far.connection.write(b"hello?")
    await until_soon(lambda: far.ends)
    assert len(far.ends) == len(near.ends) == 1


async def test_a_receiver_that_fails_ends_the_connection() -> None:
    near, far = pair()

    def fail(data: bytes) -> None:
        raise ValueError("a bug")

    far.received = fail  # type: ignore[method-assign]
    far.connection.receiver = far
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
    near.connection.write(b"x")
    await until_soon(lambda: near.ends and far.ends)
    assert told


async def test_what_the_server_does_not_serve_is_a_failure_to_connect() -> None:
    with pytest.raises(UpstreamFailure) as failed:
        open_within(Server(), POP3, Ears)
    assert failed.value.kind is UpstreamKind.CONNECT
