"""A login storm: thousands of sessions log in at once while a directory takes its time for each; what others notice of it.

`python -m tests.load.logins --sessions 10000 --latency 0.1`: a frontend in a process of its own, one who watches in another,
and the storm here. Told: how long all logins took, and how long NOOPs of a session that was in before took, before and in
the storm; how long the same took beside it where nobody answers but the kernel (`sleep`), which is what the milliseconds are
to be compared with on a busy machine; and how much processor time the server took meanwhile: what a NOOP would have waited
for where nobody else wants the processors.
"""

import argparse
import asyncio
import gc
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import uvloop

from murder.api.auth import Denied, Identity, LoginAttempt
from murder.config.sections import AuthConfig
from murder.log import set_up
from murder.net.listener import Bounds
from murder.node.process.workers import _tune_interpreter
from tests.kit.peer import Peer
from tests.kit.waiting import pause_here
from tests.rooms.frontend.server import Parts, running_frontend

PAUSE_S = 0.01  # between two NOOPs
TICK_S = 0.001
QUIET_S = 3.0  # before the storm
CONNECTING = 200  # that come at a time, as a kernel's queue takes them


class Holds:
    """How much processor time the loop takes before it comes to a timer that is due: what others wait for on a machine that
    has nothing else to do."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.garbage: list[float] = []  # of that, each look for cycles
        self._loop = asyncio.get_running_loop()
        self._last = self._began = time.thread_time()
        gc.callbacks.append(self._look)
        self._tick()

    def _look(self, phase: str, info: object) -> None:
        now = time.thread_time()
        if phase == "start":
            self._began = now
        else:
            self.garbage.append(1000 * (now - self._began))

    def say(self) -> None:
        told("one turn of the loop, of processor time", self.took)
        told("one look for garbage in it", self.garbage or [0.0])

    def _tick(self) -> None:
        now = time.thread_time()
        self.took.append(1000 * (now - self._last))
        self._last = now
        self._loop.call_later(TICK_S, self._tick)


class Slow(Parts):
    """A directory that takes its time."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self.asked = self.most = 0

    @property
    def depends_on(self) -> Collection[str]:
        return ()

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        self.asked += 1
        self.most = max(self.most, self.asked)
        try:
            await pause_here(self._latency_s, "the directory's")
        finally:
            self.asked -= 1
        return Identity(user) if password == b"secret" else Denied.WRONG


async def serve(latency_s: float) -> None:
    """Until standard input ends; says its port, and at the end how many were asked at once, by how many threads."""
    set_up("error", "json")
    slow = Slow(latency_s)
    quick = AuthConfig(failure_delay_s=0, max_guesses_per_address=0, timeout_s=60)
    bounds = Bounds(max_connections=100_000)
    with tempfile.TemporaryDirectory() as folder:
        limits: dict[str, Any] = {"max_connections_per_user": 0, "max_connections_per_address": 0}
        limits["max_strangers_per_address"] = 100_000
        async with running_frontend(
            Path(folder), {}, {}, bounds, parts=slow, auth=quick, **limits
        ) as running:
            print(running.ports["imap"], flush=True)
            _tune_interpreter()
            holds = Holds()
            await asyncio.to_thread(sys.stdin.read)
            holds.say()
            print(slow.most, threading.active_count(), flush=True)


class Bare(asyncio.Protocol):
    """As little as a server can do: it greets, and answers every line in the directory's time, a NOOP at once."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"* OK ready\r\n")

    def data_received(self, data: bytes) -> None:
        if b" NOOP" in data:
            self._transport.write(b"n OK\r\n")
        else:
            later = asyncio.get_running_loop().call_later
            later(self._latency_s, self._transport.write, b"a OK\r\n")


async def serve_bare(latency_s: float) -> None:
    """What the loop itself costs, to compare with."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Bare(latency_s), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    _tune_interpreter()
    holds = Holds()
    await asyncio.to_thread(sys.stdin.read)
    holds.say()
    print(0, threading.active_count(), flush=True)


