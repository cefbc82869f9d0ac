"""What all client connections of a role share, and how they end with it."""

import asyncio
import importlib
import ssl
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from murder.auth.gate import Gate
from murder.config import ClientConfig
from murder.model.name import Namespace
from murder.model.protocol import PROTOCOLS, ProtocolSpec
from murder.net.connection import Connection, Receiver
from murder.net.listener import Service
from murder.serve.mail_log import MailLog
from murder.trail.audit import NOBODYS, AuditLog
from murder.trail.figures import Figures
from murder.trail.spans import Spans

QUIET_POLL_S: Final = 0.02
NO_MAIL_LOG: Final = MailLog()


@dataclass(frozen=True, slots=True)
class ClientService:
    """What one role offers to clients, whatever they speak. `server_name` is the one in greetings; `greetings` are those of
    late, by what they depend on. `within` has the services of the server that runs beside this proxy, where there is one:
    whom that lets in (`Login.within`) goes on there."""

    role: str
    server_name: str
    namespace: Namespace
    gate: Gate
    limits: ClientConfig
    tls: ssl.SSLContext | None
    max_failures: int = 5  # wrong passwords before the connection ends
    greetings: dict[Hashable, bytes] = field(default_factory=dict, compare=False, repr=False)
    mail_log: MailLog = NO_MAIL_LOG
    audit: AuditLog = NOBODYS
    figures: Figures = field(default_factory=Figures)
    within: Callable[[], Mapping[ProtocolSpec, Service]] | None = None
    spans: Spans | None = None  # where sessions may be traced

    @property
    def login_timeout_s(self) -> float:
        """All the time there is for a login."""
        return self.limits.login_timeout_s


Factory = Callable[[Connection, ClientService, Any], Receiver]
"""A role's service of a protocol: called with each connection, and the Frontend or Backend."""


def factories_of(role: str) -> Mapping[ProtocolSpec, Factory]:
    """Who serves each protocol at a role, imported now (a process may not be able to when it is nobody any more)."""
    factories = {}
    for spec in PROTOCOLS:
        if role in spec.served_by:
            module, _, name = spec.served_by[role].partition(":")
            factories[spec] = getattr(importlib.import_module(module), name)
    return factories


def services_of(
    factories: Mapping[ProtocolSpec, Factory], shared: ClientService, node: object
) -> dict[ProtocolSpec, Service]:
    """These factories for the listeners of a role; `node` is its Frontend or Backend."""

    def service(factory: Factory) -> Service:
        return lambda connection: factory(connection, shared, node)

    return {spec: service(factory) for spec, factory in factories.items()}


class Session(Protocol):
    """A client's connection of any protocol, as the end of the role sees it."""

    connection: Connection
    is_closing: bool

    def is_quiet(self) -> bool:
        """Whether nothing is under way that BYE would cut off."""
        ...

    def say_bye(self, text: str) -> None:
        """In the words of its protocol; then it ends."""
        ...


async def drain(sessions: Collection[Session], timeout_s: float) -> None:
    """Say BYE to each at a quiet point; cut off who is still busy after the timeout. Sessions leave the collection when
    they end."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while sessions and loop.time() < deadline:
        for session in list(sessions):
            if session.is_quiet() and not session.is_closing:
                session.say_bye("Server shutting down, try again later")
        await asyncio.sleep(QUIET_POLL_S)
    for session in list(sessions):
        session.connection.abort()
