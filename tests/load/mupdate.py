"""A load generator for MUPDATE masters, ours or another: changes, look-ups, dumps, and how long others wait meanwhile.

    mupdate.py activate HOST PORT --connections 8 --number 20000 [--pipeline 500] [--first 0]
    mupdate.py find HOST PORT --connections 1 --number 20000
    mupdate.py dump HOST PORT            # one UPDATE: seconds, rows
    mupdate.py latency HOST PORT --number 200      # from sending a change until a subscriber has it
    mupdate.py stall HOST PORT           # the longest NOOP of one connection while another takes an UPDATE

One JSON line on standard output. Users log in with PLAIN, without TLS.
"""

import argparse
import asyncio
import json
import select
import socket
import statistics
import sys
import time
from base64 import b64encode
from collections.abc import Coroutine
from typing import Any, cast

import uvloop

from tests.kit.waiting import pause_here


class Peer(asyncio.Protocol):
    """A client that counts answers; it reads no more of the stream than it must."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._rest = b""
        self._wanted = b""
        self._left = 0
        self._done: asyncio.Future[None] | None = None
        self.rows = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by class

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionResetError("the server has gone"))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if self._done is None:  # nobody waits yet
            self._rest = data
            return
        end = data.rfind(b"\n") + 1
        whole, self._rest = data[:end], data[end:]
        self.rows += whole.count(b" MAILBOX ")
        self._left -= whole.count(self._wanted) if self._wanted else 0
        if self._left <= 0 and self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def until(self, wanted: bytes, times: int = 1) -> None:
        self._wanted, self._left = wanted, times
        self._done = asyncio.get_running_loop().create_future()
        self.data_received(b"")
        await self._done

    async def ask(self, octets: bytes, times: int = 1, answer: bytes = b"t OK") -> None:
        """Send, and wait until the answer has come so often."""
        waiting = asyncio.ensure_future(self.until(answer, times))
        await asyncio.sleep(0)
        self.transport.write(octets)
        await waiting


def literal(octets: bytes) -> bytes:
    return b"{%d+}\r\n%b" % (len(octets), octets)


def activate(number: int, server: bytes = b"be1.murder.test!default") -> bytes:
    """As a Cyrus backend would send it."""
    user = b"load%06d" % (number // 10)
    name = b"user.%b.box%d" % (user, number % 10)
    acl = user + b"\tlrswipkxtecdan\t"
    return b"t ACTIVATE %b %b %b\r\n" % (literal(name), literal(server), literal(acl))


async def connect(given: argparse.Namespace) -> Peer:
    _, peer = await asyncio.get_running_loop().create_connection(Peer, given.host, given.port)
    await peer.until(b"* OK")
    response = b64encode(f"\0{given.user}\0{given.password}".encode())
    await peer.ask(b't AUTHENTICATE "PLAIN" %b\r\n' % literal(response))
    return peer


class Asker:
    """A connection that asks and waits, over and over, as cheaply as Python can: the generator shares the processors with
    the server, whose answers are only counted (each is one line with `t OK`)."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.sock = socket.create_connection((given.host, given.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._held = b""
        self.left = 0
        self._until(b"* OK")
        response = b64encode(f"\0{given.user}\0{given.password}".encode())
        self.sock.sendall(b't AUTHENTICATE "PLAIN" %b\r\n' % literal(response))
        self._until(b"t OK")

    def _until(self, wanted: bytes) -> None:
        heard = b""
        while not (wanted in heard and heard.endswith(b"\n")):
            octets = self.sock.recv(65536)
            assert octets, "the server has gone"
            heard += octets

    def ask(self, octets: bytes, answers: int) -> None:
        self.left = answers
        self.sock.sendall(octets)

    def hear(self) -> bool:
        """Read what has come; whether that was the last answer."""
        octets = self._held + self.sock.recv(262144)
        assert octets, "the server has gone"
        end = octets.rfind(b"\n") + 1
        self._held = octets[end:]
        self.left -= octets.count(b"t OK", 0, end)
        return self.left <= 0


