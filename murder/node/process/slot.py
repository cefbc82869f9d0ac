"""A worker's place under the supervisor: its sockets, the process that fills it, its restarts, its answers."""

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from murder.__main__ import command, command_from
from murder.config import ROLES, Config
from murder.log import logger
from murder.node.process.channel import Assignment, Channel, Message
from murder.node.process.server import ROLE_CLASSES, Port

EXIT_FAILED: Final = 1
RESTART_MIN_S: Final = 0.1
RESTART_MAX_S: Final = 10.0
RESTART_CALM_S: Final = 30.0  # a worker that lived so long starts again with the shortest pause
SILENT_S: Final = 2.0  # without an answer: others take over what comes to its sockets
START_LIMIT_S: Final = 60.0
RELOAD_LIMIT_S: Final = 30.0  # for a worker to take a new configuration
STACK_SIGNAL: Final = signal.SIGUSR2  # a worker answers it from C, whatever its loop does
STACK_S: Final = 0.5  # to write where it is
MAX_STACK: Final = 16 * 1024  # octets of it in the log


@dataclass(slots=True)
class Program:
    """What workers are started with: at first this program's file; then the files that the first of them ran from, so that
    all workers of a node run the same code, also when the file was replaced meanwhile."""

    command: list[str] = field(default_factory=command)

    def settle(self, home: object) -> None:
        """The first worker runs from the folder `home` (empty: there is no archive)."""
        if isinstance(home, str) and home:
            self.command = command_from(home)


@dataclass(frozen=True, slots=True)
class Plan:
    config: Config
    roles: tuple[str, ...]
    everything: tuple[str, ...]  # that runs: the roles, and what a node has besides
    bound: Mapping[Port, Sequence[socket.socket]]
    targets: Mapping[str, str]
    counts: Mapping[str, int]  # by role: the file that its workers count in
    program: Program = field(default_factory=Program)

    def target(self, role: str) -> str:
        """The class that is run, as `module:name`."""
        return self.targets.get(role) or ROLE_CLASSES[role]

    def ports(self, role: str, share: int | None = 0) -> list[tuple[Port, socket.socket]]:
        """The sockets of a role; each port has one for each of its workers. None: those of its follower of the master."""
        alone = self.config.workers_of(role) == 1
        return [
            (port, socks[share or 0])
            for port, socks in self.bound.items()
            if port.role == role and (alone or port.is_of_list is (share is None))
        ]

    def close(self) -> None:
        for sockets in self.bound.values():
            for sock in sockets:
                sock.close()


