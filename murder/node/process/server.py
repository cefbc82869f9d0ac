"""A role in this process: its class, its listeners on sockets bound before, and its start, reload, drain and stop.

`workers` decides how many processes run this. Knows no protocol: a role's services do.
"""

import asyncio
import errno
import importlib
import os
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Final, Protocol, runtime_checkable

from murder.api.addresses import set_addresses
from murder.api.service import Service
from murder.api.turns import set_rest
from murder.config import (
    UNIFIED,
    ClientConfig,
    Config,
    ConfigError,
    Endpoint,
    Problem,
    parts_of,
    processes_of,
)
from murder.config.value import ANY_HOST, contains, parse_endpoint
from murder.hooks import Plugins
from murder.log import logger
from murder.model.protocol import BY_KEY, CONTROL, METRICS, MUPDATE, WEB, PortKey, ProtocolSpec
from murder.net.connection import Connection
from murder.net.listener import Bounds, Guests, Listener
from murder.net.listener import Service as ListenerService
from murder.net.outgoing.resolve import addresses_of
from murder.net.seconds import next_look
from murder.net.shared_counter import Counts
from murder.net.tls import distrusted, listening_context, renew_contexts, trust_of
from murder.net.turns import Turn, line_up
from murder.node.control.sockets import (
    ControlServer,
    Counted,
    RemoteControl,
    control_folder,
    end_session,
)
from murder.node.pages.http import HttpConnection
from murder.node.pages.metrics import Pages
from murder.node.process.otlp import Exporter, HasSpans
from murder.pki.trust import Trust
from murder.trail.figures import Figures

ROLE_CLASSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mupdate": "murder.roles.mupdate.role:MupdateRole",
        "frontend": "murder.roles.frontend.role:FrontendRole",
        "backend": "murder.roles.backend.role:BackendRole",
        UNIFIED: "murder.roles.unified.role:UnifiedRole",
        WEB.name: "murder.admin.web.role:WebRole",
    }
)
BACKLOG: Final = 4096  # the kernel cuts it to net.core.somaxconn
DISTRUSTED: Final = "Your certificate is no longer accepted here"
MEASURE_EVERY_S: Final = 1.0
STOP_GRACE_S: Final = 2.0  # beyond the drain, before a role that does not end is left alone


class Role(Protocol):
    """What `murder/<role>/role.py` offers.

    Made with `(config, plugins, worker)`. Worker 0 is the only one where a role runs in one process. In several,
    worker 0 of a frontend is the process that follows the master and writes the host's list (and tells it, where
    `frontend.mupdate` is set), 1 … N serve clients; a backend's are 0 … N-1, all serve, and 0 starts first, alone.
    """

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Drain: end sessions at quiet points, within `[node] drain_timeout_s`."""
        ...

    def services(self) -> Mapping[ProtocolSpec, ListenerService]: ...


@runtime_checkable
class Reloads(Protocol):
    """The optional power of a role to take a new configuration while it runs."""

    def reload(self, config: Config) -> None: ...


@runtime_checkable
class CountsTogether(Protocol):
    """The optional power of a role to count what its limits are about over all its workers. Called before `start`."""

    def count_with(self, counts: Counts) -> None: ...


@runtime_checkable
class HasParts(Protocol):
    """A role that is several, each of which operators see as one of its own; by their names."""

    def parts(self) -> Mapping[str, Role]: ...


@dataclass(frozen=True, slots=True)
class Port:
    """One thing to listen on, in words that pass between processes: `key` is its name in the role's section, as `imaps`,
    `protocol` that of its ProtocolSpec, `dotted` the key as an operator writes it."""

    role: str
    key: str
    endpoint: Endpoint
    protocol: str
    dotted: str
    implicit_tls: bool = False

    @property
    def is_of_list(self) -> bool:
        """Whether the process that writes the host's list serves it, not the role's other workers."""
        return self.key == "mupdate"


def running(config: Config, roles: Sequence[str]) -> tuple[str, ...]:
    """What runs besides a node's own roles: its page for operators, in a process of its own where they are in some."""
    return (*roles, WEB.name) if config.web.listen else tuple(roles)


def section_of(config: Config, role: str) -> ClientConfig | None:
    """The role's own section, where it serves mail clients; a unified node's is the frontend's."""
    sections = {"frontend": config.frontend, "backend": config.backend, UNIFIED: config.frontend}
    return sections.get(role)


