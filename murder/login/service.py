"""What all client connections of a role share, and how they end with it."""

import asyncio
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol

from murder.config import ClientConfig
from murder.login.gate import Gate
from murder.model.name import Namespace
from murder.net.connection import Connection

QUIET_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class ClientService:
    """What one role offers to clients, whatever they speak. `server_name` is the one in greetings."""

    role: str
    server_name: str
    namespace: Namespace
    gate: Gate
    limits: ClientConfig
    tls: ssl.SSLContext | None
    max_failures: int = 5  # wrong passwords before the connection ends


class Session(Protocol):
    """A client's connection of any protocol, as the end of the role sees it."""

    connection: Connection
    is_closing: bool

    def is_quiet(self) -> bool: ...

    def say_bye(self, text: str) -> None: ...


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
