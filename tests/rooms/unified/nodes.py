"""Unified nodes in this process for tests: a master, and nodes that are frontend and backend in one, on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from murder.api.delivery import DeliveryFilter
from murder.api.store import MailboxStore
from murder.config import BackendConfig, Config, FrontendConfig
from murder.config.sections import NamespaceConfig, NodeConfig, ServerConfig
from murder.model.acl import OWNER_RIGHTS, Acl, format_acl
from murder.model.name import inbox_of
from murder.model.protocol import IMAP, LMTP, POP3, SIEVE
from murder.net.listener import Bounds, Listener
from murder.roles.backend.role import BackendRole
from murder.roles.backend.shared import Backend
from murder.roles.frontend.role import FrontendRole
from murder.roles.frontend.shared import Frontend
from murder.roles.unified.role import UnifiedRole
from tests.kit.dialogue import Streams
from tests.kit.sections import near_master, server_section
from tests.rooms.backend.server import memory_store
from tests.rooms.frontend.cluster import PROXY, Anybody, Policy
from tests.rooms.mupdate.nodes import Server, master

HOMES: Mapping[str, Sequence[str]] = {"n1.test": ("ana",), "n2.test": ("bob",)}
PROTOCOLS = (IMAP, POP3, LMTP, SIEVE)


class Parts(Policy):
    """What the plugins of a unified node would make."""

    def __init__(self, store: MailboxStore) -> None:
        self._store = store

    def delivery_filters(self) -> Sequence[tuple[str, DeliveryFilter]]:
        return ()

    def store(self) -> MailboxStore:
        return self._store


@dataclass(slots=True)
class Node:
    """One that listens: `ports` by protocol."""

    name: str
    role: UnifiedRole
    ports: Mapping[str, int]

    @property
    def frontend(self) -> Frontend:
        part = self.role.parts()["frontend"]
        assert isinstance(part, FrontendRole)
        assert part.frontend is not None
        return part.frontend

    @property
    def backend(self) -> Backend:
        part = self.role.parts()["backend"]
        assert isinstance(part, BackendRole)
        assert part.backend is not None
        return part.backend


@dataclass(slots=True)
class Nodes:
    """All of them."""

    master: Server
    nodes: dict[str, Node] = field(default_factory=dict)

    async def connect(self, peer: str) -> Streams:
        """For transcripts: a peer called `n1…` or `n2…` is at that node, any other at the first."""
        found = (
            node for name, node in self.nodes.items() if peer.startswith(name.partition(".")[0])
        )
        node = next(found, next(iter(self.nodes.values())))
        return await asyncio.open_connection("127.0.0.1", node.ports["imap"])


def _config(
    folder: Path,
    name: str,
    servers: Mapping[str, ServerConfig],
    port: int,
    namespace: NamespaceConfig,
    frontend: Mapping[str, Any],
) -> Config:
    clients = FrontendConfig(
        admins=("admin",),
        allow_plaintext=True,
        workers=1,
        upstream_tls="none",
        upstream_auth="plain",
        proxy_user=PROXY,
        proxy_password="secret",
        lmtp_trusted=(),
    )
    kept = BackendConfig(
        admins=("admin", "keeper"),
        submitters=("post",),
        allow_plaintext=True,
        proxies=(PROXY,),
        workers=1,
    )
    return Config(
        file=folder / "murder.toml",
        node=NodeConfig(name=name, data=folder, drain_timeout_s=0.5),
        mupdate=near_master(f"127.0.0.1:{port}", name.partition(".")[0]),
        frontend=replace(clients, **frontend),
        backend=kept,
        namespace=namespace,
        servers=servers,
    )


@asynccontextmanager
async def running_nodes(
    folder: Path,
    homes: Mapping[str, Sequence[str]] = HOMES,
    *,
    namespace: NamespaceConfig | None = None,
    **frontend: Any,
) -> AsyncIterator[Nodes]:
    """Nodes with INBOXes for these users, who know each other. `frontend`: settings of [frontend]."""
    users = [name.partition(".")[0] for name in homes]
    async with (
        master(folder / "master", auth=Anybody(), users=users) as server,
        AsyncExitStack() as stack,
    ):
        socks = {
            name: {spec.name: socket.create_server(("127.0.0.1", 0)) for spec in PROTOCOLS}
            for name in homes
        }
        ports = {
            name: {key: sock.getsockname()[1] for key, sock in of_node.items()}
            for name, of_node in socks.items()
        }
        servers = {
            name: server_section(address="127.0.0.1", **of_node) for name, of_node in ports.items()
        }
        running = Nodes(server)
        for name, of_node in homes.items():
            config = _config(
                *(folder / name, name, servers, server.port),
                *(namespace or NamespaceConfig(), frontend),
            )
            role = UnifiedRole(config, Parts(memory_store()), 0)
            await role.start()
            replica = role._frontend._replica
            assert replica is not None
            await replica.replica.until_synchronised(10)
            node = running.nodes[name] = Node(name, role, ports[name])
            for user in of_node:
                acl = format_acl(Acl({user: OWNER_RIGHTS}))
                await node.backend.announcer.create(inbox_of(user), acl)
            listeners = []
            for spec in PROTOCOLS:
                listeners.append(Listener(socks[name][spec.name], role.services()[spec], Bounds()))
                await listeners[-1].start()
            stack.push_async_callback(_stop, role, listeners)
        for node in running.nodes.values():
            await node.frontend.locator.catch_up()
        yield running


async def _stop(role: UnifiedRole, listeners: Sequence[Listener]) -> None:
    for listener in listeners:
        listener.stop_accepting()
    await role.stop()
    for listener in listeners:
        listener.abort()
