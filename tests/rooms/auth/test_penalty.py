"""What wrong passwords cost a user at an address, and an address over all users; how many connections a user may have.

Time is a number here: who sleeps is woken in order, and nobody waits.
"""

import asyncio
import heapq
import itertools
import mmap
from collections import Counter
from dataclasses import dataclass
from types import FrameType

import pytest

from murder.auth import penalty
from murder.auth.limit import ConnectionLimit
from murder.auth.penalty import MAX_WAITING, RUN_OFF_S, Penalties
from murder.config.value import parse_network
from murder.errors import Code, Refusal
from murder.model.identity import Identity
from murder.net.shared_counter import PART_OCTETS, TABLES, Counts
from tests.kit.steps import Profiled
from tests.kit.waiting import turns

HERE, THERE = "192.0.2.1", "192.0.2.2"


@dataclass
class Peer:
    """As much of a connection as penalties look at."""

    peer: str
    is_lost: bool = False
    is_held_off: bool = False

    def hold_off(self) -> None:
        self.is_held_off = True


class Time:
    """A clock that stands still but for who sleeps."""

    def __init__(self) -> None:
        self.now = 100_000.0
        self._numbers = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), woken))
        await woken

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def pass_until(self, end: float) -> None:
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await self.settle()
        self.now = end


class Guesser:
    """Tries passwords, and notes when each was looked at and answered. Only `right` is right."""

    def __init__(self, time: Time, *workers: Penalties) -> None:
        self.time, self.workers = time, workers
        self.begun = time.now
        self.looked: list[float] = []
        self.answered: list[float] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def _try(
        self, address: str, user: str, password: str, worker: int, held_s: float
    ) -> None:
        penalties = self.workers[worker % len(self.workers)]
        attempt = await penalties.begin(Peer(address), user, password.encode())
        self.looked.append(self.time.now - self.begun)
        if held_s:
            await self.time.sleep(held_s)
        else:
            await asyncio.sleep(0)  # the hash
        if password == "right":
            attempt.right()
        elif delay_s := attempt.wrong():
            await self.time.sleep(delay_s)
        self.answered.append(self.time.now - self.begun)

    def guess(
        self, address: str, user: str, password: str, *, worker: int = 0, held_s: float = 0
    ) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(self._try(address, user, password, worker, held_s))
        self.tasks.add(task)
        return task

    def hang_up(self) -> None:
        for task in self.tasks:
            task.cancel()


def penalties_of(time: Time, **options: object) -> Penalties:
    return Penalties(clock=time, sleep=time.sleep, **options)  # type: ignore[arg-type] # as given


async def test_wrong_passwords_of_one_user_are_answered_later_and_later() -> None:
    time = Time()
    guesser = Guesser(time, penalties_of(time))
    for number in range(5):
        task = guesser.guess(HERE, "ana", f"wrong{number}")
        await time.pass_until(time.now + 15)
        assert task.done()
    waits = [b - a for a, b in zip(guesser.looked, guesser.answered, strict=True)]
    assert waits == [2, 4, 8, 15, 15]


async def test_sixty_connections_at_once_guess_no_faster_than_one() -> None:
    time = Time()
    guesser = Guesser(time, penalties_of(time))
    for number in range(60):
        guesser.guess(HERE, ("ana", "Ana", "ANA")[number % 3], f"wrong{number}")
    await time.pass_until(time.now + 59)
    guesser.hang_up()
    # four at once as nobody had failed, then one every 15 s
    assert guesser.looked == [0, 0, 0, 0, 15, 30, 45]
    assert len(guesser.answered) <= 7


async def test_three_passwords_from_sixty_connections_at_once_are_looked_at_as_rarely() -> None:
    time = Time()
    guesser = Guesser(time, penalties_of(time))

    async def three() -> None:
        for number in range(3):
            await guesser.guess(HERE, "ana", f"wrong{number}")

    tasks = [asyncio.ensure_future(three()) for _ in range(60)]
    await time.pass_until(time.now + 40)
    assert len(guesser.looked) <= 4 + 2 * 7  # the first at once, then each of two lines by itself
    for task in tasks:
        task.cancel()
    guesser.hang_up()


@pytest.mark.parametrize("held_s", [0.0, 1.0])
async def test_several_workers_look_at_no_more_guesses_than_one(held_s: float) -> None:
    """Of one user from one address, who has failed, one is looked at at a time, whichever worker it came to."""
    time = Time()
    memory = mmap.mmap(-1, TABLES * 5 * PART_OCTETS)
    alone = Guesser(time, penalties_of(time))
    several = Guesser(
        time, *(penalties_of(time, counts=Counts(memory, 5, own)) for own in range(4))
    )
    for guesser in (alone, several):
        for number in range(60):
            guesser.guess(HERE, "ana", f"wrong{number}", worker=number, held_s=held_s)
    await time.pass_until(time.now + 59)
    looked = [round(at) for at in several.looked]
    assert looked == [round(at) for at in alone.looked] == [0, 0, 0, 0, 15, 30, 45]
    for guesser in (alone, several):
        guesser.hang_up()


