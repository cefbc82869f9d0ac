"""Wires between programs of a test, each a TCP proxy that can be cut, can hold what is on it, in both directions or in one,
and can be slow: networks as they fail, without the rights that network namespaces take.

A wire may know who is calling by a word in what they say first (etcd's members name themselves to each other), and fail for
one of them alone.
"""

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from tests.kit.ports import free_port
from tests.kit.waiting import pause_here

T = TypeVar("T")

HOST: Final = "127.0.0.1"
CHUNK: Final = 64 * 1024
DELAY_S: Final = 0.15
LOOK_S: Final = 60.0
FROM_MEMBER: Final = re.compile(rb"X-Server-From: ([0-9a-f]+)\r\n", re.IGNORECASE)
MOST_HEAD: Final = 16 * 1024


class Mode(Enum):
    """`HOLD` keeps what is sent until it is over, as retransmission does; `DEAF` only what is answered; `CUT` ends
    connections, and accepts none."""

    OPEN = "open"
    CUT = "cut"
    HOLD = "hold"
    DEAF = "deaf"
    SLOW = "slow"


class _Call:
    """One connection over a wire."""

    def __init__(self, caller: str, ends: "tuple[asyncio.StreamWriter, ...]") -> None:
        self.caller = caller
        self.ends = ends

    def abort(self) -> None:
        for end in self.ends:
            end.transport.abort()


class Wire:
    """To one port. Made by `Wires`; `port` is where it is called."""

    def __init__(self, target: int, *, names_callers: bool) -> None:
        self.port = free_port()
        self.target = target
        self._names_callers = names_callers
        self._modes: dict[str, Mode] = {}
        self._calls: set[_Call] = set()
        self._changed = asyncio.Event()

    def mode_of(self, caller: str) -> Mode:
        return self._modes.get(caller, self._modes.get("", Mode.OPEN))

    async def set(self, mode: Mode, caller: str) -> None:
        """For that caller; "" is all that have no mode of their own."""
        if mode is Mode.OPEN:
            self._modes.pop(caller, None)
        else:
            self._modes[caller] = mode
        for call in list(self._calls):
            if self.mode_of(call.caller) is Mode.CUT:
                call.abort()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, caller = b"", ""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            if self._names_callers:
                head = await reader.readuntil(b"\r\n\r\n")
                found = FROM_MEMBER.search(head)
                caller = found[1].decode() if found else ""
            if self.mode_of(caller) is not Mode.CUT:
                there = await asyncio.open_connection(HOST, self.target)
                there[1].write(head)
                await self._join(caller, (reader, writer), there)
        writer.transport.abort()

    async def _join(
        self,
        caller: str,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        call = _Call(caller, (here[1], there[1]))
        self._calls.add(call)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(caller, here[0], there[1], Mode.HOLD))
                group.create_task(self._pump(caller, there[0], here[1], Mode.DEAF))
        except* (OSError, EOFError):
            pass
        finally:
            self._calls.discard(call)
            call.abort()

    async def _pump(
        self, caller: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: Mode
    ) -> None:
        while data := await reader.read(CHUNK):
            while (mode := self.mode_of(caller)) in (Mode.HOLD, held):
                await self._changed.wait()
            if mode is Mode.SLOW:
                await pause_here(DELAY_S, "a slow network takes its time")
            writer.write(data)
            await writer.drain()
        raise EOFError  # the other direction ends, too


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Wires:
    """All wires of a test, in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._wires: list[Wire] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LOOK_S)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LOOK_S)

    def to(self, target: int, *, names_callers: bool = False) -> Wire:
        """A new one to that port of this host, open."""

        async def make() -> Wire:
            wire = Wire(target, names_callers=names_callers)
            await asyncio.start_server(wire.serve, HOST, wire.port, limit=MOST_HEAD)
            return wire

        self._wires.append(self._run(make()))
        return self._wires[-1]

    def set(self, wire: Wire, mode: Mode, caller: str = "") -> None:
        self._run(wire.set(mode, caller))


def segment_octets(sock: socket.socket) -> int:
    """The most that this end sends in one segment, by what the other end has promised to take: `tcpi_snd_mss`."""
    told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)  # linux/tcp.h
    return int(struct.unpack_from("=I", told, 16)[0])
