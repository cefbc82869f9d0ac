"""One peer gets a bounded share of the loop, and costs a bounded number of octets, whatever it sends and does not read."""

import asyncio
import itertools
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from murder.errors import BadSyntax
from murder.net import connection, takeover
from murder.net import dialogue as pump
from murder.net.connection import INFLATE_OCTETS, WRITE_HIGH_OCTETS, Connection
from murder.net.dialogue import HELD_IN_CROWD_OCTETS, HELD_OCTETS, Dialogue
from murder.net.frames import FrameChannel
from murder.net.turns import LATE_TURN_S, TURN_S, Turn
from murder.session.lines import Line, LineSession
from murder.wire.nodes.carry import format_words
from tests.kit.waiting import turns, until_soon


class Talk(Dialogue):
    """Answers each line with `answer`; a line `wait` by a coroutine that answers 1,000 times."""

    def __init__(self, connection: Connection, answer: bytes = b"ok\r\n") -> None:
        super().__init__(connection, LineSession(1000), 60.0)
        self.answer = answer
        self.handled = 0
        self.rests = 0
        self.turns: list[int] = []  # how many commands had been handled whenever the loop was free

    def greet(self) -> None:
        pass

    def handle(self, event: Any) -> Coroutine[Any, Any, None] | None:
        self.handled += 1
        if isinstance(event, Line) and event.octets == b"wait":
            return self._wait()
        self.send(self.answer)
        return None

    async def _wait(self) -> None:
        for _ in range(1000):
            self.send(self.answer)
            await self.flush()

    async def rest(self) -> None:
        self.rests += 1
        await super().rest()

    def failed(self, event: Any, error: Exception) -> None:
        raise error

    def hopeless(self, error: BadSyntax) -> None:
        raise error

    def timed_out(self) -> None:
        pass


@asynccontextmanager
async def talking(answer: bytes = b"ok\r\n") -> AsyncIterator[tuple[Talk, socket.socket]]:
    """A dialogue and the other end of its connection."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _, connection = await loop.connect_accepted_socket(
        lambda: Connection(lambda it: Talk(it, answer)), ours
    )
    receiver = connection.receiver
    assert isinstance(receiver, Talk)
    try:
        yield receiver, theirs
    finally:
        connection.abort()
        theirs.close()


class Ticking:
    """A clock that goes on by a tenth of a turn whenever it is looked at."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def perf_counter(self) -> float:
        return next(self._ticks) * TURN_S / 10


async def test_commands_that_come_together_are_handled_a_turn_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump, "time", Ticking())

    async with talking() as (talk, _):
        talk.received(b"x\r\n" * 200)
        seen = [talk.handled]
        while talk.handled < 200:
            await turns()
            seen.append(talk.handled)
        shares = [later - earlier for earlier, later in itertools.pairwise([0, *seen])]
        assert max(shares) <= 12 and len(shares) >= 200 // 12


async def test_a_hundred_bursts_at_once_are_not_a_hundred_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first has a whole turn, whoever comes later in it a few commands; then one in each turn of the loop goes on."""
    whole, few = 12, 12 * LATE_TURN_S / TURN_S + 1
    monkeypatch.setattr(pump, "time", Ticking())
    async with AsyncExitStack() as stack:
        many = [(await stack.enter_async_context(talking()))[0] for _ in range(30)]
        for one in many:
            one.received(b"x\r\n" * 40)
        assert few < many[0].handled <= whole
        assert all(1 <= one.handled <= few for one in many[1:])
        seen = [sum(one.handled for one in many)]
        while seen[-1] < 30 * 40:
            await asyncio.sleep(0)
            seen.append(sum(one.handled for one in many))
        assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= whole


async def test_two_in_line_have_equal_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one has held is forgotten before the turn of the other."""
    monkeypatch.setattr(pump, "time", Ticking())
    async with talking() as (first, _), talking() as (second, _):
        first.received(b"x\r\n" * 400)
        second.received(b"x\r\n" * 400)
        while min(first.handled, second.handled) < 400:
            assert abs(first.handled - second.handled) <= 3 * 12
            await asyncio.sleep(0)