async def test_the_same_password_at_several_workers_is_looked_at_as_rarely() -> None:
    time = Time()
    memory = mmap.mmap(-1, TABLES * 3 * PART_OCTETS)
    guesser = Guesser(time, *(penalties_of(time, counts=Counts(memory, 3, own)) for own in (0, 1)))
    for number in range(60):
        guesser.guess(HERE, "ana", "old", worker=number, held_s=1.0)
    await time.pass_until(time.now + 50)
    at_first = [at for at in guesser.looked if at < 5]
    assert len(at_first) <= 4 + 2  # one in each of the two lines
    assert max(Counter(guesser.looked[len(at_first) :]).values()) == 1
    guesser.hang_up()


async def test_a_worker_that_has_died_holds_up_nobody_for_long() -> None:
    time = Time()
    memory = mmap.mmap(-1, TABLES * 3 * PART_OCTETS)
    guesser = Guesser(time, *(penalties_of(time, counts=Counts(memory, 3, own)) for own in (0, 1)))
    guesser.guess(HERE, "ana", "wrong")
    await time.pass_until(time.now + 20)
    guesser.guess(HERE, "ana", "never looked at", held_s=1e9)  # its worker dies with it
    await time.settle()
    assert len(guesser.looked) == 2
    guesser.guess(HERE, "ana", "other", worker=1)
    await time.pass_until(time.now + 30)
    assert len(guesser.looked) == 2
    await time.pass_until(time.now + 20)
    assert len(guesser.looked) == 3
    guesser.hang_up()


async def test_workers_count_together() -> None:
    time = Time()
    memory = mmap.mmap(-1, TABLES * 3 * PART_OCTETS)
    workers = [penalties_of(time, counts=Counts(memory, 3, own)) for own in (0, 1)]
    guesser = Guesser(time, *workers)
    for number in range(40):
        guesser.guess(HERE, "ana", f"wrong{number}", worker=number)
    await time.pass_until(time.now + 59)
    assert len(guesser.looked) <= 4 + 3
    assert workers[0].failures(HERE, "ana") == workers[1].failures(HERE, "ana")
    guesser.hang_up()
    await time.settle()
    time.now += 15
    workers[1].pardon(f"{HERE}\0ana", None)
    assert workers[0].failures(HERE, "ana") == 0
    assert workers[0].is_familiar(HERE, "ana")


async def test_the_right_password_of_another_user_or_from_elsewhere_does_not_wait() -> None:
    time = Time()
    penalties = penalties_of(time)
    guesser = Guesser(time, penalties)
    for number in range(20):
        guesser.guess(HERE, "ana", f"wrong{number}")
    await time.settle()
    others = Guesser(time, penalties)
    others.guess(HERE, "bob", "right")
    others.guess(THERE, "ana", "right")
    await time.settle()
    assert others.answered == [0, 0]
    guesser.hang_up()


async def test_a_right_password_of_ones_own_pardons_nobody_else() -> None:
    time = Time()
    penalties = penalties_of(time)
    guesser = Guesser(time, penalties)
    for number in range(4):
        guesser.guess(HERE, "ana", f"wrong{number}")
        await time.pass_until(time.now + 15)
        guesser.guess(HERE, "eve", "right")
        await time.settle()
    assert penalties.failures(HERE, "ana") == 4
    await guesser.guess(HERE, "ana", "right")
    assert penalties.failures(HERE, "ana") == 0


async def test_a_minute_of_peace_pardons() -> None:
    time = Time()
    penalties = penalties_of(time)
    Guesser(time, penalties).guess(HERE, "ana", "wrong")
    await time.settle()
    assert penalties.failures(HERE, "ana") == 1
    await time.pass_until(time.now + 61)
    assert penalties.failures(HERE, "ana") == 0


async def test_one_password_tried_on_many_users_is_rare() -> None:
    async def few() -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    time = Time()
    time.settle = few  # type: ignore[method-assign] # fifty would take a minute here
    guesser = Guesser(time, penalties_of(time))
    begun, tried = time.now, 0
    for second in range(3600):
        while len([task for task in guesser.tasks if not task.done()]) < 100:
            guesser.guess(HERE, f"user{tried}", "Winter2026")
            tried += 1
        await time.pass_until(begun + second)
    guesser.hang_up()
    in_the_hour = len(guesser.looked)
    assert 30 + 3600 / RUN_OFF_S * 30 * 0.9 < in_the_hour < 30 + 3600 / RUN_OFF_S * 30 * 1.1
    assert len([when for when in guesser.looked if when < 1]) == 30


async def test_while_an_address_guesses_who_has_got_in_from_there_does_not_wait() -> None:
    time = Time()
    penalties = penalties_of(time)
    guesser, known = Guesser(time, penalties), Guesser(time, penalties)
    await known.guess(HERE, "bob", "right")
    for number in range(80):
        guesser.guess(HERE, f"user{number}", "Winter2026")
    await time.settle()
    assert len(guesser.looked) == 30
    await known.guess(HERE, "bob", "right")
    known.guess(HERE, "bob", "wrong")
    await time.settle()
    assert len(known.looked) == 3
    assert not penalties.is_familiar(HERE, "bob")
    guesser.hang_up()
    known.hang_up()


