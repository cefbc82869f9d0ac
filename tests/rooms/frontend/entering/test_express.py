"""The hot path of a selected session: what it relays as it came, when it steps aside, and that nothing grows there because
somebody does not read."""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.config import FrontendConfig
from murder.model.name import MailboxName
from murder.net.connection import Connection
from murder.net.outgoing.relay import MAX_IN_FLIGHT, ImapUpstream
from murder.net.outgoing.upstream import Address
from murder.net.tap import Traces
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.lobby import EXPRESS_OCTETS, FIRST, WHOLE
from murder.roles.frontend.imap.table import serve_imap

NOOP = b"n NOOP\r\n"
DONE = b"n OK Completed\r\n"


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_read = True
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def taken(self) -> bytes:
        """What was written since the last time."""
        found = b"".join(self.written)
        self.written.clear()
        return found

    def set_write_buffer_limits(self, high: int, low: int) -> None: ...

    def set_protocol(self, protocol: object) -> None: ...

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 4711) if name == "peername" else None

    def is_reading(self) -> bool:
        return self.is_read

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Selected:
    """A session with a mailbox selected, between a client and a backend that are transports."""

    def __init__(self) -> None:
        gate = SimpleNamespace(mechanisms=lambda *_: (), takes_passwords=lambda *_: True)
        service: Any = SimpleNamespace(
            limits=FrontendConfig(),
            role="frontend",
            server_name="fe",
            gate=gate,
            tls=None,
            greetings={},
        )
        frontend: Any = SimpleNamespace(sessions=set(), refers_logins=False)
        self.dialogue = cast(FrontendImap, None)

        def receiver(connection: Connection) -> FrontendImap:
            self.dialogue = serve_imap(connection, service, frontend)
            return self.dialogue

        self.client, self.backend = Transport(), Transport()
        self.connection = Connection(receiver)
        self.connection.connection_made(self.client)  # type: ignore[arg-type]  # as far as it is used
        address = Address("be", "127.0.0.1", 143, "none", "", "plain")
        self.upstream = ImapUpstream(address, self.dialogue, 60, 1 << 20)
        self.upstream.connection = Connection(lambda _: self.upstream)
        self.upstream.connection.connection_made(self.backend)  # type: ignore[arg-type]  # likewise
        self.dialogue.session.logged_in()
        self.dialogue.begin_time(60, activity_counts=True)
        self.dialogue.upstreams["be"] = self.upstream
        self.dialogue.select(self.upstream, MailboxName(b"user.ana"))
        self.client.taken()

    def says(self, octets: bytes) -> bytes:
        """The client; what comes to the backend."""
        self.connection.data_received(octets)
        return self.backend.taken()

    def answers(self, octets: bytes) -> bytes:
        """The backend; what comes to the client."""
        self.upstream.connection.data_received(octets)
        return self.client.taken()


@contextmanager
def selected() -> Iterator[Selected]:
    """In a loop that does not run: so on a busy machine, too, a turn must not end before all of it is done."""
    loop = asyncio.new_event_loop()
    try:
        asyncio._set_running_loop(loop)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("murder.net.dialogue.TURN_S", 60.0)
            yield Selected()
    finally:
        asyncio._set_running_loop(None)
        loop.close()


def test_a_command_goes_as_it_came_and_so_does_its_answer() -> None:
    with selected() as one:
        assert one.says(b"a1 uid fetch 1 (FLAGS)\r\n") == b"a1 uid fetch 1 (FLAGS)\r\n"
        assert one.dialogue.is_flowing
        answer = b"* 1 FETCH (FLAGS ())\r\na1 OK done\r\n"
        assert one.answers(answer) == answer
        assert one.says(NOOP * 3) == NOOP * 3
        assert one.answers(DONE) + one.answers(DONE * 2) == DONE * 3
        assert one.upstream.in_flight == 0


