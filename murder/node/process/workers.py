"""`murder serve`: the supervisor, its workers, and what passes between them.

The supervisor binds every socket and keeps it open, so that what queues on the socket of a worker that crashed waits for
its successor. A worker is this program again (`serve --worker FD`): over the socket FD it gets its Assignment, then
short messages; when that socket ends, its supervisor is gone and it ends too. With one worker for each role everything
runs in this one process and loop.
"""

import asyncio
import contextlib
import faulthandler
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from murder import log as logs
from murder.__main__ import archive_path, home
from murder.api.service import Service
from murder.config import Config, ConfigError, Problem, load_config, processes_of
from murder.config.reload import changed_keys, take_changes
from murder.hooks import load_plugins
from murder.log import logger
from murder.model.protocol import first_key
from murder.net.seconds import until_look
from murder.net.shared_counter import Counts, allocate
from murder.node.control.node import NodeSocket
from murder.node.process.channel import Assignment, Channel, Message
from murder.node.process.garbage import reclaim, settle
from murder.node.process.host import (
    Notifier,
    become,
    keep_large_blocks_apart,
    raise_file_limit,
)
from murder.node.process.preflight import certificate_problems, service_problems
from murder.node.process.server import ROLE_CLASSES, Port, RoleServer, bind, ports_of, running
from murder.node.process.slot import STACK_SIGNAL, Plan, Slot
from murder.node.process.stuck import LoopWatch
from murder.wire.nodes.control_answers import OwnPorts, Reloaded, ReloadProblem
from murder.wire.nodes.control_words import AskPorts, Reload

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

WATCH_S: Final = 1.0
KILL_GRACE_S: Final = 5.0  # beyond the drain, before SIGKILL
SWITCH_INTERVAL_S: Final = 0.0005  # Python's own is ten times that

log = logger()


async def serve(
    config: Config, roles: Sequence[str], targets: Mapping[str, str] = ROLE_CLASSES
) -> int:
    """Run the roles until a signal ends them; returns the exit code. Raises ConfigError before anything serves."""
    plugins = load_plugins(config, roles)
    raise_file_limit()
    plugged = plugins.services()
    everything = running(config, roles)
    bound = _bind_all(config, everything, plugged)
    dropped = become(config)
    # again: root could read what node.user cannot
    flaws = list(certificate_problems(config, roles, plugged))
    if flaws:
        raise ConfigError(flaws)
    many = [role for role in roles if config.workers_of(role) > 1]
    counts = {role: allocate(config.workers_of(role) + 1) for role in many}
    plan = Plan(config, tuple(roles), everything, bound, targets, counts)
    if not dropped and all(config.workers_of(role) == 1 for role in roles):
        return await _Here(plan).run()
    logs.listen(plugins.event_listeners())
    return await _Supervisor(plan).run()


def _bind_all(
    config: Config, roles: Sequence[str], plugged: Sequence[Service]
) -> dict[Port, list[socket.socket]]:
    """Bind everything, or raise ConfigError with all that is in the way."""
    bound: dict[Port, list[socket.socket]] = {}
    problems: list[Problem] = []
    for role in roles:
        ports = ports_of(config, role, plugged, is_first=role == roles[0])
        if not ports:
            text = f"the {role} role has nothing to listen on"
            problems.append(Problem(config.file, first_key(role), text))
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


@dataclass(frozen=True, slots=True)
class _Reread:
    """What became of a changed file: the configuration to take (None: it is refused), and what to tell of it."""

    config: Config | None
    changed: Sequence[str] = ()
    waiting: Sequence[str] = ()
    problems: Sequence[Problem] = ()

    def answer(self, failed: Sequence[str]) -> Reloaded:
        """For `murder reload`; `failed`: what the roles say who could not take it."""
        problems = [ReloadProblem(str(it.file), it.key, it.text) for it in self.problems]
        if self.config is not None:
            problems += [ReloadProblem(str(self.config.file), "tls", text) for text in failed]
        return Reloaded(tuple(self.changed), tuple(self.waiting), tuple(problems))


