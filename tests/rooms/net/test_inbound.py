"""Long messages on their way in: who gives way, who waits, and that what is held has an end."""

from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

from murder.errors import BadSyntax
from murder.net import dialogue as pump
from murder.net.inbound import SHARE_OCTETS, Inbound
from murder.session.lines import LineSession
from tests.kit.waiting import turns, until_soon
from tests.rooms.net.test_fair_turns import Talk, Ticking, talking


class Sender:
    """Notes what it is told."""

    def __init__(self, account: str, *, waits: bool = True) -> None:
        self.account = account
        self.waits_for_peer = waits
        self.told: list[str] = []

    def give_way(self) -> None:
        self.told.append("give way")

    def wait_for_room(self) -> None:
        self.told.append("wait")

    def has_room(self) -> None:
        self.told.append("go on")


def test_the_largest_of_whoever_has_most_gives_way() -> None:
    inbound = Inbound(room=1000)
    honest, small, large = Sender("ana"), Sender("eve"), Sender("eve")
    inbound.hold(small, 200)
    inbound.hold(large, 350)
    inbound.hold(honest, 400)
    inbound.hold(honest, 500)
    assert [one.told for one in (honest, small, large)] == [[], [], ["give way"]]
    assert inbound.octets == 700


def test_what_a_command_has_counts_while_it_runs() -> None:
    inbound = Inbound(room=1000)
    running, other = Sender("eve"), Sender("ana")
    inbound.hold(running, 800)
    running.waits_for_peer = False
    inbound.hold(running, 10)  # what it sends behind it
    assert inbound.octets == 800
    inbound.hold(other, 500)
    assert other.told == ["wait"] and not running.told
    inbound.let_go(running)
    assert other.told == ["wait", "go on"]
    inbound.let_go(other)
    assert inbound.octets == 0


def test_whoever_has_come_now_may_be_the_one_that_gives_way() -> None:
    """And there is no room then, either: the command that has most of it runs."""
    inbound = Inbound(room=1000)
    running, other, now = Sender("eve", waits=False), Sender("ana"), Sender("eve")
    inbound.hold(running, 2500)
    inbound.hold(other, 100)
    inbound.hold(now, 200)
    assert now.told == ["give way"] and other.told == ["wait"] and not running.told
    inbound.let_go(now)  # its connection ends
    assert inbound.octets == 2600


def test_one_who_is_alone_may_have_more_than_the_room() -> None:
    inbound = Inbound(room=1000)
    alone, other = Sender("ana"), Sender("eve")
    inbound.hold(alone, 5000)
    assert not alone.told
    inbound.hold(other, 100)
    assert alone.told == ["give way"] and not other.told


def test_a_thousand_who_send_half_of_a_message_are_held_to_the_room() -> None:
    inbound = Inbound(room=100_000)
    senders = [Sender(f"user{number % 10}") for number in range(1000)]
    for sender in senders:
        inbound.hold(sender, 1000)
    assert inbound.octets <= 100_000
    assert sum("give way" in sender.told for sender in senders) == 900


def test_who_comes_with_little_does_not_wait_for_what_somebody_else_has_begun() -> None:
    inbound = Inbound(room=1000)
    eve, ana, bob = Sender("eve", waits=False), Sender("ana"), Sender("bob")
    inbound.hold(eve, 1000)
    inbound.hold(ana, 30)
    inbound.hold(bob, 500)
    assert [one.told for one in (eve, ana, bob)] == [[], [], ["wait"]]


def test_those_who_wait_go_on_where_they_alone_are_more_than_the_room() -> None:
    inbound = Inbound(room=1000)
    eve = Sender("eve", waits=False)
    inbound.hold(eve, 900)
    waiting = [Sender(f"user{number}") for number in range(5)]
    for sender in waiting:
        inbound.hold(sender, 220)
    assert all(sender.told == ["wait"] for sender in waiting)
    inbound.let_go(eve)
    assert [sender.told[1:] for sender in waiting] == 4 * [["go on"]] + [[]]
    inbound.let_go(waiting[0])
    assert waiting[4].told == ["wait", "go on"]


def test_what_less_of_somebody_is_held_is_room_for_others() -> None:
    inbound = Inbound(room=1000)
    running, other = Sender("eve", waits=False), Sender("ana")
    inbound.hold(running, 900)
    inbound.hold(other, 500)
    inbound.lower(running, 950)
    assert other.told == ["wait"]
    inbound.lower(running, 500)
    assert other.told == ["wait", "go on"] and inbound.octets == 1000