async def test_the_same_wrong_password_again_weighs_nothing() -> None:
    time = Time()
    penalties = penalties_of(time)
    telephone, owner = Guesser(time, penalties), Guesser(time, penalties)
    for _ in range(100):
        telephone.guess(HERE, "ana", "old")
        await time.pass_until(time.now + 5)
    assert len(telephone.answered) >= 25
    telephone.hang_up()
    await owner.guess(HERE, "ana", "right")
    assert owner.looked == [500]
    assert penalties._weight(HERE) < 1


async def test_what_is_under_way_counts_before_its_answer() -> None:
    time = Time()
    guesser = Guesser(time, penalties_of(time))
    for number in range(100):
        guesser.guess(HERE, f"user{number}", "Winter2026", held_s=10)
    await time.pass_until(time.now + 5)
    assert len(guesser.looked) == 30
    guesser.hang_up()


async def test_whoever_comes_to_a_full_line_is_told() -> None:
    time = Time()
    penalties = penalties_of(time)
    guesser = Guesser(time, penalties)
    for number in range(MAX_WAITING + 4):
        guesser.guess(HERE, "ana", f"wrong{number}")
    await time.settle()
    with pytest.raises(Refusal) as refused:
        await penalties.begin(Peer(HERE), "ana", b"another")
    assert refused.value.code is Code.UNAVAILABLE
    guesser.hang_up()
    await time.settle()
    assert len(penalties.lines) == 0


async def test_who_has_hung_up_in_line_is_not_looked_at() -> None:
    time = Time()
    penalties = penalties_of(time)
    with pytest.raises(ConnectionResetError):
        await penalties.begin(Peer(HERE, is_lost=True), "ana", b"wrong")
    assert len(penalties.lines) == 0
    assert penalties.failures(HERE, "ana") == 0


async def test_a_trusted_network_never_waits_and_is_not_counted() -> None:
    time = Time()
    penalties = penalties_of(time, trusted=(parse_network("192.0.2.0/24"),))
    guesser = Guesser(time, penalties)
    for number in range(100):
        guesser.guess("192.0.2.9", "ana", f"wrong{number}")
    await time.settle()
    assert guesser.answered == [0] * 100
    assert penalties.failures("192.0.2.9", "ana") == 0


async def test_one_customers_ipv6_addresses_are_one() -> None:
    time = Time()
    penalties = penalties_of(time)
    Guesser(time, penalties).guess("2001:db8::1", "ana", "wrong")
    Guesser(time, penalties).guess("::ffff:192.0.2.7", "ana", "wrong")
    await time.settle()
    assert penalties.failures("2001:db8::ffff", "ana") == 1
    assert penalties.failures("2001:db8:0:1::1", "ana") == 0
    assert penalties.failures("192.0.2.7", "ana") == 1
    assert penalties.failures("::ffff:192.0.2.8", "ana") == 0


def test_a_user_may_have_so_many_connections() -> None:
    limit = ConnectionLimit(2)
    limit.enter("ana")
    limit.enter("ana")
    limit.enter("bob")
    with pytest.raises(Refusal) as refused:
        limit.enter("ana")
    assert refused.value.code is Code.LIMIT
    limit.leave("ana")
    limit.enter("ana")


def test_a_machine_that_has_just_started_looks_for_nobody_who_failed() -> None:
    """Its clock is small yet: what never was is not a short time ago."""
    called = []
    for now in (1.0, 100_000.0):
        time = Time()
        time.now = now
        penalties = penalties_of(time)
        steps: list[str] = []

        def note(frame: FrameType, event: str, _: object, steps: list[str] = steps) -> None:
            if event == "call":
                steps.append(frame.f_code.co_name)

        for _ in range(2):  # what is kept of the first time
            steps.clear()
            with Profiled(note):
                penalties.at_once(HERE, "ana", b"right", lambda user, _: Identity(user))
        called.append(steps)
    assert called[0] == called[1]
    assert "rows" not in called[0]


async def test_hundreds_whose_patience_ends_at_once_are_refused_one_in_each_turn_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(penalty, "PATIENCE_S", 0.0)
    penalties = Penalties()
    attempts = [
        asyncio.create_task(penalties.begin(Peer(HERE), "ana", b"secret")) for _ in range(60)
    ]
    refused = [0]
    while not all(attempt.done() for attempt in attempts):
        await turns()
        refused.append(sum(one.done() and one.exception() is not None for one in attempts))
    assert refused[-1] == 60 - penalty.AT_ONCE
    assert max(later - earlier for earlier, later in itertools.pairwise(refused)) <= 2


def test_what_is_remembered_of_a_name_is_no_longer_than_names_are() -> None:
    """Who is no user may send one of 16 kB, and another one each time."""
    penalties = Penalties(first_s=1.0)
    known = penalty._place_and_pair.cache_info().currsize
    for number in range(10):
        name = "x" * 10_000 + str(number)
        assert penalties.at_once(HERE, name, b"", lambda user, password: None) is None
    assert penalty._place_and_pair.cache_info().currsize <= known + 1
