"""Random work in ten mailboxes on two backends through one frontend; at the end everything is where it was put.

Every message has a number of its own and must be, at the end, in as many copies as were acknowledged, neither lost nor
doubled. A longer run: MURDER_STRESS_STEPS.
"""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.rooms.frontend.cluster import running_cluster
from tests.rooms.frontend.names.test_list import Peer, logged_in

STEPS = int(os.environ.get("MURDER_STRESS_STEPS", "120"))
SESSIONS = 6
OWN = [f"INBOX/m{number}" for number in range(5)]
FAR = [f"user/bob/m{number}" for number in range(5)]
ALL = OWN + FAR


def numbers(answer: bytes) -> list[int]:
    """UIDs of a SEARCH."""
    lines = [line for line in answer.splitlines() if line.startswith(b"* SEARCH")]
    return [int(word) for line in lines for word in line.split()[2:]]


def is_ok(answer: bytes) -> bool:
    """OK or not; BAD never is an answer to what is right."""
    last = answer.splitlines()[-1]
    assert last.startswith((b"t OK", b"t NO")), answer
    return last.startswith(b"t OK")


class Worker:
    """One session. `put` counts acknowledged copies of each message, over all sessions."""

    def __init__(self, peer: Peer, seed: int, put: Counter[str]) -> None:
        self.peer, self.put = peer, put
        self.random = random.Random(seed)
        self.name = f"s{seed}"
        self.made = 0
        self.selected = ""

    async def step(self) -> None:
        if not self.selected or self.random.random() < 0.15:
            self.selected = self.random.choice(ALL)
            await self.peer.ok(f"SELECT {self.selected}")
        await self.random.choice(
            (self.append, self.append, self.copy, self.move, self.replace, self.flag, self.look)
        )()

    def letter(self) -> tuple[str, str]:
        self.made += 1
        name = f"{self.name}x{self.made}x"
        size = self.random.choice((10, 300, 20_000))
        body = f"Subject: {name}\r\n\r\n" + "x" * size
        return name, f"{{{len(body)}+}}\r\n{body}"

    async def append(self) -> None:
        name, octets = self.letter()
        if is_ok(await self.peer.ask(f"APPEND {self.random.choice(ALL)} {octets}")):
            self.put[name] += 1

    async def one(self) -> tuple[int, str] | None:
        """Some message of the selected mailbox."""
        uids = numbers(await self.peer.ask("UID SEARCH ALL"))
        if not uids:
            return None
        uid = self.random.choice(uids)
        name = await self.subject(uid)
        return (uid, name) if name else None

    async def subject(self, uid: int) -> str:
        answer = await self.peer.ask(f"UID FETCH {uid} (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        _, found, rest = answer.partition(b"Subject: ")
        return rest.split()[0].decode() if found else ""

    async def copy(self) -> None:
        chosen = await self.one()
        if chosen is None:
            return
        answer = await self.peer.ask(f"UID COPY {chosen[0]} {self.random.choice(ALL)}")
        if is_ok(answer) and b"COPYUID" in answer:
            self.put[chosen[1]] += 1

    async def move(self) -> None:
        """Somebody else may have moved it first: then nothing is told, or EXPUNGEISSUED."""
        chosen = await self.one()
        target = self.random.choice(ALL)
        if chosen is not None and target != self.selected:
            is_ok(await self.peer.ask(f"UID MOVE {chosen[0]} {target}"))

    async def replace(self) -> None:
        """Only one's own, and only where nobody else moves it: so it is one for one."""
        name, octets = self.letter()
        answer = await self.peer.ask(f"APPEND {self.selected} {octets}")
        assert is_ok(answer)
        uid = int(answer.split(b"APPENDUID ")[1].split(b"]")[0].split()[1])
        new, octets = self.letter()
        answer = await self.peer.ask(f"UID REPLACE {uid} {self.random.choice(ALL)} {octets}")
        if is_ok(answer):
            self.put[new] += 1
            self.put[name] += 0
        else:
            self.put[name] += 1

    async def flag(self) -> None:
        is_ok(await self.peer.ask("STORE 1:* +FLAGS.SILENT (\\Flagged)"))

    async def look(self) -> None:
        answer = await self.peer.ask('LIST "" (INBOX/m* user/bob/m*) RETURN (STATUS (MESSAGES))')
        assert answer.count(b"* STATUS") == len(ALL), answer


async def found(peer: Peer) -> Counter[str]:
    """What is there, in how many copies."""
    there: Counter[str] = Counter()
    for mailbox in ALL:
        await peer.ok(f"SELECT {mailbox}")
        answer = await peer.ask("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        there.update(line[9:].decode() for line in answer.splitlines() if line[:9] == b"Subject: ")
    return there


@pytest.mark.limit_s(240)
async def test_nothing_is_lost_or_doubled_between_two_backends(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        bob, ana = (
            await logged_in(cluster.address, "bob"),
            await logged_in(cluster.address, "ana"),
        )
        for number in range(5):
            await ana.ok(f"CREATE {OWN[number]}")
            await bob.ok(f"CREATE INBOX/m{number}")
            await bob.ok(f"SETACL INBOX/m{number} ana lrswipkxte")
        put: Counter[str] = Counter()
        workers = [
            Worker(await logged_in(cluster.address, "ana"), seed, put) for seed in range(SESSIONS)
        ]

        async def work(worker: Worker) -> None:
            for _ in range(STEPS):
                await worker.step()

        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(work(worker))
        there = await found(ana)
        lost = {name: n for name, n in put.items() if there[name] < n}
        assert not lost, lost
        doubled = {name: n for name, n in there.items() if n > put[name]}
        assert not doubled, doubled
