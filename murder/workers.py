"""`murder serve`: the supervisor, its workers, and what passes between them.

The supervisor binds every socket and keeps it open, so that what queues on the socket of a worker that crashed waits for
its successor. A worker is this program again (`serve --worker FD`): over the socket FD it gets its Assignment, then
short messages; when that socket ends, its supervisor is gone and it ends too. With one worker for each role everything
runs in this one process and loop.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from murder import log as logs
from murder.__main__ import command
from murder.channel import Assignment, Channel, Message
from murder.config import Config, ConfigError, Problem, load_config
from murder.config.reload import changed_keys, take_changes
from murder.hooks import load_plugins
from murder.host import Notifier, become, raise_file_limit
from murder.log import logger
from murder.net.tally import Counts, allocate
from murder.preflight import certificate_problems
from murder.server import ROLE_CLASSES, Port, RoleServer, bind, ports_of

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

RESTART_MIN_S: Final = 0.1
RESTART_MAX_S: Final = 10.0
RESTART_CALM_S: Final = 30.0  # a worker that lived so long starts again with the shortest pause
WATCH_S: Final = 1.0
SILENT_S: Final = 2.0  # without an answer: others take over what comes to its sockets
START_LIMIT_S: Final = 60.0
KILL_GRACE_S: Final = 5.0  # beyond the drain, before SIGKILL
COLLECTOR_THRESHOLDS: Final = (20_000, 20, 20)
SWITCH_INTERVAL_S: Final = 0.0005  # Python's own is ten times that

log = logger()


async def serve(
    config: Config, roles: Sequence[str], targets: Mapping[str, str] = ROLE_CLASSES
) -> int:
    """Run the roles until a signal ends them; returns the exit code. Raises ConfigError before anything serves."""
    load_plugins(config, roles)
    raise_file_limit()
    bound = _bind_all(config, roles)
    dropped = become(config)
    flaws = list(
        certificate_problems(config, roles)
    )  # again: root could read what node.user cannot
    if flaws:
        raise ConfigError(flaws)
    many = [role for role in roles if config.workers_of(role) > 1]
    counts = {role: allocate(config.workers_of(role) + 1) for role in many}
    plan = _Plan(config, tuple(roles), bound, targets, counts)
    if not dropped and all(config.workers_of(role) == 1 for role in roles):
        return await _Here(plan).run()
    return await _Supervisor(plan).run()


@dataclass(frozen=True, slots=True)
class _Plan:
    config: Config
    roles: tuple[str, ...]
    bound: Mapping[Port, Sequence[socket.socket]]
    targets: Mapping[str, str]
    counts: Mapping[str, int]  # by role: the file that its workers count in

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


def _bind_all(config: Config, roles: Sequence[str]) -> dict[Port, list[socket.socket]]:
    """Bind everything, or raise ConfigError with all that is in the way."""
    bound: dict[Port, list[socket.socket]] = {}
    problems: list[Problem] = []
    for role in roles:
        ports = ports_of(config, role, is_first=role == roles[0])
        if not ports:
            key = "mupdate.listen" if role == "mupdate" else f"{role}.imap"
            problems.append(Problem(config.file, key, f"the {role} role has nothing to listen on"))
        for port in ports:
            try:
                count = 1 if port.is_of_list else config.workers_of(role)
                bound[port] = bind(config, port, count)
            except ConfigError as error:
                problems.extend(error.problems)
    if problems:
        for socks in bound.values():
            for sock in socks:
                sock.close()
        raise ConfigError(problems)
    return bound


def _reread(config: Config, roles: Sequence[str]) -> Config | None:
    """The configuration as the file is now; None, and a line in the log, where it cannot be used."""
    try:
        fresh = load_config(config.file)
        load_plugins(fresh, roles)
        fresh, waiting = take_changes(config, fresh)
        if flaws := list(certificate_problems(fresh, roles)):
            raise ConfigError(flaws)
    except ConfigError as error:
        for problem in error.problems:
            log.error("config.refused", key=problem.key, problem=problem.text)
        return None
    logs.set_up(fresh.log.level, fresh.log.format, node=fresh.node.name)
    for key in waiting:
        log.warning("config.needs_restart", key=key)
    log.info("config.reloaded", changed=changed_keys(config, fresh))
    return fresh


async def _apply(server: RoleServer, config: Config) -> None:
    """Hand a new configuration to a role; a certificate that cannot be read leaves the old in use."""
    try:
        await server.reload(config)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        log.error("config.refused", key="tls", problem=str(error))


class _Signals:
    """SIGTERM and SIGINT ask for the end, SIGHUP for a reload; a second request for the end is heard too."""

    def __init__(self, on_reload: Callable[[], None], on_hurry: Callable[[], None]) -> None:
        self.ending = asyncio.Event()
        self._on_hurry = on_hurry
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, on_reload)

    def _end(self) -> None:
        if self.ending.is_set():
            self._on_hurry()
        self.ending.set()


class _Here:
    """All roles in this process and loop."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._config = plan.config
        self._notifier = Notifier()
        self._servers: list[RoleServer] = []

    async def run(self) -> int:
        plan, config = self._plan, self._plan.config
        asked = asyncio.Event()
        signals = _Signals(asked.set, on_hurry=lambda: os._exit(EXIT_FAILED))
        plugins = load_plugins(config, plan.roles)
        try:
            for role in plan.roles:
                server = RoleServer(config, plugins, role, 0, plan.ports(role), plan.targets[role])
                await server.start()
                self._servers.append(server)
            _tune_interpreter()
            self._notifier.tell("READY=1", f"MAINPID={os.getpid()}")
            log.info("server.ready", roles=plan.roles, workers=1)
            async with asyncio.TaskGroup() as group:
                reloading = group.create_task(self._reload_when_asked(asked))
                await self._until(signals.ending)
                reloading.cancel()
        finally:
            self._notifier.tell("STOPPING=1")
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(server.stop())
        log.info("server.stopped")
        return EXIT_DONE

    async def _until(self, ending: asyncio.Event) -> None:
        """Wait, telling the watchdog that this loop turns."""
        while not ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), self._notifier.watchdog_s)
            self._notifier.tell("WATCHDOG=1")

    async def _reload_when_asked(self, asked: asyncio.Event) -> None:
        while await asked.wait():
            asked.clear()
            fresh = _reread(self._config, self._plan.roles)
            if fresh is not None:
                self._config = fresh
                for server in self._servers:
                    await _apply(server, fresh)