class Long(Talk):
    """A peer that says much in a line, and who it is."""

    def __init__(self, talk: Talk, account: str) -> None:
        super().__init__(talk.connection)
        self.session = LineSession(10**6)
        self._account = account
        self.activity_counts = True
        self.hopeless_by: list[str] = []
        talk.connection.receiver = self

    @property
    def account(self) -> str:
        return self._account

    def hopeless(self, error: BadSyntax) -> None:
        self.hopeless_by.append(str(error))
        self.close()


async def test_half_lines_of_many_connections_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Inbound(room=10 * SHARE_OCTETS)
    monkeypatch.setattr(pump, "inbound", lambda: room)
    async with AsyncExitStack() as stack:
        greedy = [Long((await stack.enter_async_context(talking()))[0], "eve") for _ in range(10)]
        honest = Long((await stack.enter_async_context(talking()))[0], "ana")
        for one in greedy:
            one.received(b"x" * 3 * (SHARE_OCTETS // 2))
        honest.received(b"x" * 3 * (SHARE_OCTETS // 2))
        assert sum(one.session.held for one in greedy) + honest.session.held <= 10 * SHARE_OCTETS
        assert sum(bool(one.hopeless_by) for one in greedy) == 5
        honest.received(b"\r\n")
        assert honest.handled == 1 and not honest.hopeless_by
        for one in greedy:
            one.connection.abort()
        await until_soon(lambda: room.octets == 0)


async def test_who_takes_no_answers_gives_way_in_the_middle_of_a_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = Inbound(room=2 * SHARE_OCTETS)
    monkeypatch.setattr(pump, "inbound", lambda: room)
    async with AsyncExitStack() as stack:
        talk, _ = await stack.enter_async_context(talking())
        eve = Long(talk, "eve")
        eve.answer = b"x" * 10**6
        honest = Long((await stack.enter_async_context(talking()))[0], "ana")
        eve.received(b"wait\r\n" + b"x" * 2 * SHARE_OCTETS)
        await until_soon(lambda: eve.connection.writing_paused)
        assert room.octets == 2 * SHARE_OCTETS and eve.is_busy
        honest.received(b"x" * (SHARE_OCTETS + 1))
        await until_soon(lambda: eve.connection.is_lost and not eve.is_busy)
        assert not eve.hopeless_by and not honest.hopeless_by  # no word in the middle of an answer
        assert not honest.connection.is_held_back and room.octets == SHARE_OCTETS + 1


async def test_what_is_carried_out_in_later_turns_counts_no_more_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = Inbound()
    monkeypatch.setattr(pump, "inbound", lambda: room)
    monkeypatch.setattr(pump, "time", Ticking())
    async with talking() as (talk, _):
        long = Long(talk, "ana")
        long.received(b"x" * 1000 + b"\r\n" + (b"x" * 1000 + b"\r\n") * 99)
        assert room.octets > SHARE_OCTETS and not long.waits_for_peer
        await until_soon(lambda: long.handled == 100)
        assert room.octets == 0


class Streaming(Long):
    """Its command takes all that comes."""

    def handle(self, event: Any) -> Coroutine[Any, Any, None] | None:
        return self._take()

    async def _take(self) -> None:
        while True:
            await self.next_event()
            self.handled += 1


async def test_what_a_long_command_has_taken_counts_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An APPEND of an hour was a quarter of a mebibyte for all of it."""
    room = Inbound()
    monkeypatch.setattr(pump, "inbound", lambda: room)
    async with talking() as (talk, _):
        long = Streaming(talk, "ana")
        long.received((b"x" * 1000 + b"\r\n") * 101)
        assert room.octets > SHARE_OCTETS
        await until_soon(lambda: long.handled == 100)
        await turns()
        assert room.octets == 0 and long.is_busy


async def test_what_is_within_a_share_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Inbound(room=0)
    room.hold(Sender("eve"), 1)
    monkeypatch.setattr(pump, "inbound", lambda: room)
    async with talking() as (talk, _):
        long = Long(talk, "ana")
        long.received(b"x" * SHARE_OCTETS)
        long.received(b"\r\n")
        assert long.handled == 1 and room.octets == 1
