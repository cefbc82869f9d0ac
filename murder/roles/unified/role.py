"""The unified role: a frontend and the backend beside it, in each of its worker processes, on the frontend's ports.

Clients are the frontend's. A mailbox of this server is a backend's as any other, but reached within the process
(`net.outgoing.within`); the others are proxied. Whoever logs in as another node, an operator or a proxy user comes to the
backend itself (`auth.gate`), so nothing is ever passed on twice.

With several workers, worker 0 follows the master, keeps the host's list and does what one of a backend's workers does for
all; it starts first, serves nobody, and ends last.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from murder.auth.gate import Gate
from murder.config import Config
from murder.model.protocol import ProtocolSpec
from murder.net.listener import Service
from murder.net.outgoing.within import LocalConnection
from murder.net.shared_counter import Counts
from murder.roles.backend.role import BackendRole
from murder.roles.backend.role import MakesParts as MakesBackend
from murder.roles.frontend.role import FrontendRole
from murder.roles.frontend.role import MakesParts as MakesFrontend
from murder.serve.service import Session, drain


class MakesParts(MakesFrontend, MakesBackend, Protocol):
    """What both need of the plugins."""


class UnifiedRole:
    """See the module."""

    def __init__(self, config: Config, plugins: MakesParts, worker: int) -> None:
        self._config = config
        self._backend = BackendRole(_of_backend(config), plugins, worker)
        beside = _Beside(config.node.name, self._backend)
        self._frontend = FrontendRole(config, plugins, worker, beside)

    def parts(self) -> "Mapping[str, FrontendRole | BackendRole]":
        """For operators, who see a frontend and a backend."""
        return {FrontendRole.NAME: self._frontend, BackendRole.NAME: self._backend}

    def count_with(self, counts: Counts) -> None:
        self._frontend.count_with(counts)

    async def start(self) -> None:
        """Raises Refusal with a sentence; does not wait for the master."""
        await self._backend.start()
        await self._frontend.start()

    def services(self) -> Mapping[ProtocolSpec, Service]:
        return self._frontend.services()

    def reload(self, config: Config) -> None:
        """The backend first: the frontend asks it who is let in."""
        self._config = config
        self._backend.reload(_of_backend(config))
        self._frontend.reload(config)

    async def stop(self) -> None:
        """Clients end first, and who speaks with the backend itself beside them; then the backend has nobody left."""
        timeout_s = self._config.node.drain_timeout_s
        direct = _Direct(self._backend.sessions)
        await asyncio.gather(self._frontend.stop(), drain(direct, timeout_s))
        await self._backend.stop()


class _Beside:
    """The backend, as the frontend before it needs it."""

    def __init__(self, server: str, backend: BackendRole) -> None:
        self.server = server
        self._backend = backend

    def services(self) -> Mapping[ProtocolSpec, Service]:
        return self._backend.services()

    def gate(self) -> Gate:
        backend = self._backend.backend
        assert backend is not None, "it starts before its frontend"
        return backend.gate


class _Direct(Collection[Session]):
    """Those of a backend's sessions that no frontend of this process is before."""

    def __init__(self, sessions: Collection[Session]) -> None:
        self._sessions = sessions

    def __iter__(self) -> Iterator[Session]:
        return (
            session
            for session in self._sessions
            if not isinstance(session.connection, LocalConnection)
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, session: object) -> bool:
        return any(member is session for member in self)


def _of_backend(config: Config) -> Config:
    """The same, with as many workers of the backend as there are processes: worker 0 of several serves nobody."""
    workers = config.workers_of("unified")
    together = workers + 1 if workers > 1 else 1
    return replace(config, backend=replace(config.backend, workers=together))