class _Slot:
    """One worker's place: its sockets, the process that fills it now, and its restarts."""

    def __init__(self, plan: _Plan, role: str, worker: int, share: int | None) -> None:
        self.role, self.worker = role, worker
        self.is_follower = share is None
        self.config = plan.config
        self._target = plan.targets[role]
        self.ports = plan.ports(role, share)
        self._counts = plan.counts.get(role, -1)
        self.peers: list[_Slot] = []  # the role's other workers with sockets
        self.is_stood_in_for = False
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self.ready = asyncio.Event()
        self.answered = True
        self._asked_at = 0.0
        self._stopping = asyncio.Event()
        self._log = logger(role=role, worker=worker)

    async def start(self) -> int | None:
        """Start the process and wait until it serves; its exit code where it ends before."""
        ours, theirs = socket.socketpair()
        others = [(peer.worker, _numbered(peer.ports)) for peer in self.peers]
        numbers = [number for _, shares in others for _, number in shares]
        numbers += [sock.fileno() for _, sock in self.ports]
        numbers += [self._counts] if self._counts >= 0 else []
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *command(),
                *("serve", "--worker", str(theirs.fileno()), "--role", self.role),
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
        )
        self._channel.send(Message.ASSIGN, assignment)
        try:
            async with asyncio.timeout(START_LIMIT_S):
                received = await self._channel.receive()
        except TimeoutError:
            self._log.error("worker.stuck", elapsed_ms=int(START_LIMIT_S * 1000))
            self._process.kill()
            received = None
        if received is None or received[0] is not Message.READY:
            self._channel.close()
            return await self._process.wait() or EXIT_FAILED
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
        self._channel.close()
        return await self._process.wait()

    def shares_with(self, other: "_Slot") -> bool:
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
            self._log.error("worker.stuck", elapsed_ms=int(limit_s * 1000))
            self._asked_at = now
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

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

    def reload(self, config: Config) -> None:
        self.config = config
        self.send(Message.RELOAD, config)

    def drain(self) -> None:
        self._stopping.set()
        self.send(Message.DRAIN)

    def kill(self) -> None:
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()


