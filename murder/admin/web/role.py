"""The page for operators as a part of a node: beside its roles, with a gate of its own."""

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from murder.admin.web.site import Site
from murder.auth.gate import Gate
from murder.config import Config, contains
from murder.model.protocol import WEB, ProtocolSpec
from murder.net.connection import Connection
from murder.net.listener import Service
from murder.node.pages.http import HttpConnection
from murder.serve.role import MakesAuth, gate_of
from murder.trail.audit import NODE, audit_log

SWEEP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Door:
    """Who may come, as the gate reads it."""

    admins: Collection[str]
    allow_plaintext: bool = False


class WebRole:
    """In one process."""

    def __init__(self, config: Config, plugins: MakesAuth, worker: int) -> None:
        self._config = config
        self._plugins = plugins
        self._audit = audit_log(
            config.node.data, f"{NODE}-{WEB.name}", worker, config.log.audit_keep_bytes
        )
        self._site = Site(config, self._make_gate(), self._audit)
        self._sweeping: asyncio.Task[None] | None = None

    def _make_gate(self) -> Gate:
        config = self._config
        sections = (config.frontend, config.backend, config.mupdate)
        admins = config.web.admins or tuple(name for section in sections for name in section.admins)
        domains = config.namespace.domains
        return gate_of(config, _Door(admins), self._plugins, domains=domains)

    async def start(self) -> None:
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            web = self._config.web
            self._site.sessions.sweep(web.session_idle_s, web.session_s)

    def services(self) -> Mapping[ProtocolSpec, Service]:
        return {WEB: self._serve}

    def _serve(self, connection: Connection) -> HttpConnection:
        def is_welcome() -> bool:
            return contains(self._config.web.allow, connection.peer)

        return HttpConnection(connection, self._site, is_welcome=is_welcome, needs_login=True)

    def reload(self, config: Config) -> None:
        """For requests from now on; who is logged in stays so, where they still may."""
        self._config = config
        self._audit.keep(config.log.audit_keep_bytes)
        self._site.take(config, self._make_gate().following(self._site.gate))

    async def stop(self) -> None:
        """What was begun has a moment to end."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        tasks = [task for session in self._site.sessions for task in session.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=self._config.node.drain_timeout_s)
        for session in self._site.sessions:
            for task in session.going:
                task.cancel()  # the sources of a move go on without us
            with contextlib.suppress(OSError):
                await session.close_reach()