async def test_who_has_a_task_leaves_a_whole_turn_to_who_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Ticking()
    monkeypatch.setattr(pump, "time", clock)
    monkeypatch.setattr("murder.net.turns.time", clock)

    async def work() -> None:
        while talk.handled < 200:
            turn = Turn(clock=clock.perf_counter)
            while not turn.is_over:
                pass
            worked.append(talk.handled)
            await turn.rest()

    worked: list[int] = []
    async with talking() as (talk, _):
        working = asyncio.ensure_future(work())
        await turns()
        talk.received(b"x\r\n" * 200)
        await working
        assert len(worked) <= 2 * 200 // 8


async def test_many_who_each_take_less_than_a_turn_do_not_take_one_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump, "time", Ticking())
    async with AsyncExitStack() as stack:
        many = [(await stack.enter_async_context(talking()))[0] for _ in range(30)]
        for one in many:
            one.received(b"x\r\n" * 7)
        assert [one.handled for one in many[:2]] == [7, 7]
        assert all(one.handled < 3 for one in many[2:])
        await until_soon(lambda: all(one.handled == 7 for one in many))


async def test_what_comes_while_a_turn_is_waited_for_keeps_its_order_and_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump, "time", Ticking())

    async with talking(b"") as (talk, _):
        talk.activity_counts = True
        while talk.connection.transport.is_reading():
            talk.received(b"x\r\n" * 10_000)
        assert talk.session.held <= HELD_OCTETS + 30_000
        await until_soon(lambda: talk.connection.transport.is_reading())
        assert talk.session.held == 0


async def test_behind_a_crowd_less_is_held_of_who_sends_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump, "time", Ticking())
    monkeypatch.setattr(connection, "CROWD", 0)

    async with talking(b"") as (talk, _):
        talk.activity_counts = True
        while talk.connection.transport.is_reading():
            talk.received(b"x\r\n" * 1000)
        assert talk.session.held <= HELD_IN_CROWD_OCTETS + 3000
        await until_soon(lambda: talk.connection.transport.is_reading())
        assert talk.session.held == 0


async def test_a_peer_that_reads_no_answers_gets_no_more_of_them() -> None:
    async with talking(b"a" * 1000 + b"\r\n") as (talk, peer):
        talk.activity_counts = True
        loop = asyncio.get_running_loop()
        wanted, sent = 20_000, 0
        octets = b"x\r\n" * wanted
        for _ in range(2000):  # as much as it takes, reading nothing
            try:
                sent += peer.send(octets[sent:])
            except BlockingIOError:
                pass
            await asyncio.sleep(0)
        assert talk.handled < 4000
        assert talk.connection.pending() <= WRITE_HIGH_OCTETS + 128 * 1024
        assert talk.session.held <= HELD_OCTETS + 256 * 1024
        got = 0
        while got < wanted * 1002:  # and now it reads: everything is answered
            if sent < len(octets):
                try:
                    sent += peer.send(octets[sent:])
                except BlockingIOError:
                    pass
            got += len(await loop.sock_recv(peer, 1 << 20))
        assert talk.handled == wanted


async def test_a_long_handler_rests_when_its_turn_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "time", Ticking())

    async with talking() as (talk, _):
        talk.received(b"wait\r\n")
        await until_soon(lambda: not talk.is_busy)
        assert 80 <= talk.rests <= 120  # 1,000 looks at a clock of ten to a turn


async def test_little_is_held_for_somebody_unknown() -> None:
    async with talking() as (talk, _):
        talk.activity_counts = False
        talk.received(b"wait\r\n")
        talk.received(b"x\r\n" * 10_000)
        assert not talk.connection.transport.is_reading()
        await until_soon(lambda: talk.handled == 10_001)
        await until_soon(lambda: talk.connection.transport.is_reading())


