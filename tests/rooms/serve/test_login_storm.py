"""Many log in at once and their directory takes its time: nobody who is in waits for that, and it is asked by no more than
it bears (`python -m tests.load.logins` is the same with thousands)."""

import asyncio
import threading
import time
from collections import Counter
from pathlib import Path

from murder.api.auth import Denied, Identity, LoginAttempt
from murder.auth.chain import CHECKS_AT_ONCE
from murder.auth.gate import BEGUN_AT_ONCE, WAITED_S, Gate
from murder.config.sections import AuthConfig
from murder.net.turns import Burst
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.frontend.server import Parts, running_frontend

WAITING = CHECKS_AT_ONCE + 50


class Asked(Parts):
    """A directory that answers when it is told to."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked = self.most = 0

    depends_on = ()

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        self.asked += 1
        self.most = max(self.most, self.asked)
        try:
            if user != "me":
                await self.answers.wait()
        finally:
            self.asked -= 1
        return Identity(user)


async def greeted(port: int) -> Peer:
    peer = await Peer.at(port)
    await peer.line()
    return peer


async def test_who_is_in_is_served_while_many_wait_for_a_directory(tmp_path: Path) -> None:
    directory = Asked()
    auth = AuthConfig(failure_delay_s=0, max_guesses_per_address=0)
    async with running_frontend(tmp_path, {}, {}, parts=directory, auth=auth) as running:
        me = await greeted(running.ports["imap"])
        await me.ok("LOGIN me secret")
        threads = set(threading.enumerate())
        peers = [await greeted(running.ports["imap"]) for _ in range(WAITING)]
        for number, peer in enumerate(peers):
            peer.send(b"a LOGIN u%d secret\r\n" % number)
        await until_soon(lambda: directory.asked == CHECKS_AT_ONCE)
        await me.ok("NOOP")
        assert directory.asked == CHECKS_AT_ONCE
        assert set(threading.enumerate()) <= threads  # those of earlier tests may end
        directory.answers.set()
        for peer in peers:
            assert (await peer.line()).startswith(b"a OK")
        assert directory.most == CHECKS_AT_ONCE
        for peer in (me, *peers):
            await peer.close()


async def test_answers_that_come_at_once_are_gone_on_with_one_in_each_turn(tmp_path: Path) -> None:
    gate, answers, loop = Gate(Asked()), asyncio.Event(), asyncio.get_running_loop()
    turns, ended = 0, []

    async def one() -> None:
        await gate.in_time(answers.wait())
        ended.append(turns)

    tasks = [asyncio.create_task(one()) for _ in range(100)]
    await asyncio.sleep(0)  # all of them ask
    began = time.perf_counter()

    def tick() -> None:
        nonlocal turns
        turns += 1
        if time.perf_counter() - began > 2 * WAITED_S:
            answers.set()
        if len(ended) < len(tasks):
            loop.call_soon(tick)

    tick()
    await asyncio.gather(*tasks)
    assert len(set(ended)) == len(tasks)


async def test_attempts_that_come_together_begin_some_in_each_turn_in_their_order() -> None:
    """A hundred sockets that are readable in one turn of the loop are a hundred LOGINs."""
    burst, loop = Burst(BEGUN_AT_ONCE), asyncio.get_running_loop()
    turn, begun = 0, []

    async def one(number: int) -> None:
        await burst.begin()
        begun.append((turn, number))

    def tick() -> None:
        nonlocal turn
        turn += 1
        if len(begun) < len(tasks):
            loop.call_soon(tick)

    tasks = [asyncio.create_task(one(number)) for number in range(100)]
    tick()
    await asyncio.gather(*tasks)
    assert [number for _, number in begun] == list(range(100))
    assert max(Counter(turn for turn, _ in begun).values()) == BEGUN_AT_ONCE
    await one(100)  # the line is empty again
    assert turn == begun[-1][0]


async def test_who_is_cancelled_in_the_line_holds_nobody_up() -> None:
    burst = Burst(1)
    waiting = [asyncio.create_task(burst.begin()) for _ in range(4)]
    await asyncio.sleep(0)
    assert [one.done() for one in waiting] == [True, False, False, False]
    waiting[1].cancel()
    await asyncio.gather(*waiting[2:])
    await burst.begin()
    assert waiting[1].cancelled()