def _numbered(ports: Sequence[tuple[Port, socket.socket]]) -> tuple[tuple[Port, int], ...]:
    return tuple((port, sock.fileno()) for port, sock in ports)


class _Supervisor:
    """Workers in processes of their own."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._config = plan.config
        self._notifier = Notifier()
        self._slots = [slot for role in plan.roles for slot in self._slots_of(role)]
        for slot in self._slots:
            slot.peers = [one for one in self._slots if one is not slot and one.shares_with(slot)]

    def _slots_of(self, role: str) -> list[_Slot]:
        """See `server.Role`: a frontend of several workers has one more, which no client comes to."""
        count = self._plan.config.workers_of(role)
        if role == "frontend" and count > 1:
            followers = [_Slot(self._plan, role, n + 1, n) for n in range(count)]
            return [_Slot(self._plan, role, 0, None), *followers]
        return [_Slot(self._plan, role, number, number) for number in range(count)]

    async def run(self) -> int:
        signals = _Signals(self._reload, on_hurry=self._kill)
        code = await self._start(signals)
        if code is not None:
            self._kill()
            return code
        self._notifier.tell("READY=1", f"MAINPID={os.getpid()}")
        log.info("server.ready", roles=self._plan.roles, workers=len(self._slots))
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(slot.keep()) for slot in self._slots]
            watcher = group.create_task(self._watch())
            await signals.ending.wait()
            watcher.cancel()
            await self._stop(keepers)
        log.info("server.stopped")
        return EXIT_DONE

    async def _start(self, signals: _Signals) -> int | None:
        """Worker 0 of each role first, alone, then the others at once. The exit code where that fails."""
        for first in (True, False):
            slots = [slot for slot in self._slots if (slot.worker == 0) is first]
            starts = asyncio.gather(*(slot.start() for slot in slots))
            ending = asyncio.ensure_future(signals.ending.wait())
            await asyncio.wait((starts, ending), return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if not starts.done():
                starts.cancel()
                return EXIT_DONE
            codes = [code for code in starts.result() if code is not None]
            if codes:
                return EXIT_USAGE if EXIT_USAGE in codes else EXIT_FAILED
        return None

    async def _stop(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """Ask all workers to drain; kill those that take longer than they may. A frontend's follower of the master ends
        behind the others: their last commands need it."""
        self._notifier.tell("STOPPING=1")
        self._plan.close()
        followers = {slot for slot in self._slots if slot.is_follower}
        limit_s = self._config.node.drain_timeout_s + KILL_GRACE_S
        deadline = time.monotonic() + limit_s
        late: set[asyncio.Task[None]] = set()
        for are_followers in (False, True):
            ending = []
            for slot, keeper in zip(self._slots, keepers, strict=True):
                if (slot in followers) is are_followers:
                    slot.drain()
                    ending.append(keeper)
            if ending:
                left_s = max(deadline - time.monotonic(), KILL_GRACE_S)
                late |= (await asyncio.wait(ending, timeout=left_s))[1]
        if late:
            log.warning("worker.stuck", count=len(late), elapsed_ms=int(limit_s * 1000))
            self._kill()

    async def _watch(self) -> None:
        """Tell the watchdog that all workers' loops turn; silent as soon as one does not answer. One that does not for
        `node.worker_timeout_s` is replaced: its clients wait for nothing."""
        due = time.monotonic()
        while True:
            limit_s = self._config.node.worker_timeout_s
            pauses = [self._notifier.watchdog_s, limit_s / 4 if limit_s else None, WATCH_S]
            if all(slot.answered for slot in self._slots):
                self._notifier.tell("WATCHDOG=1")
            pause_s = min(pause for pause in pauses if pause is not None)
            is_late = time.monotonic() - due > pause_s  # we did not run ourselves
            for slot in self._slots:
                slot.ping(0 if is_late else limit_s, is_late)
                slot.stand_in()
            due = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)

    def _reload(self) -> None:
        fresh = _reread(self._config, self._plan.roles)
        if fresh is not None:
            self._config = fresh
            for slot in self._slots:
                slot.reload(fresh)

    def _kill(self) -> None:
        for slot in self._slots:
            slot.kill()


async def work(number: int) -> int:
    """A worker's life, on the control socket `number` that its supervisor gave it; returns the exit code."""
    channel = await Channel.of(socket.socket(fileno=number))
    received = await channel.receive()
    if received is None or not isinstance(received[1], Assignment):
        return EXIT_FAILED
    assignment = received[1]
    config = assignment.config
    logs.set_up(config.log.level, config.log.format, node=config.node.name, pid=os.getpid())
    os.umask(0o077)
    loop = asyncio.get_running_loop()
    for ignored in (signal.SIGINT, signal.SIGHUP):  # a terminal's Ctrl-C reaches the supervisor too
        loop.add_signal_handler(ignored, lambda: None)
    draining = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, draining.set)
    others = {
        worker: [(port, socket.socket(fileno=number)) for port, number in ports]
        for worker, ports in assignment.others
    }
    try:
        server = _server_of(assignment)
        await server.start()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    _tune_interpreter()
    channel.send(Message.READY)
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(_obey(channel, server, draining, others))
        await draining.wait()
        await server.stop()
        listening.cancel()
    return EXIT_DONE


