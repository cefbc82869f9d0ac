"""Long messages on their way in: who gives way, who waits, and that what is held has an end."""

from contextlib import AsyncExitStack

import pytest

from murder.errors import BadSyntax
from murder.net import dialogue as pump
from murder.net.inbound import SHARE_OCTETS, Inbound
from murder.session.lines import LineSession
from tests.kit.waiting import until_soon
from tests.rooms.net.test_fair_turns import Talk, talking


class Sender:
    """Notes what it is told."""

    def __init__(self, account: str, *, is_busy: bool = False) -> None:
        self.account = account
        self.is_busy = is_busy
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
    running.is_busy = True
    inbound.hold(running, 10)  # what it sends behind it
    assert inbound.octets == 800
    inbound.hold(other, 500)
    assert other.told == ["wait"] and not running.told
    inbound.let_go(running)
    assert other.told == ["wait", "go on"]
    inbound.let_go(other)
    assert inbound.octets == 0


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


async def test_what_is_within_a_share_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Inbound(room=0)
    room.hold(Sender("eve"), 1)
    monkeypatch.setattr(pump, "inbound", lambda: room)
    async with talking() as (talk, _):
        long = Long(talk, "ana")
        long.received(b"x" * SHARE_OCTETS)
        long.received(b"\r\n")
        assert long.handled == 1 and room.octets == 1
