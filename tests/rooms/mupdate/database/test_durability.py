"""OK means on disk: a master that is killed, or whose disk is copied at any moment, has all that it acknowledged."""

import asyncio
import multiprocessing
import os
import random
import shutil
import signal
from copy import deepcopy
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from murder.roles.mupdate.database.change import PutEntry
from murder.roles.mupdate.database.mboxlist import MailboxList
from tests.kit.waiting import pause_here
from tests.rooms.mupdate.nodes import Raw, Server, run

ROUNDS = 4
PEERS = 4
GONE = -1


def serve(folder: Path, ready: Connection) -> None:
    """A master, in a process of its own, until it is killed."""

    async def forever() -> None:
        server = Server(folder)
        await server.start()
        ready.send(server.port)
        await asyncio.Event().wait()

    asyncio.run(forever())


class Killable:
    """Such a process."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(folder, theirs), daemon=True)
        self.process.start()
        assert ours.poll(20)
        self.port: int = ours.recv()

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


class Told:
    """What the master acknowledged of each name, and what it had not yet answered: the number of the change, or GONE."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.waiting: dict[str, list[int]] = {}

    def may_be(self, name: str) -> set[int]:
        return {self.last.get(name, GONE), *self.waiting.get(name, [])}


async def load(port: int, peer: int, first: int, told: Told) -> None:
    """Change names of this peer's own, in bursts. Ends with the connection."""
    raw = await Raw.connect(port)
    number = first
    try:
        while True:
            burst = []
            for _ in range(random.randint(1, 20)):
                number += 1
                name = f"p{peer}.n{number % 50}"
                if number % 3 == 0:
                    burst.append((name, GONE, f'DELETE "{name}"'))
                else:
                    burst.append((name, number, f'ACTIVATE "{name}" "be1!p" "acl{number}\t"'))
                told.waiting.setdefault(name, []).append(burst[-1][1])
            raw.send("".join(f"t {line}\r\n" for _, _, line in burst).encode())
            for name, value, _ in burst:
                answer = await raw.message()
                if not answer.startswith((b"t OK", b"t NO")):
                    return  # cut off; what waits stays unanswered
                told.last[name] = value  # NO to a DELETE: it was gone before
                told.waiting[name].pop(0)
    except ConnectionError:
        return


def check(folder: Path, told: Told) -> None:
    """Each name is as acknowledged, or as something unanswered would make it; the indexes are whole."""
    mailboxes = MailboxList.open(folder)
    rows = {entry.name.decode(): int(entry.raw_acl[3:-1]) for entry in mailboxes.walk()}
    for name in {*told.last, *told.waiting, *rows}:
        assert rows.get(name, GONE) in told.may_be(name), name
    assert len(rows) == mailboxes.count() == sum(mailboxes.count_by_server().values())
    assert [one.name for one in mailboxes.at_server("be1")] == [
        one.name for one in mailboxes.walk()
    ]
    changes = list(mailboxes.changes_after(0))
    assert len([one for one in changes if isinstance(one, PutEntry)]) == len(rows)
    for name in {*told.last, *told.waiting}:  # from here on, what is there counts
        told.last[name] = rows.get(name, GONE)
    mailboxes.close()


@pytest.mark.parametrize("how", ["killed", "copied"])
def test_nothing_acknowledged_is_lost(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "list"
    told = Told()
    first = 0

    async def one_round(server: Killable, round_number: int) -> None:
        tasks = [
            asyncio.ensure_future(load(server.port, peer, first, told)) for peer in range(PEERS)
        ]
        await pause_here(random.uniform(0.05, 0.4), "the moment of the accident is any")
        if how == "copied":
            server.signal(signal.SIGSTOP)
            copy = tmp_path / f"copy{round_number}"
            shutil.copytree(folder, copy)
            then = deepcopy(told)
            server.signal(signal.SIGCONT)
            check(copy, then)
        server.kill()
        await asyncio.wait(tasks)

    for round_number in range(ROUNDS):
        server = Killable(folder)
        run(one_round(server, round_number))
        check(folder, told)
        told.waiting.clear()
        assert told.last
        first += 1_000_000