def test_what_goes_the_shortest_way_is_what_is_relayed() -> None:
    words = {word.removesuffix(b"\r") for word in WHOLE} | FIRST
    assert words | {b"UID " + word for word in FIRST} <= serve_imap.RELAYED


@pytest.mark.parametrize(
    "octets",
    [
        b"a1 NOOP\r\n",
        b"a1 NOOP\n",
        b"a1 NOOP \r\n",
        b"a1 NOOP\r\r\n",
        b"a1 noop\r\n",
        b"a1  NOOP\r\n",
        b"a.1 NOOP\r\n",
        b"a+1 NOOP\r\n",
        b"\xe41 NOOP\r\n",
        b"NOOP\r\n",
        b" NOOP\r\n",
        b"\r\n",
        b"a" * 240 + b" NOOP\r\n",
        b"a" * 257 + b" NOOP\r\n",
        b"a1 UID FETCH 1:* (UID FLAGS)\r\n",
        b"a1 UID\r\n",
        b"a1 FETCH\r\n",
        b"a1 FETCH 1 BODY[]\r\n",
        b"a1 SEARCH TEXT {1}\r\n",
        b"a1 SEARCH TEXT {1+}\r\nx\r\n",
    ],
)
def test_the_shortest_way_is_not_another(octets: bytes) -> None:
    """Where it is barred, the same goes to the backend and to the client, and is in flight."""
    went = []
    for most in (0, 250):
        with selected() as one, pytest.MonkeyPatch.context() as patched:
            patched.setattr("murder.roles.frontend.imap.lobby.ONE_OCTETS", most)
            sent = one.says(octets)
            tags = [(tag, command) for tag, _, command in one.upstream.flight]
            went.append((sent, one.client.taken(), tags, one.dialogue.session.held))
    assert went[0] == went[1]


def test_a_client_that_does_not_read_is_given_no_more_and_no_more_is_read_for_it() -> None:
    with selected() as one:
        one.says(NOOP)
        one.connection.pause_writing()
        assert one.answers(DONE) == DONE  # which had been asked for
        assert not one.backend.is_read
        assert one.says(NOOP) == b""
        for _ in range(200):
            one.connection.data_received(NOOP * 400)
            if not one.client.is_read:
                break
        assert not one.client.is_read
        assert one.backend.taken() == b""
        one.connection.resume_writing()
        assert one.backend.is_read
        assert one.backend.taken().startswith(NOOP)


def test_a_backend_that_does_not_read_is_sent_no_more_and_the_client_is_not_read() -> None:
    with selected() as one:
        assert one.says(NOOP) == NOOP
        one.upstream.connection.pause_writing()
        for _ in range(200):
            assert one.says(NOOP * 400) == b""
            if not one.client.is_read:
                break
        assert not one.client.is_read
        one.upstream.connection.resume_writing()
        assert one.backend.taken().startswith(NOOP)


def test_a_client_is_read_again_where_the_last_that_was_held_for_it_fills_the_backend() -> None:
    with selected() as one:
        long = b'n SEARCH TEXT "' + b"x" * 30_000 + b'"\r\n'
        one.says(NOOP)
        one.upstream.connection.pause_writing()
        assert one.says(long * 10) == b""
        assert not one.client.is_read
        write, number = one.backend.write, 0

        def takes_ten(data: bytes) -> None:
            nonlocal number
            write(data)
            number += data.count(b"\n")
            if number == 10:
                one.upstream.connection.pause_writing()

        one.backend.write = takes_ten  # type: ignore[method-assign]  # a kernel whose buffer is full then
        one.upstream.connection.resume_writing()
        assert one.backend.taken() == long * 10
        one.upstream.connection.resume_writing()
        one.answers(DONE * 11)
        assert one.client.is_read


