"""A whole murder in this process for tests: a master, backends and frontends, each on ports of loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from murder.api.auth import AuthBackend, Identity
from murder.api.placement import BackendLoad, NewMailbox
from murder.api.referral import Conduct, ReferralQuestion
from murder.api.sasl import Mechanism
from murder.api.service import Service
from murder.api.store import MailboxStore
from murder.config import Config, FrontendConfig
from murder.config.sections import MultiplexorConfig, NamespaceConfig, NodeConfig
from murder.model.entry import Location
from murder.model.protocol import IMAP, SIEVE
from murder.roles.frontend.role import FrontendRole
from murder.roles.frontend.shared import Frontend
from tests.kit.dialogue import Streams
from tests.kit.listening import role_listening
from tests.kit.sections import near_master, server_section
from tests.rooms.backend.server import (
    OnePassword,
    Running,
    config_in,
    memory_store,
    running_backend,
)
from tests.rooms.mupdate.nodes import Server, Users, master

PROXY = "murder"
HOMES: Mapping[str, Sequence[str]] = {"be1.test": ("ana",), "be2.test": ("bob",)}


class Anybody(Users):
    """The master's: every node is let in."""

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return Identity(user)


class Remembering(OnePassword):
    """Knows a password at once, as the user file does that has seen it before."""

    def recall(self, user: str, password: bytes) -> Identity | None:
        return Identity(user, frozenset({"staff"})) if password == b"secret" else None


class Policy:
    """The plugins of a frontend: mail where the parent is, else on the first backend; no referrals but by RLIST."""

    def services(self, role: str) -> Sequence[Service]:
        return ()

    def mechanisms(self) -> Sequence[Mechanism]:
        return ()

    def auth_backends(self) -> Sequence[tuple[str, AuthBackend]]:
        return [("one", Remembering())]

    def choose_backend(
        self, mailbox: NewMailbox, candidates: Sequence[BackendLoad]
    ) -> Location | None:
        if mailbox.parent is not None:
            return mailbox.parent.location
        return candidates[0].location if candidates else None

    def refers_logins(self) -> bool:
        return False

    def refers_unable(self) -> bool:
        return False

    def relay_or_refer(self, question: ReferralQuestion) -> Conduct:
        able = question.referrals_on and not question.is_admin
        return Conduct.REFER if able else Conduct.RELAY


@dataclass(slots=True)
class RunningFrontend:
    """A frontend that listens."""

    role: FrontendRole
    frontend: Frontend
    address: tuple[str, int]
    sieve: tuple[str, int] = ("", 0)


@dataclass(slots=True)
class Cluster:
    """What runs. `frontends[0]` is the one that tests mostly talk to."""

    folder: Path
    master: Server
    stack: AsyncExitStack
    namespace: NamespaceConfig
    backends: dict[str, Running] = field(default_factory=dict)
    frontends: list[RunningFrontend] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        return self.frontends[0].address

    async def connect(self, peer: str) -> Streams:
        """For transcripts: a peer called `be1…` is at that backend, `other…` at the second frontend."""
        for name, backend in self.backends.items():
            if peer.startswith(name.partition(".")[0]):
                return await asyncio.open_connection(*backend.address)
        at = 1 if peer.startswith("other") else 0
        return await asyncio.open_connection(*self.frontends[at].address)

    async def add_backend(
        self,
        name: str,
        users: Sequence[str],
        make_store: Callable[[], MailboxStore],
        **settings: Any,
    ) -> Running:
        folder = self.folder / name
        config = config_in(
            folder,
            master=f"127.0.0.1:{self.master.port}",
            namespace=self.namespace,
            proxies=(PROXY,),
            **settings,
        )
        config = replace(config, node=replace(config.node, name=name))
        running = await self.stack.enter_async_context(
            running_backend(folder, make_store, users, config)
        )
        self.backends[name] = running
        return running

    async def add_frontend(
        self,
        policy: Policy | None = None,
        multiplexor: MultiplexorConfig | None = None,
        **settings: Any,
    ) -> RunningFrontend:
        number = len(self.frontends) + 1
        config = self._frontend_config(number, settings, multiplexor)
        role = FrontendRole(config, policy or Policy(), 0)
        await role.start()
        frontend = role.frontend
        assert frontend is not None
        assert role._replica is not None
        await role._replica.replica.until_synchronised(10)
        await frontend.locator.catch_up()
        places = await self.stack.enter_async_context(role_listening(role, (IMAP, SIEVE)))
        running = RunningFrontend(role, frontend, *(place.address for place in places))
        self.frontends.append(running)
        return running

    def _frontend_config(
        self, number: int, settings: Mapping[str, Any], multiplexor: MultiplexorConfig | None
    ) -> Config:
        folder = self.folder / f"fe{number}"
        section = FrontendConfig(
            admins=("admin",),
            allow_plaintext=True,
            workers=1,
            upstream_tls="none",
            upstream_auth="plain",
            proxy_user=PROXY,
            proxy_password="secret",
        )
        return Config(
            file=folder / "murder.toml",
            node=NodeConfig(name=f"fe{number}.test", data=folder, drain_timeout_s=0.5),
            mupdate=near_master(f"127.0.0.1:{self.master.port}", "murder"),
            frontend=replace(section, **settings),
            multiplexor=multiplexor or MultiplexorConfig(),
            namespace=self.namespace,
            servers={
                name: server_section(
                    address="127.0.0.1", imap=backend.address[1], sieve=backend.sieve[1]
                )
                for name, backend in self.backends.items()
            },
        )


@asynccontextmanager
async def running_cluster(
    folder: Path,
    homes: Mapping[str, Sequence[str]] = HOMES,
    *,
    make_store: Callable[[Path], MailboxStore] = lambda _: memory_store(),
    namespace: NamespaceConfig | None = None,
    frontends: int = 1,
    **settings: Any,
) -> AsyncIterator[Cluster]:
    """Backends with INBOXes for these users, and frontends before them. `settings` are of [frontend]."""
    async with (
        master(folder / "master", auth=Anybody(), users=("be1", "murder")) as server,
        AsyncExitStack() as stack,
    ):
        cluster = Cluster(folder, server, stack, namespace or NamespaceConfig())
        for name, users in homes.items():
            store = make_store(folder / name)
            await cluster.add_backend(name, users, lambda store=store: store)  # type: ignore[misc]
        for _ in range(frontends):
            await cluster.add_frontend(**settings)
        yield cluster
