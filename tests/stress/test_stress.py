"""Random stress on one mailbox: several sessions of different kinds, in bursts; each must only be told what holds.

A few seconds by default; `MURDER_STRESS_S=600` goes on for so long, with a new seed each time, and `MURDER_STRESS_CLIENTS`
sessions of each of the six kinds (2), `MURDER_STRESS_WORKERS` workers where there are two else. A failure names its seed;
`MURDER_STRESS_SEED` begins with it.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.api.store import MailboxStore
from tests.rooms.backend.server import maildir_store, memory_store, running_backend, spool_store
from tests.rooms.backend.workers import two_workers
from tests.rooms.frontend.cluster import running_cluster
from tests.stress.client import BOX, KINDS, OTHER, Client, Streams
from tests.stress.watcher import Watcher

ROUNDS = 2
ACTS = 14  # bursts of each client in one round
SEED = int(os.environ.get("MURDER_STRESS_SEED", "1"))
SECONDS = float(os.environ.get("MURDER_STRESS_S", "0"))
PER_KIND = int(os.environ.get("MURDER_STRESS_CLIENTS", "2")) if SECONDS else 1
NUMBER = int(os.environ.get("MURDER_STRESS_WORKERS", "2"))
WORKERS = "two workers on "
FRONTEND = "a frontend before "
Connect = Callable[[int], Awaitable[Streams]]
STORES: dict[str, Callable[[Path], MailboxStore]] = {
    "memory": lambda _: memory_store(),
    "spool": spool_store,
    "maildir": maildir_store,
}


@asynccontextmanager
async def one_worker(folder: Path, store: str) -> AsyncIterator[Connect]:
    async with running_backend(folder, lambda: STORES[store](folder)) as running:
        yield lambda _: asyncio.open_connection(*running.address)


@asynccontextmanager
async def workers(folder: Path, store: str) -> AsyncIterator[Connect]:
    with two_workers(folder, store.removeprefix(WORKERS), NUMBER) as ports:
        yield lambda number: asyncio.open_connection("127.0.0.1", ports[number % NUMBER])


@asynccontextmanager
async def a_frontend(folder: Path, store: str) -> AsyncIterator[Connect]:
    make = STORES[store.removeprefix(FRONTEND)]
    async with running_cluster(folder, {"be1.test": ("ana",)}, make_store=make) as cluster:
        yield lambda _: asyncio.open_connection(*cluster.address)


async def read_truth(connect: Connect) -> dict[int, tuple[frozenset[str], int]]:
    """UID to flags and mod-sequence, as a fresh session finds them."""
    reader = Client(lambda: connect(0), "condstore", 0)
    await reader.open(f"EXAMINE {BOX}")
    await reader.ask("UID FETCH 1:* (FLAGS MODSEQ)")
    reader.writer.close()
    return {
        told.uid or 0: (told.flags or frozenset(), told.modseq or 0)
        for told in reader.belief.messages
    }


async def stress(connect: Connect, seed: int) -> None:
    kinds = KINDS * PER_KIND

    def connecting(number: int) -> Callable[[], Awaitable[Streams]]:
        return lambda: connect(number)

    clients = [
        Client(connecting(number), kind, seed * 1000 + number) for number, kind in enumerate(kinds)
    ]
    for client in clients:
        client.belief.recent_of = clients[0].belief.recent_of
    watcher = Watcher(connecting(1), "watcher", 0)
    for client in (*clients, watcher):
        await client.open()

    async def live(client: Client) -> None:
        try:
            for _ in range(ACTS):
                await client.act()
        except BaseException as error:
            error.add_note(f"{client.kind}, seed {seed}:\n" + "\n".join(client.said[-40:]))
            raise

    for _ in range(ROUNDS):
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(live(client))
        for client in clients:
            try:
                await client.settle()
            except BaseException as error:
                error.add_note(f"{client.kind}, seed {seed}:\n" + "\n".join(client.said[-400:]))
                raise
        await watcher.settle_with(clients[0], (BOX, OTHER))
        truth = await read_truth(connect)
        recent = sum(client.belief.recent for client in clients if not client.belief.read_only)
        assert recent <= len(truth), f"{recent} RECENT in all sessions together, {len(truth)} there"
        for client in clients:
            try:
                client.check(truth)
            except AssertionError as error:
                error.add_note(f"{client.kind}, seed {seed}:\n" + _about(error, client.said))
                raise
    await empty(connect)
    for client in clients:
        await client.settle()
        assert (len(client.belief.messages), client.belief.recent) == (0, 0), client.said[-20:]
    for client in (*clients, watcher):
        client.writer.close()


def _about(error: AssertionError, said: list[str]) -> str:
    """What was said of the message that is wrong, and all commands; else the last lines."""
    uid = re.match(r"(\d+): ", str(error))
    if uid is not None:
        about = re.compile(rf"\b{uid[1]}\b|^C: |^--|^S: t")
        said = [line for line in said if about.search(line)]
    return "\n".join(line[:300] for line in said[-150:])


async def prepare(connect: Connect) -> None:
    client = Client(lambda: connect(0), "plain", 0)
    await client.open()
    await client.ask(f"CREATE {OTHER}")
    client.writer.close()


async def empty(connect: Connect) -> None:
    """Remove what the last round has left, or the mailbox grows and grows."""
    client = Client(lambda: connect(0), "plain", 0)
    await client.open()
    await client.ask("UID STORE 1:* +FLAGS.SILENT (\\Deleted)")
    await client.ask("EXPUNGE")
    client.writer.close()


@pytest.mark.limit_s(60 + 3 * SECONDS)  # the last round may begin at the end of these
@pytest.mark.parametrize(
    "where", [*STORES, f"{WORKERS}spool", f"{WORKERS}maildir", f"{FRONTEND}spool"]
)
async def test_no_session_is_ever_told_what_does_not_hold(where: str, tmp_path: Path) -> None:
    serving = one_worker
    if where.startswith(WORKERS):
        serving = workers
    elif where.startswith(FRONTEND):
        serving = a_frontend
    until = time.monotonic() + SECONDS
    seed = SEED
    async with serving(tmp_path, where) as connect:
        await prepare(connect)
        await stress(connect, seed)
        while time.monotonic() < until:
            seed += 1
            await stress(connect, seed)