def test_no_more_than_so_many_commands_are_in_flight() -> None:
    with selected() as one:
        burst = NOOP * (EXPRESS_OCTETS // len(NOOP))
        for _ in range(10):
            one.says(burst)
        in_flight = one.upstream.in_flight
        assert MAX_IN_FLIGHT <= in_flight <= MAX_IN_FLIGHT + burst.count(b"\n")
        one.answers(DONE * in_flight)
        assert one.upstream.in_flight > 0  # the next ones


@pytest.mark.parametrize(
    ("octets", "rest"),
    [
        (b"a1 NOO", b"P\r\n"),
        (b"a1 SEARCH SUBJECT {3+}\r\n", b"abc\r\n"),
        (NOOP + b"a1 NO", b"OP\r\n"),
    ],
)
def test_what_is_half_said_is_cut_by_the_session_and_what_follows_flows_again(
    octets: bytes, rest: bytes
) -> None:
    with selected() as one:
        sent = one.says(octets)
        assert not one.dialogue.is_flowing
        sent += one.says(rest)
        assert sent == octets + rest
        one.answers(DONE * octets.count(NOOP) + b"a1 OK done\r\n")
        assert one.says(NOOP) == NOOP
        assert one.dialogue.is_flowing


def test_another_tag_than_the_one_asked_for_ends_the_connection() -> None:
    with selected() as one:
        one.says(NOOP)
        one.answers(b"m OK Completed\r\n")
        assert one.backend.is_closed


def test_a_compressed_session_flows_deflated() -> None:
    with selected() as one:
        deflate = zlib.compressobj(wbits=-15)
        inflate = zlib.decompressobj(-15)
        one.connection.start_deflate()
        said = deflate.compress(NOOP) + deflate.flush(zlib.Z_SYNC_FLUSH)
        assert one.says(said) == NOOP
        assert inflate.decompress(one.answers(DONE)) == DONE


def test_what_is_gathered_goes_before_what_flows() -> None:
    with selected() as one:
        one.says(NOOP)
        one.connection.gather(b"* OK first\r\n", later=False)
        assert one.answers(DONE) == b"* OK first\r\n" + DONE


def test_a_trace_sees_what_flows() -> None:
    with selected() as one:
        one.says(NOOP)
        one.answers(DONE)
        traces = Traces()
        one.dialogue.login = SimpleNamespace(user="ana", proxy="")  # type: ignore[assignment]  # as far as it is used
        lines = traces.begin("ana")
        traces.look([one.connection])
        assert one.says(NOOP) == NOOP
        assert one.answers(DONE) == DONE
        told = [lines.get_nowait() for _ in range(lines.qsize())]
        assert [(line.who, line.octets) for line in told] == [
            ("C", NOOP.decode()),
            ("S", DONE.decode()),
        ]
        traces.end(lines)
        assert one.says(NOOP) == NOOP


def test_where_the_client_ends_its_half_the_last_answer_comes_and_then_the_end() -> None:
    with selected() as one:
        one.says(NOOP)
        assert one.dialogue.input_ended()
        assert not one.client.is_closed
        assert one.answers(DONE) == DONE
        assert one.client.is_closed


COMMANDS = st.lists(
    st.sampled_from(
        (
            NOOP,
            b"n CHECK\r\n",
            b"n fetch 1 flags\n",
            b"n SEARCH TEXT {2+}\r\nab\r\n",
            b"n STORE 1 +FLAGS (x)\r\n",
        )
    ),
    min_size=1,
    max_size=12,
)


@given(COMMANDS, st.lists(st.integers(1, 40), max_size=30))
def test_however_octets_come_the_same_goes_on(commands: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(commands)
    with selected() as one:
        sent, answered, at = b"", b"", 0
        for step in [*cuts, len(whole)]:
            sent += one.says(whole[at : at + step]) if whole[at : at + step] else b""
            at += step
            while one.upstream.in_flight > 3:
                answered += one.answers(DONE)
        while one.upstream.in_flight:
            answered += one.answers(DONE)
        assert sent == whole
        assert answered == DONE * len(commands)