def _tune_interpreter() -> None:
    """What stands now stays: cyclic garbage is looked for only in what comes, and not at every 700th object (a tenth of
    the time of a FETCH of many messages went there; reference counts free nearly everything). And a thread that has just
    had something flushed need not wait long for a busy loop: who is to be told of it waits too."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _server_of(assignment: Assignment) -> RoleServer:
    config, role = assignment.config, assignment.role
    bound = [(port, socket.socket(fileno=number)) for port, number in assignment.ports]
    plugins = load_plugins(config, [role])
    counts = Counts.of(assignment.counts, assignment.worker) if assignment.counts >= 0 else None
    return RoleServer(config, plugins, role, assignment.worker, bound, assignment.target, counts)


async def _obey(
    channel: Channel,
    server: RoleServer,
    draining: asyncio.Event,
    others: Mapping[int, Sequence[tuple[Port, socket.socket]]],
) -> None:
    """Do what the supervisor says. When it has gone there is nobody to restart us: end at once."""
    obey: Mapping[Message, Callable[[object], Awaitable[None] | None]] = {
        Message.PING: lambda _body: channel.send(Message.PONG),
        Message.DRAIN: lambda _body: draining.set(),
    }
    while (received := await channel.receive()) is not None:
        message, body = received
        if message is Message.RELOAD and isinstance(body, Config):
            logs.set_up(body.log.level, body.log.format, node=body.node.name, pid=os.getpid())
            await _apply(server, body)
        elif message is Message.ADOPT and isinstance(body, int):
            await server.adopt(body, others[body])
        elif message is Message.GIVE_BACK and isinstance(body, int):
            server.give_back(body)
        elif message in obey:
            obey[message](body)
    log.error("supervisor.lost")
    os._exit(EXIT_FAILED)