def _reread(config: Config, roles: Sequence[str]) -> _Reread:
    """The configuration as the file is now, with its certificates looked at; the log tells too."""
    try:
        fresh = load_config(config.file)
        plugged = load_plugins(fresh, roles).services()
        flaws = list(service_problems(fresh, plugged))
        fresh, waiting = take_changes(config, fresh)
        if flaws := [*flaws, *certificate_problems(fresh, roles, plugged)]:
            raise ConfigError(flaws)
    except ConfigError as error:
        for problem in error.problems:
            log.error("config.refused", key=problem.key, problem=problem.text)
        return _Reread(None, problems=error.problems)
    logs.set_up(fresh.log.level, fresh.log.format, node=fresh.node.name)
    for key in waiting:
        log.warning("config.needs_restart", key=key)
    changed = changed_keys(config, fresh)
    log.info("config.reloaded", changed=changed)
    return _Reread(fresh, changed, waiting)


async def _apply(server: RoleServer, config: Config) -> str:
    """Hand a new configuration to a role; why not: a certificate that cannot be read leaves the old in use."""
    try:
        await server.reload(config)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        log.error("config.refused", key="tls", problem=str(error))
        return str(error)
    return ""


class _Asked:
    """What `serve` does for who asks at the node's socket, or by SIGHUP: one reload after the other."""

    def __init__(self, plan: Plan, take: Callable[[Config], Awaitable[list[str]]]) -> None:
        self._plan = plan
        self._take = take
        self._config = plan.config
        self._turn = asyncio.Lock()
        self._hung_up = asyncio.Event()
        self._socket = NodeSocket(plan.config, {Reload: self._reload, AskPorts: self._ports})

    @property
    def config(self) -> Config:
        return self._config

    def hang_up(self) -> None:
        self._hung_up.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._socket.start()
        try:
            while await self._hung_up.wait():
                self._hung_up.clear()
                await self._reload()
        finally:
            self._socket.stop()

    async def _reload(self) -> Reloaded:
        async with self._turn:
            reread = _reread(self._config, self._plan.roles)
            failed: list[str] = []
            if reread.config is not None:
                self._config = reread.config
                failed = [text for text in await self._take(reread.config) if text]
            return reread.answer(failed)

    async def _ports(self) -> OwnPorts:
        ports = [f"{port.dotted} {port.endpoint}" for port in self._plan.bound]
        return OwnPorts(os.getpid(), tuple(ports))


def _leave() -> None:
    """At once, with what is said."""
    logs.plain_log.flush()
    os._exit(EXIT_FAILED)


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

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._notifier = Notifier()
        self._servers: list[RoleServer] = []

    async def run(self) -> int:
        plan, config = self._plan, self._plan.config
        asked = _Asked(plan, self._take)
        signals = _Signals(asked.hang_up, on_hurry=_leave)
        plugins = load_plugins(config, plan.roles)
        logs.listen(plugins.event_listeners())
        watch = LoopWatch()
        try:
            for role in plan.everything:
                server = RoleServer(config, plugins, role, 0, plan.ports(role), plan.target(role))
                await server.start()
                self._servers.append(server)
            _tune_interpreter()
            self._notifier.tell("READY=1", f"MAINPID={os.getpid()}")
            log.info("server.ready", roles=plan.roles, workers=1)
            loop = asyncio.get_running_loop()
            with logs.gathering(loop.call_later):
                async with asyncio.TaskGroup() as group:
                    answering = group.create_task(asked.run())
                    reclaiming = group.create_task(reclaim())
                    await self._until(signals.ending, watch, asked)
                    reclaiming.cancel()
                    answering.cancel()
        finally:
            watch.stop()
            self._notifier.tell("STOPPING=1")
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(server.stop())
        log.info("server.stopped")
        return EXIT_DONE

    async def _until(self, ending: asyncio.Event, watch: LoopWatch, asked: _Asked) -> None:
        """Wait, telling the watchdogs, systemd's and our own, that this loop turns."""
        pause_s = min(self._notifier.watchdog_s or WATCH_S, WATCH_S)
        while not ending.is_set():
            watch.turned(asked.config.node.worker_timeout_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), until_look(pause_s))
            self._notifier.pulse()

    async def _take(self, config: Config) -> list[str]:
        return [await _apply(server, config) for server in self._servers]