def ports_of(
    config: Config, role: str, plugged: Sequence[Service] = (), *, is_first: bool = False
) -> list[Port]:
    """All that a role listens on, in the order of the keys and then of the plugins that bring `plugged`; `*` becomes both
    address families. The first of a node's roles also answers operators."""
    if role == WEB.name:
        return [
            Port(role, key.name, endpoint, WEB.name, f"{key.section}.listen", key.is_implicit)
            for key in WEB.keys
            for place in config.web.listen
            for endpoint in _families(place)
        ]
    section = section_of(config, role)
    prefix = "frontend" if role == UNIFIED else role
    wanted = [
        (spec, key, place, f"{prefix}.{key.name}")
        for spec, key in BY_KEY.values()
        for place in getattr(section or config.mupdate, key.name, ())
    ]
    if section is not None:
        wanted += [
            (service.protocol, key, place, f"{prefix}.services.{key.name}")
            for service in plugged
            if prefix in service.roles
            for key in service.protocol.keys
            for place in _places(section, key)
        ]
    if is_first:
        wanted += [
            (CONTROL, key, place, f"{key.section}.{key.name}")
            for key in CONTROL.keys
            for place in config.node.control
        ]
        wanted += [
            (METRICS, key, place, f"{key.section}.listen")
            for key in METRICS.keys
            for place in config.metrics.listen
        ]
    return [
        Port(role, key.name, endpoint, spec.name, dotted, key.is_implicit)
        for spec, key, place, dotted in wanted
        for endpoint in _families(place)
    ]


def _places(section: ClientConfig, key: PortKey) -> Sequence[Endpoint]:
    """Where a plugin's protocol is listened on: as configured, else by the plugin's own default."""
    configured = section.services.get(key.name)
    if configured is not None:
        return configured
    return [parse_endpoint(place, key.port) for place in key.default]


def _families(endpoint: Endpoint) -> Iterable[Endpoint]:
    if endpoint.host != ANY_HOST:
        return (endpoint,)
    both = (Endpoint("0.0.0.0", endpoint.port), Endpoint("::", endpoint.port))
    return both if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6") else both[:1]


def bind(config: Config, port: Port, count: int) -> list[socket.socket]:
    """Bind and listen, `count` sockets sharing the port. Raises ConfigError with what is in the way."""
    sockets: list[socket.socket] = []
    try:
        family, address = _resolved(port.endpoint)
        sockets.append(_bound(family, address, shared=False))
        if count > 1:  # the first was a probe: a port that is shared would hide who else has it
            sockets.pop().close()
            sockets += [_bound(family, address, shared=True) for _ in range(count)]
    except OSError as error:
        for sock in sockets:
            sock.close()
        problem = Problem(config.file, port.dotted, _why_not_bound(port.endpoint, error))
        raise ConfigError([problem]) from None
    return sockets


def _resolved(endpoint: Endpoint) -> tuple[socket.AddressFamily, tuple[str, int]]:
    addresses = socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = addresses[0]
    return family, (str(address[0]), int(address[1]))


