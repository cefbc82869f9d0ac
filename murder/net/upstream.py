"""Reaching other servers of the murder by their names in the list: address, TLS, who we are there, circuit breaker.

Protocol-neutral: IMAP, POP3 and LMTP each greet and log in themselves. A server that failed several times in a row is not
tried for a moment, so that its mailboxes fail at once and nobody else's wait.
"""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from murder.config import Config
from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.connection import Connection, Receiver, connect
from murder.net.tls import client_context

Kind = Literal["imap", "pop3", "lmtp"]
IMPLICIT_PORTS: Final = {"imap": "imaps", "pop3": "pop3s", "lmtp": "lmtp"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where and how a server is reached. `tls`: `starttls`, `implicit` or `none`; `auth`: `external` or `plain`."""

    server: str
    host: str
    port: int
    tls: str
    tls_name: str
    auth: str
    proxy_user: str = ""
    proxy_password: str = field(default="", repr=False)


@dataclass(slots=True)
class _Health:
    failures: int = 0
    closed_until: float = 0.0


class Upstreams:
    """One a worker: all its ways to other servers."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._context: ssl.SSLContext | None = None
        self._health: dict[str, _Health] = {}

    def address(self, server: str, kind: Kind) -> Address:
        """From `[servers."NAME"]` and `[frontend]`."""
        found, frontend = self._config.server(server), self._config.frontend
        tls = found.tls or frontend.upstream_tls
        port = getattr(found, IMPLICIT_PORTS[kind] if tls == "implicit" else kind)
        return Address(
            server,
            found.address or server,
            port,
            tls,
            found.tls_name or server,
            found.auth or frontend.upstream_auth,
            found.proxy_user or frontend.proxy_user,
            found.proxy_password or frontend.proxy_password,
        )

    def context(self) -> ssl.SSLContext:
        """The client side of TLS, with this node's certificate. Raises OSError, ssl.SSLError."""
        if self._context is None:
            tls = self._config.tls
            self._context = client_context(tls.ca, tls.certificate, tls.key)
        return self._context

    async def open_connection(
        self, address: Address, make_receiver: Callable[[Connection], Receiver]
    ) -> Connection:
        """Connect (with TLS where it is implicit). Raises UpstreamFailure, DOWN where the breaker is open."""
        if not self.is_tried(address.server):
            raise UpstreamFailure(
                UpstreamKind.DOWN, address.server, "it has just failed repeatedly"
            )
        try:
            return await connect(
                address.host,
                address.port,
                make_receiver,
                server=address.server,
                tls=self.context() if address.tls == "implicit" else None,
                server_hostname=address.tls_name,
                timeout_s=self._config.frontend.connect_timeout_s,
            )
        except UpstreamFailure:
            self.failed(address.server)
            raise

    def is_tried(self, server: str) -> bool:
        """Whether its breaker is closed."""
        health = self._health.get(server)
        return health is None or time.monotonic() >= health.closed_until

    def failed(self, server: str) -> None:
        """A connection or login there did not come about."""
        health = self._health.setdefault(server, _Health())
        health.failures += 1
        if health.failures >= self._config.frontend.breaker_failures:
            health.closed_until = time.monotonic() + self._config.frontend.breaker_retry_s

    def worked(self, server: str) -> None:
        """A login there came about: the breaker closes."""
        self._health.pop(server, None)

    async def starttls(self, connection: Connection, address: Address) -> None:
        """TLS on a connection whose peer has agreed. Raises UpstreamFailure(TLS)."""
        try:
            await connection.start_tls(
                self.context(), server_side=False, server_hostname=address.tls_name
            )
        except OSError as error:
            self.failed(address.server)
            raise UpstreamFailure(UpstreamKind.TLS, address.server, str(error)) from error