class _Supervisor:
    """Workers in processes of their own."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._config = plan.config
        self._notifier = Notifier()
        self._slots = [slot for role in plan.everything for slot in self._slots_of(role)]
        for slot in self._slots:
            slot.peers = [
                peer for peer in self._slots if peer is not slot and peer.shares_with(slot)
            ]

    def _slots_of(self, role: str) -> list[Slot]:
        """See `process.server.Role`: the number of each, and which sockets it has."""
        count = self._plan.config.workers_of(role)
        if (extra := processes_of(self._plan.config, role) - count) == 0:
            return [Slot(self._plan, role, number, number) for number in range(count)]
        followers = [Slot(self._plan, role, n + extra, n) for n in range(count)]
        return [Slot(self._plan, role, 0, None), *followers]

    async def run(self) -> int:
        asked = _Asked(self._plan, self._take)
        signals = _Signals(asked.hang_up, on_hurry=self._kill)
        code = await self._start(signals)
        if code is not None:
            self._kill()
            return code
        self._notifier.tell("READY=1", f"MAINPID={os.getpid()}")
        log.info("server.ready", roles=self._plan.roles, workers=len(self._slots))
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(slot.keep()) for slot in self._slots]
            others = [group.create_task(self._watch()), group.create_task(asked.run())]
            await signals.ending.wait()
            for other in others:
                other.cancel()
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
                await asyncio.gather(starts, return_exceptions=True)  # nobody asks how they end
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
            slots = zip(self._slots, keepers, strict=True)
            await asyncio.gather(
                *(slot.kill_late(limit_s) for slot, keeper in slots if keeper in late)
            )

    async def _watch(self) -> None:
        """Tell the watchdog that all workers' loops turn; silent as soon as one does not answer. One that does not for
        `node.worker_timeout_s` is replaced: its clients wait for nothing."""
        due = time.monotonic()
        while True:
            limit_s = self._config.node.worker_timeout_s
            pauses = [self._notifier.watchdog_s, limit_s / 4 if limit_s else None, WATCH_S]
            if all(slot.answered for slot in self._slots):
                self._notifier.pulse()
            pause_s = min(pause for pause in pauses if pause is not None)
            is_late = time.monotonic() - due > pause_s  # we did not run ourselves
            for slot in self._slots:
                slot.ping(0 if is_late else limit_s, is_late)
                slot.stand_in()
            due = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)

    async def _take(self, config: Config) -> list[str]:
        self._config = config
        return list(await asyncio.gather(*(slot.reload(config) for slot in self._slots)))

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
    if assignment.stack >= 0:
        # where it is in Python, it also writes what waits for the loop
        signal.signal(STACK_SIGNAL, lambda _number, _frame: logs.plain_log.flush())
        faulthandler.register(STACK_SIGNAL, file=assignment.stack, all_threads=True, chain=True)
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
        priority = logs.priority_of("error")
        sys.stderr.write("".join(f"{priority}{line}\n" for line in str(error).splitlines()))
        return EXIT_USAGE
    _tune_interpreter()
    channel.send(Message.READY, home() if archive_path() else "")
    with logs.gathering(loop.call_later):
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(_obey(channel, server, draining, others))
            reclaiming = group.create_task(reclaim())
            await draining.wait()
            await server.stop()
            reclaiming.cancel()
            listening.cancel()
    return EXIT_DONE


def _tune_interpreter() -> None:
    """See `garbage`. And a thread that has just had something flushed need not wait long for a busy loop: who is to be told
    of it waits too."""
    settle()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_large_blocks_apart()


def _server_of(assignment: Assignment) -> RoleServer:
    config, role = assignment.config, assignment.role
    bound = [(port, socket.socket(fileno=number)) for port, number in assignment.ports]
    plugins = load_plugins(config, [role])
    logs.listen(plugins.event_listeners())
    counts = Counts.of(assignment.counts, assignment.worker) if assignment.counts >= 0 else None
    target, number = assignment.target, assignment.worker
    return RoleServer(config, plugins, role, number, bound, target, counts, is_worker=True)


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
            channel.send(Message.RELOADED, await _apply(server, body))
        elif message is Message.ADOPT and isinstance(body, int):
            await server.adopt(body, others[body])
        elif message is Message.GIVE_BACK and isinstance(body, int):
            server.give_back(body)
        elif message in obey:
            obey[message](body)
    log.error("supervisor.lost")
    os._exit(EXIT_FAILED)