def _bound(
    family: socket.AddressFamily, address: tuple[str, int], *, shared: bool
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _why_not_bound(endpoint: Endpoint, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {endpoint}: the name {endpoint.host!r} has no address"
    advice = {
        errno.EADDRINUSE: "the port is in use; stop the other program (`ss -ltnp` shows it) or "
        "choose another port",
        errno.EACCES: "not allowed; ports below 1024 need root (then set node.user) or "
        "CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "this host has no such address",
    }
    why = advice.get(error.errno or 0, error.strerror or str(error))
    return f"cannot listen on {endpoint}: {why}"


def make_role(target: str, config: Config, plugins: Plugins, worker: int) -> Role:
    """Import `module:Class` and make the role."""
    module, _, name = target.partition(":")
    role: Role = getattr(importlib.import_module(module), name)(config, plugins, worker)
    return role


def context_for(config: Config, role: str) -> ssl.SSLContext | None:
    """The TLS context of a role's listeners; None without certificates. Frontends show the public certificate; users show
    theirs where they log in."""
    node, parts = config.node.name if role == UNIFIED else "", parts_of([role])
    users = "backend" in parts
    return listening_context(config.tls, public="frontend" in parts, node=node, users=users)


async def measure_loop(figures: Figures, every_s: float = MEASURE_EVERY_S) -> None:
    """How late the event loop comes to what was due: what somebody else's turn has cost."""
    loop = asyncio.get_running_loop()
    while True:
        due = next_look(loop.time(), every_s)
        await asyncio.sleep(due - loop.time())
        figures.took("loop_lag", max(0.0, loop.time() - due))


class RoleServer:
    """One role in one process."""

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        role: str,
        worker: int,
        bound: Sequence[tuple[Port, socket.socket]],
        target: str = "",
        counts: Counts | None = None,
        *,
        is_worker: bool = False,
    ) -> None:
        """`is_worker`: nothing else of the node runs in this process."""
        self._config = config
        self._plugins = plugins
        self._name = role
        self._worker = worker
        self._bound = bound
        self._role = make_role(target or ROLE_CLASSES[role], config, plugins, worker)
        self._listeners: list[Listener] = []
        self._adopted: dict[int, list[tuple[Port, Listener]]] = {}  # by their worker
        self._left: list[Listener] = []  # given back, with connections
        self._is_stopping = False
        # clients; whoever else comes does not take their room, nor they its
        self._guests = Guests(counts)
        self._others: dict[ProtocolSpec, Guests] = {}
        if counts is not None and isinstance(self._role, CountsTogether):
            self._role.count_with(counts)
        self._pages = Pages(control_folder(config))
        parts = self._parts()
        # the page beside a role: that answers for it
        tells = is_worker or role != WEB.name
        self._controls = self._make_controls(parts) if tells else []
        traced = {name: part for name, part in parts.items() if isinstance(part, HasSpans)}
        self._measuring: asyncio.Task[None] | None = None
        self._exporter = Exporter(lambda: self._config, worker, traced)
        self._log = logger(role=role)

    def _parts(self) -> Mapping[str, Role]:
        """Of the role, which may be several."""
        role = self._role
        return role.parts() if isinstance(role, HasParts) else {self._name: role}

    def _make_controls(self, parts: Mapping[str, Role]) -> list[ControlServer]:
        """One for each part of the role; the first of them has the sessions."""
        first = next(iter(parts))
        return [
            ControlServer(
                *(self._config, name, self._worker, part),
                self._all_listeners if name == first else tuple,
                processes_of(self._config, self._name),
            )
            for name, part in parts.items()
        ]

    def _all_listeners(self) -> Sequence[Listener]:
        return self._listeners

    async def start(self) -> None:
        """Start the role, then listen. Raises what the role raises; ConfigError for a service that is missing."""
        # plugins of every role rest, and look names up: those that let users in ask servers over HTTP
        set_rest(line_up)
        set_addresses(addresses_of)
        await self._role.start()
        for part in parts_of([self._name]):
            await self._plugins.role_starts(part, self._worker)
        services = self._services()
        tls = context_for(self._config, self._name) if self._bound else None
        for port, sock in self._bound:
            if port.protocol not in services:
                text = f"the {self._name} role serves no {port.protocol}; remove the key"
                raise ConfigError([Problem(self._config.file, port.dotted, text)])
            if port.implicit_tls and tls is None:
                text = "needs a certificate; set tls.certificate and tls.key"
                raise ConfigError([Problem(self._config.file, port.dotted, text)])
            self._listeners.append(await self._listen(port, sock, *services[port.protocol], tls))
        for control in self._controls:
            await control.start()
        self._exporter.start()
        first = next(iter(self._parts().values()))
        if isinstance(first, Counted):
            self._measuring = asyncio.create_task(measure_loop(first.figures))
        self._log.info("role.started", worker=self._worker, listeners=len(self._listeners))

    def _services(self) -> Mapping[str, tuple[ProtocolSpec, ListenerService]]:
        """What the role serves, and every role (`[node] control`), by the protocols' names."""
        folder = control_folder(self._config)
        services = {
            **self._role.services(),
            CONTROL: lambda connection: RemoteControl(connection, folder),
            METRICS: self._metrics,
        }
        return {spec.name: (spec, service) for spec, service in services.items()}

    def _metrics(self, connection: Connection) -> HttpConnection:
        def is_welcome() -> bool:
            return contains(self._config.metrics.allow, connection.peer)

        return HttpConnection(connection, self._pages, is_welcome=is_welcome)

    async def _listen(
        self,
        port: Port,
        sock: socket.socket,
        protocol: ProtocolSpec,
        service: ListenerService,
        tls: ssl.SSLContext | None,
    ) -> Listener:
        bounds, context = self._bounds(protocol), self._context_of(port, tls)
        guests = self._guests
        if not protocol.has_clients:
            guests = self._others.setdefault(protocol, Guests())
        listener = Listener(sock, service, bounds, context, guests)
        await listener.start()
        return listener

    async def adopt(self, worker: int, bound: Iterable[tuple[Port, socket.socket]]) -> None:
        """Serve also who waits on the sockets of another worker, which does not: the kernel goes on handing it clients."""
        if worker in self._adopted or self._is_stopping:
            return
        adopted = self._adopted.setdefault(worker, [])
        services, tls = self._services(), context_for(self._config, self._name)
        for port, sock in bound:
            if port.protocol in services:
                adopted.append(
                    (port, await self._listen(port, sock.dup(), *services[port.protocol], tls))
                )
        self._log.warning("worker.failover_started", worker=self._worker, of=worker)

    def give_back(self, worker: int) -> None:
        """It serves again; who has come here stays here."""
        for _port, listener in self._adopted.get(worker, ()):
            listener.let_go()
        self._left += [listener for _, listener in self._adopted.pop(worker, ())]
        self._left = [listener for listener in self._left if listener.connections]

    def _context_of(self, port: Port, tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
        """Operators are asked for their certificate, so they see the node's, not the public one."""
        if port.protocol in (CONTROL.name, WEB.name):
            return listening_context(self._config.tls, public=False)
        return tls if port.implicit_tls else None

    def _bounds(self, protocol: ProtocolSpec) -> Bounds:
        section = section_of(self._config, self._name)
        if protocol is WEB:
            web = self._config.web
            return Bounds(
                web.max_connections,
                refusal=protocol.refusal,
                max_strangers=web.max_strangers_per_address,
                receive_octets=protocol.receive_octets,
            )
        if section is None or protocol is MUPDATE:
            mupdate = self._config.mupdate
            return Bounds(
                mupdate.max_connections,
                refusal=protocol.refusal,
                max_strangers=mupdate.max_strangers_per_address,
                receive_octets=protocol.receive_octets,
            )
        return Bounds(
            section.max_connections,
            section.max_connections_per_address,
            protocol.refusal,
            balancers=section.proxy_protocol_from,
            max_strangers=section.max_strangers_per_address,
            trusted=self._config.auth.trusted,
            receive_octets=protocol.receive_octets,
        )

    async def reload(self, config: Config) -> None:
        """Read the certificates again, and take a new configuration for connections from now on. Nodes and operators whose
        certificate counts no longer are told, and their connections end. Raises OSError, and then nothing has changed."""
        trust = trust_of(config.tls)
        renew_contexts(config.tls)
        if isinstance(self._role, Reloads):
            self._role.reload(config)
        self._config = config
        section = section_of(config, self._name)
        if section is not None and section.max_connections_per_address:
            self._guests.publish()
        services, tls = self._services(), context_for(config, self._name)
        own = [
            (port, listener)
            for (port, _), listener in zip(self._bound, self._listeners, strict=True)
        ]
        for port, listener in (*own, *chain.from_iterable(self._adopted.values())):
            protocol, service = services[port.protocol]
            listener.configure(service, self._bounds(protocol))
            listener.renew(self._context_of(port, tls))
        await self._end_distrusted(trust)
        self._log.info("role.reloaded", worker=self._worker)

    async def _end_distrusted(self, trust: Trust) -> None:
        """Also those that this node has opened: to backends, to the master. They may be thousands; others have turns."""
        turn = Turn()
        for connection, why in list(distrusted(trust)):
            if turn.is_over:
                await turn.rest()
            peer = connection.certificate
            self._log.warning("tls.distrusted", name=peer.name if peer else "", problem=why)
            if isinstance(connection, Connection):
                end_session(connection, DISTRUSTED)

    async def stop(self) -> None:
        """Stop accepting, drain, cut off whoever is left. Bounded; never raises."""
        self._is_stopping = True
        for worker in list(self._adopted):
            self.give_back(worker)
        for listener in self._listeners:
            listener.stop_accepting()
        limit_s = self._config.node.drain_timeout_s + STOP_GRACE_S
        try:
            async with asyncio.timeout(limit_s):
                await self._role.stop()
        except TimeoutError:
            self._log.warning("role.stuck", worker=self._worker, elapsed_ms=int(limit_s * 1000))
        except Exception:  # noqa: BLE001 (the end of a task: the rest must still be stopped)
            self._log.exception("role.failed", worker=self._worker)
        if self._measuring is not None:
            self._measuring.cancel()
        await self._exporter.stop()
        for control in self._controls:
            control.stop()
        for listener in (*self._listeners, *self._left):
            listener.abort()
        await self._tell_plugins()
        self._log.info("role.stopped", worker=self._worker)

    async def _tell_plugins(self) -> None:
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                for part in parts_of([self._name]):
                    for name, error in await self._plugins.role_stops(part, self._worker):
                        self._log.error("plugin.failed", plugin=name, exc_info=error)
        except TimeoutError:
            self._log.warning(
                "role.stuck", worker=self._worker, elapsed_ms=int(STOP_GRACE_S * 1000)
            )