def clock_of(process: int) -> int:
    """All processor time that another process has taken, as a clock (Linux: clock_getcpuclockid(3))."""
    return (~process << 3) | 2


async def watch(port: int, server: int) -> None:
    """NOOPs of one session until standard input ends; a line at its end says where the storm begins."""
    clock = clock_of(server)
    peer = await login(port, "me", asyncio.Semaphore(1))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    for name in ("before", "in the storm"):
        heard = loop.run_in_executor(None, sys.stdin.readline)
        took: list[float] = []
        late: list[float] = []
        worked: list[float] = []
        while not heard.done():
            began = time.perf_counter()
            await pause_here(PAUSE_S, "between two looks")
            late.append(1000 * (time.perf_counter() - began - PAUSE_S))
            began, worked_before = time.perf_counter(), time.clock_gettime(clock)
            peer.send(b"n NOOP\r\n")
            await peer.line()
            worked.append(1000 * (time.clock_gettime(clock) - worked_before))
            took.append(1000 * (time.perf_counter() - began))
        told(f"NOOP {name}", took)
        told(f"  sleep {name}", late)
        told(f"  the server's processor time {name}", worked)


def told(name: str, took: list[float]) -> None:
    took.sort()
    middle, late = took[len(took) // 2], took[len(took) * 99 // 100]
    print(f"{name}: {middle:.2f} ms, 99 of 100 {late:.2f}, longest {took[-1]:.2f}", flush=True)


said: Counter[bytes] = Counter()


async def login(port: int, user: str, places: asyncio.Semaphore) -> Peer:
    async with places:
        peer = await Peer.at(port)
        await peer.line()
    peer.send(f"a LOGIN {user} secret\r\n".encode())
    said[(await peer.reader.readline())[:20].partition(b" [")[0]] += 1
    return peer


async def storm(port: int, sessions: int) -> list[Peer]:
    """All who have come, connected still."""
    places = asyncio.Semaphore(CONNECTING)
    began = time.perf_counter()
    peers = await asyncio.gather(*(login(port, f"u{one}", places) for one in range(sessions)))
    took_s = time.perf_counter() - began
    print(f"{sessions} logins: {took_s:.1f} s, {sessions / took_s:.0f} a second", flush=True)
    print(dict(said))
    return peers


async def beside(*words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.load.logins", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def all_of_it(sessions: int, latency_s: float, *words: str) -> None:
    server = await beside("--serve", "--latency", str(latency_s), *words)
    assert server.stdin is not None and server.stdout is not None
    port = int(await server.stdout.readline())
    watcher = await beside("--watch", str(port), "--server", str(server.pid))
    assert watcher.stdin is not None and watcher.stdout is not None
    try:
        await watcher.stdout.readline()
        await pause_here(QUIET_S, "in which nothing happens, to compare with")
        watcher.stdin.write(b"\n")
        peers = await storm(port, sessions)
        watcher.stdin.close()
        print((await watcher.stdout.read()).decode(), end="")
        server.stdin.close()
        for _ in range(2):
            print((await server.stdout.readline()).decode(), end="")
        most, threads = (await server.stdout.readline()).split()
        print(f"asked at once: {int(most)}; threads: {int(threads)}")
        for peer in peers:
            peer.writer.close()
    finally:
        for process in (server, watcher):
            if process.returncode is None:
                process.terminate()
            await process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--bare", action="store_true", help="Before a server that does nothing.")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--watch", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--server", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if given.serve:
        uvloop.run(serve_bare(given.latency) if given.bare else serve(given.latency))
    elif given.watch:
        uvloop.run(watch(given.watch, given.server))
    else:
        uvloop.run(all_of_it(given.sessions, given.latency, *(["--bare"] if given.bare else [])))


if __name__ == "__main__":
    main()