async def test_who_was_held_off_is_read_one_after_the_other() -> None:
    """Hundreds of strangers whose wrong passwords are answered at once, each with much in the kernel by then: together
    that was 100 MiB, and a tenth of a second."""
    async with AsyncExitStack() as stack:
        many = [await stack.enter_async_context(talking()) for _ in range(20)]
        for talk, theirs in many:
            talk.connection.is_a_strangers(lambda _: None)
            talk.connection.hold_off()
            theirs.send(b"x\r\n" * 1000)
        for talk, _ in many:
            talk.connection.resume_reading()
        seen = [0]
        while seen[-1] < len(many):
            await turns(1)
            seen.append(sum(talk.handled > 0 for talk, _ in many))
        assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 2


async def test_who_is_held_off_anew_before_their_turn_is_not_read() -> None:
    async with talking() as (talk, theirs):
        talk.connection.is_a_strangers(lambda _: None)
        talk.connection.hold_off()
        theirs.send(b"x\r\n")
        talk.connection.resume_reading()
        talk.connection.hold_off()
        await turns(20)
        assert not talk.handled
        talk.connection.resume_reading()
        await until_soon(lambda: talk.handled == 1)


async def test_deflated_octets_are_inflated_a_little_in_each_turn() -> None:
    async with talking(b"") as (talk, _):
        talk.connection.start_deflate()
        bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
        octets = bomb.compress(b"x\r\n" * 300_000) + bomb.flush(zlib.Z_SYNC_FLUSH)
        sizes = []
        received = talk.received
        talk.received = lambda data: (sizes.append(len(data)), received(data))[1]  # type: ignore[method-assign, func-returns-value]
        talk.connection.inflate(octets)
        assert sum(sizes) <= INFLATE_OCTETS  # in this turn
        await until_soon(lambda: sum(sizes) == 900_000)
        assert max(sizes) <= INFLATE_OCTETS


async def test_octets_behind_the_end_of_a_deflate_stream_end_the_connection() -> None:
    async with talking() as (talk, _):
        talk.connection.start_deflate()
        stream = zlib.compressobj(9, zlib.DEFLATED, -15)
        talk.connection.inflate(stream.compress(b"x\r\n") + stream.flush() + b"more")
        await until_soon(lambda: talk.connection.is_lost)
        assert talk.handled == 1


async def test_what_was_asked_before_the_end_of_the_input_is_answered() -> None:
    async with talking() as (_, peer):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(peer, b"x\r\nwait\r\nx\r\nhalf a comm")
        peer.shutdown(socket.SHUT_WR)
        said = b""
        async with asyncio.timeout(20):
            while more := await loop.sock_recv(peer, 65536):
                said += more
        assert said == b"ok\r\n" * 1002


async def test_a_connection_that_both_have_ended_is_over_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump, "CLOSE_GRACE_S", 60.0)

    async with talking() as (talk, peer):
        talk.close()
        peer.close()
        await until_soon(lambda: talk.connection.is_lost)


class Frames:
    """The receiver that a channel takes a connection over from."""

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        pass

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        pass


@asynccontextmanager
async def framing() -> AsyncIterator[tuple[FrameChannel, Callable[[], int]]]:
    """A channel whose other end takes what comes, and how many turns of the loop there have been."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    _, connection = await loop.connect_accepted_socket(lambda: Connection(lambda _: Frames()), ours)
    turns = 0

    def free() -> None:
        nonlocal turns
        turns += 1
        if not connection.is_lost:
            loop.call_soon(free)

    free()
    try:
        yield FrameChannel(connection, "be2.test", 5.0), lambda: turns
    finally:
        connection.abort()
        theirs.close()


async def test_frames_that_have_come_are_taken_a_short_turn_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(takeover, "time", Ticking())
    async with framing() as (channel, turns):
        channel.received(format_words({}) * 500)
        for _ in range(500):
            await channel.receive()
        assert turns() >= 500 // 4


async def test_frames_that_are_sent_are_so_too_where_the_peer_takes_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(takeover, "time", Ticking())
    async with framing() as (channel, turns):
        for _ in range(500):
            await channel.send_octets(b"x" * 40)
        assert turns() >= 500 // 4