def ask_all(given: argparse.Namespace, commands: list[bytes]) -> dict[str, Any]:
    """Ask for everything, each connection `--pipeline` at a time; how many a second, and what it cost this process."""
    at_once = given.pipeline
    batches = [commands[i : i + at_once] for i in range(0, len(commands), at_once)]
    todo = iter([(b"".join(batch), len(batch)) for batch in batches])
    askers = {(one := Asker(given)).sock.fileno(): one for _ in range(given.connections)}
    poll = select.epoll()
    for number in askers:
        poll.register(number, select.EPOLLIN)
    waits: list[float] = []
    asked_at: dict[int, float] = {}
    clock = time.perf_counter
    began, used_s = clock(), time.process_time()
    for number, asker in askers.items():
        if (job := next(todo, None)) is not None:
            asked_at[number] = clock()
            asker.ask(*job)
    while asked_at:
        for number, _ in poll.poll():
            if not askers[number].hear():
                continue
            now = clock()
            waits.append(now - asked_at.pop(number))
            if (job := next(todo, None)) is not None:
                asked_at[number] = now
                askers[number].ask(*job)
    elapsed_s = clock() - began
    return {
        "per_s": len(commands) / elapsed_s,
        "median_ms": 1000 * statistics.median(waits),
        "generator_us": 1e6 * (time.process_time() - used_s) / len(commands),
    }


async def changes(given: argparse.Namespace) -> dict[str, Any]:
    return ask_all(given, [activate(given.first + i) for i in range(given.number)])


async def look_ups(given: argparse.Namespace) -> dict[str, Any]:
    chosen = [given.first + i * 7919 % given.known for i in range(given.number)]
    names = [b"user.load%06d.box%d" % (one // 10, one % 10) for one in chosen]
    return ask_all(given, [b"t FIND %b\r\n" % literal(name) for name in names])


async def whole_list(given: argparse.Namespace) -> dict[str, Any]:
    peer = await connect(given)
    began = time.perf_counter()
    await peer.ask(b"u UPDATE\r\n", answer=b"u OK ")
    elapsed_s = time.perf_counter() - began
    return {"rows": peer.rows, "elapsed_s": elapsed_s, "per_s": peer.rows / elapsed_s}


async def latency(given: argparse.Namespace) -> dict[str, Any]:
    subscriber, writer = await connect(given), await connect(given)
    await subscriber.ask(b"u UPDATE\r\n", answer=b"u OK")
    waits = []
    for number in range(given.number):
        seen = asyncio.ensure_future(subscriber.until(b"u MAILBOX"))
        began = time.perf_counter()
        await writer.ask(activate(given.first + number))
        await seen
        waits.append(time.perf_counter() - began)
    return {"median_ms": 1000 * statistics.median(waits), "longest_ms": 1000 * max(waits)}


async def stall(given: argparse.Namespace) -> dict[str, Any]:
    """The subscriber is another process, so that only the server's own stops are seen."""
    other = await connect(given)
    idle = [await timed(other) for _ in range(200)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.load.mupdate", "dump", given.host, str(given.port)),
        *("--user", given.user, "--password", given.password),
        stdout=asyncio.subprocess.PIPE,
    )
    waits = []
    while process.returncode is None:
        waits.append(await timed(other))
        await pause_here(0.0005, "between two looks")
    assert process.stdout is not None
    dump = json.loads(await process.stdout.read())
    return {"longest_ms": 1000 * max(waits), "idle_ms": 1000 * max(idle), "rows": dump["rows"]}


async def timed(peer: Peer) -> float:
    began = time.perf_counter()
    await peer.ask(b"t NOOP\r\n")
    return time.perf_counter() - began


WORK = {
    "activate": changes,
    "find": look_ups,
    "dump": whole_list,
    "latency": latency,
    "stall": stall,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=sorted(WORK))
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--known", type=int, default=1000)
    parser.add_argument("--user", default="murder")
    parser.add_argument("--password", default="secret")
    given = parser.parse_args()
    work: Coroutine[Any, Any, dict[str, Any]] = WORK[given.what](given)
    print(json.dumps({"what": given.what, **uvloop.run(work)}))


if __name__ == "__main__":
    main()