class Slot:
    """One worker's place: its sockets, the process that fills it now, and its restarts."""

    def __init__(self, plan: Plan, role: str, worker: int, share: int | None) -> None:
        self.role, self.worker = role, worker
        self.is_follower = share is None
        self.config = plan.config
        self._program = plan.program
        self._target = plan.target(role)
        self.ports = plan.ports(role, share)
        self._counts = plan.counts.get(role, -1)
        self.peers: list[Slot] = []  # the role's other workers with sockets
        self.is_stood_in_for = False
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self.ready = asyncio.Event()
        self.answered = True
        self._asked_at = 0.0
        self._stopping = asyncio.Event()
        self._reloaded: asyncio.Future[str] | None = None
        self._stack: IO[bytes] | None = None  # where it writes where it is
        self._is_asked_where = False
        self._log = logger(role=role, worker=worker)

    async def start(self) -> int | None:
        """Start the process and wait until it serves; its exit code where it ends before."""
        ours, theirs = socket.socketpair()
        others = [(peer.worker, _numbered(peer.ports)) for peer in self.peers]
        numbers = [number for _, shares in others for _, number in shares]
        numbers += [sock.fileno() for _, sock in self.ports]
        numbers += [self._counts] if self._counts >= 0 else []
        if self._stack is not None:
            self._stack.close()
        self._stack, self._is_asked_where = tempfile.TemporaryFile(buffering=0), False
        numbers.append(self._stack.fileno())
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *self._program.command,
                *("serve", "--worker", str(theirs.fileno())),
                *(("--role", self.role) if self.role in ROLES else ()),  # for `ps`
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *numbers],
            )
        self._channel = await Channel.of(ours)
        assignment = Assignment(
            self.config,
            self.role,
            self.worker,
            _numbered(self.ports),
            self._target,
            tuple(others),
            self._counts,
            self._stack.fileno(),
        )
        self._channel.send(Message.ASSIGN, assignment)
        try:
            async with asyncio.timeout(START_LIMIT_S):
                received = await self._channel.receive()
        except TimeoutError:
            self._ask_where()
            await asyncio.sleep(STACK_S)
            self.kill_stuck(START_LIMIT_S)
            received = None
        if received is None or received[0] is not Message.READY:
            self._channel.close()
            return await self._process.wait() or EXIT_FAILED
        self._program.settle(received[1])
        self.ready.set()
        self.answered = True
        for peer in self.peers:
            if peer.is_stood_in_for:
                self.send(Message.ADOPT, peer.worker)
        self._log.info("worker.ready", pid=self._process.pid)
        return None

    async def keep(self) -> None:
        """Stay with the process that `start` started; replace it, with growing pauses, until told to stop."""
        pause_s = RESTART_MIN_S
        code: int | None = None
        while True:
            began = time.monotonic()
            if code is None:
                code = await self._end_of_process()
            self.ready.clear()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > RESTART_CALM_S:
                pause_s = RESTART_MIN_S
            self._log.error("worker.died", code=code, retry_after_s=pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
                return
            pause_s = min(pause_s * 2, RESTART_MAX_S)
            code = await self.start()

    async def _end_of_process(self) -> int:
        assert self._process is not None and self._channel is not None
        while (received := await self._channel.receive()) is not None:
            if received[0] is Message.PONG:
                self.answered = True
            elif received[0] is Message.RELOADED and self._reloaded is not None:
                if not self._reloaded.done():
                    self._reloaded.set_result(str(received[1] or ""))
        self._channel.close()
        if self._reloaded is not None and not self._reloaded.done():
            self._reloaded.set_result("")  # its successor starts with it
        return await self._process.wait()

    def shares_with(self, other: "Slot") -> bool:
        """The clients of a role."""
        return self.role == other.role and not (self.is_follower or other.is_follower)

    def ping(self, limit_s: float, again: bool = False) -> None:
        """Ask whether its loop turns; kill it if it has not answered for `limit_s` (0: leave it), counted `again`."""
        if self._channel is None or self._process is None or not self.ready.is_set():
            return
        now = time.monotonic()
        if again:
            self._asked_at = now
        if self.answered:
            self.answered = False
            self._asked_at = now
            self._channel.send(Message.PING)
        elif limit_s and now - self._asked_at > limit_s:
            if self._is_asked_where:  # a turn of the watch ago
                self.kill_stuck(limit_s)
                self._asked_at = now
            else:
                self._ask_where()

    def _ask_where(self) -> None:
        self._is_asked_where = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(STACK_SIGNAL)

    def kill_stuck(self, limit_s: float) -> None:
        """Log where it was, all its threads, and kill it."""
        if self._process is None or self._process.returncode is not None:
            return
        pid = self._process.pid
        self._log.error(
            "worker.stuck", pid=pid, elapsed_ms=int(limit_s * 1000), stack=self._where(pid)
        )
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _where(self, pid: int) -> str:
        """What it has written of itself; else how the system sees it (`T`: stopped, `D`: waits for a disk)."""
        with contextlib.suppress(OSError):
            if self._stack is not None:
                stack = os.pread(self._stack.fileno(), MAX_STACK, 0)
                if stack:
                    return stack.decode("utf-8", "backslashreplace").rstrip()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return f"(it does not run: state {state})"
        return ""

    @property
    def serves(self) -> bool:
        """Whether its loop turned a moment ago."""
        silent_s = time.monotonic() - self._asked_at
        limit_s = self.config.node.worker_timeout_s
        most_s = min(SILENT_S, limit_s / 2) if limit_s else SILENT_S
        return self.ready.is_set() and (self.answered or silent_s < most_s)

    def stand_in(self) -> None:
        """Let the others serve who comes to the sockets of a worker that does not, and no longer when it does again."""
        if self.peers and self.serves is self.is_stood_in_for and not self._stopping.is_set():
            self.is_stood_in_for = not self.serves
            self.tell_peers(Message.ADOPT if self.is_stood_in_for else Message.GIVE_BACK)

    def tell_peers(self, message: Message) -> None:
        for peer in self.peers:
            peer.send(message, self.worker)

    def send(self, message: Message, body: object = None) -> None:
        if self._channel is not None:
            self._channel.send(message, body)

    async def reload(self, config: Config) -> str:
        """Give it a new configuration; why it does not take it, empty if it does (or will, at its start)."""
        self.config = config
        if not self.ready.is_set():
            return ""
        self._reloaded = asyncio.get_running_loop().create_future()
        self.send(Message.RELOAD, config)
        try:
            async with asyncio.timeout(RELOAD_LIMIT_S):
                return await self._reloaded
        except TimeoutError:
            return f"{self.role} worker {self.worker} does not answer"

    async def kill_late(self, limit_s: float) -> None:
        """It does not end: log where it is, and kill it."""
        self._stopping.set()
        self._ask_where()
        await asyncio.sleep(STACK_S)
        self.kill_stuck(limit_s)

    def drain(self) -> None:
        self._stopping.set()
        self.send(Message.DRAIN)

    def kill(self) -> None:
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()


def _numbered(ports: Sequence[tuple[Port, socket.socket]]) -> tuple[tuple[Port, int], ...]:
    return tuple((port, sock.fileno()) for port, sock in ports)
