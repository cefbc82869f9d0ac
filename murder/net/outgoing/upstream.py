"""Reaching other servers of the murder by their names in the list: address, TLS, who we are there, circuit breaker.

Protocol-neutral: IMAP, POP3 and LMTP each greet and log in themselves, in `entering`. A server that failed several times
in a row is left alone, so that its mailboxes fail at once and nobody else's wait; every few seconds (not exactly, so that
workers and hosts do not come all at once) one session's connection tests it, and when that gets in all may.
"""

import asyncio
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from murder import __version__
from murder.config import Config
from murder.errors import UpstreamFailure, UpstreamKind
from murder.log import logger
from murder.model.protocol import ProtocolSpec
from murder.model.versions import misfit
from murder.net.connection import Connection, Receiver
from murder.net.outgoing.connect import connect, why
from murder.net.outgoing.proving import (
    CURES,
    GSSAPI,
    Proof,
    Tickets,
    by_certificate,
    by_password,
)
from murder.net.outgoing.within import Within, open_within
from murder.net.tls import calling_context
from murder.trail.figures import Figures
from murder.wire.haproxy import format_header

JITTER: Final = (0.75, 1.25)
_OURS: Final = re.compile(r" murder (\S{1,40}) server ready$")  # how a backend of ours greets


class Address(NamedTuple):
    """Where and how a server is reached. `tls`: `starttls`, `implicit` or `none`; `auth`: `external`, `plain` or `gssapi`;
    `within`: in this process, by that protocol. A tuple, because connections are kept by it."""

    server: str
    host: str
    port: int
    tls: str
    tls_name: str
    auth: str
    proxy_user: str = ""
    proxy_password: str = ""
    within: ProtocolSpec | None = None
    protocol: str = ""
    ca: Path | None = None  # who signs its certificate, where that is not the nodes' authority

    def __repr__(self) -> str:
        return f"Address({self.server!r}, {self.host!r}, {self.port})"  # no secret in a log


@dataclass(slots=True)
class _Health:
    failures: int = 0
    tested_at: float = 0.0  # when it may be tried next, once it has failed too often


class Upstreams:
    """One a worker: all its ways to other servers. `within`: the one that runs in this process, where there is one;
    `figures`: of a role that counts what it opens."""

    def __init__(
        self, config: Config, within: Within | None = None, figures: Figures | None = None
    ) -> None:
        self._config = config
        self._within = within
        self._tickets = Tickets(config.node.keytab)
        self._contexts: dict[Path | None, ssl.SSLContext] = {}  # by who signs the others
        # whether a connection tells the client's address when it is opened, and so is for this client only
        self.tells_origin = config.frontend.upstream_proxy_protocol != "none"
        self.health: dict[str, _Health] = {}  # of those that have failed of late
        self._addresses: dict[tuple[str, ProtocolSpec], Address] = {}
        self._versions: dict[str, str] = {}  # of backends, as they greeted last
        self._log = logger()
        self._figures = figures

    def met(self, server: str, greeting: str) -> None:
        """What a server says in its greeting. A version that was not tried beside this one is told, once."""
        match = _OURS.search(greeting)
        version = match[1] if match else ""
        if self._versions.get(server) == version:
            return
        self._versions[server] = version
        if version and (why := misfit(version, __version__)):
            self._log.warning("version.misfit", backend=server, problem=why)

    def configure(self, config: Config) -> None:
        """A new configuration, for connections from now on."""
        self._config = config
        self.tells_origin = config.frontend.upstream_proxy_protocol != "none"
        self._contexts.clear()
        self._addresses.clear()

    def address(self, server: str, protocol: ProtocolSpec) -> Address:
        """From `[servers."NAME"]` and `[frontend]`."""
        known = self._addresses.get((server, protocol))
        if known is None:
            known = self._addresses[server, protocol] = self._find_address(server, protocol)
        return known

    def is_named(self, server: str) -> bool:
        """Whether the configuration has a section for it."""
        return server in self._config.servers

    @property
    def home(self) -> str:
        """The server that runs in this process; "" where there is none."""
        return self._within.server if self._within is not None else ""

    def _find_address(self, server: str, protocol: ProtocolSpec) -> Address:
        if server == self.home:
            return Address(server, "", 0, "none", server, "external", within=protocol)
        known, frontend = self._config.server(server), self._config.frontend
        tls = known.tls or frontend.upstream_tls
        return Address(
            server,
            known.address or server,
            known.port(protocol.key_for(tls)),
            tls,
            known.tls_name or server,
            known.auth or frontend.upstream_auth,
            known.proxy_user or frontend.proxy_user,
            known.proxy_password or frontend.proxy_password,
            protocol=protocol.name,
            ca=known.ca,
        )

    def proof(self, address: Address, user: str) -> Proof:
        """By which this node speaks for a user there ("": for itself)."""
        if address.auth == "external":
            return by_certificate(user)
        if address.auth == GSSAPI:
            words = (address.server, address.protocol, address.tls_name, user, address.proxy_user)
            return self._tickets.proof(*words)
        own, password = address.proxy_user, address.proxy_password
        return by_password(user, own, password, CURES["plain"])

    def context(self, ca: Path | None = None) -> ssl.SSLContext:
        """The client side of TLS, with this node's certificate; `ca` is in place of the nodes' authority. Raises OSError,
        ssl.SSLError."""
        context = self._contexts.get(ca)
        if context is None:
            context = self._contexts[ca] = calling_context(self._config.tls, ca)
        return context

    async def open_connection(
        self,
        address: Address,
        make_receiver: Callable[[Connection], Receiver],
        origin: tuple[str, int] | None = None,
    ) -> Connection:
        """Connect (with TLS where it is implicit), for a client at `origin`. Raises UpstreamFailure, DOWN where the
        breaker is open."""
        if address.within is not None and self._within is not None:
            return open_within(self._within, address.within, make_receiver)
        version = self._config.frontend.upstream_proxy_protocol
        source = origin if version != "none" else None
        if not self.is_tried(address.server):
            raise UpstreamFailure(
                UpstreamKind.DOWN, address.server, "it has just failed repeatedly"
            )
        began = time.perf_counter()
        try:
            connection = await connect(
                address.host,
                address.port,
                make_receiver,
                server=address.server,
                tls=self.context_to(address)
                if address.tls == "implicit" and source is None
                else None,
                server_hostname=address.tls_name,
                timeout_s=self._config.frontend.connect_timeout_s,
            )
            if source is not None:
                target = (connection.peer, connection.peer_port)
                connection.write(format_header(int(version[1]), source, target))
                if address.tls == "implicit":
                    await self.starttls(connection, address)
            if self._figures is not None:
                took_s = time.perf_counter() - began
                self._figures.took("upstream_connects", took_s, address.server)
            return connection
        except UpstreamFailure as failure:
            self.failed(failure)
            raise

    @asynccontextmanager
    async def entering(self, server: str) -> AsyncIterator[None]:
        """Around greeting and login there: bounded in time, and the breaker hears how it went. Raises UpstreamFailure."""
        limit_s = self._config.frontend.upstream_login_timeout_s
        try:
            try:
                async with asyncio.timeout(limit_s):
                    yield
            except TimeoutError:
                text = f"no greeting and login within {limit_s:g} s"
                raise UpstreamFailure(UpstreamKind.TIMEOUT, server, text) from None
        except UpstreamFailure as failure:
            self.failed(failure)
            raise
        self.worked(server)

    def is_well(self, server: str) -> bool:
        """Whether it is not left alone just now; unlike `is_tried` this is only a look."""
        health, frontend = self.health.get(server), self._config.frontend
        if health is None or health.failures < frontend.breaker_failures:
            return True
        return time.monotonic() >= health.tested_at

    def is_tried(self, server: str) -> bool:
        """Whether a connection may be opened now. Of a server that is left alone the one who is told yes is the test;
        until it has an end, others are told no."""
        health, frontend = self.health.get(server), self._config.frontend
        if health is None or health.failures < frontend.breaker_failures:
            return True
        now = time.monotonic()
        if now < health.tested_at:
            return False
        health.tested_at = now + frontend.connect_timeout_s + frontend.upstream_login_timeout_s
        return True

    def failed(self, failure: UpstreamFailure) -> None:
        """A connection or login there did not come about."""
        if not failure.kind.is_sickness:
            return
        frontend = self._config.frontend
        health = self.health.setdefault(failure.server, _Health())
        health.failures += 1
        if health.failures >= frontend.breaker_failures:
            pause_s = frontend.breaker_retry_s * random.uniform(*JITTER)
            health.tested_at = time.monotonic() + pause_s
        if health.failures == frontend.breaker_failures:
            self._log.warning(
                "upstream.circuit_opened", backend=failure.server, kind=failure.kind.value
            )

    def worked(self, server: str) -> None:
        """A login there came about: the breaker closes."""
        health = self.health.pop(server, None)
        if health is not None and health.failures >= self._config.frontend.breaker_failures:
            self._log.info("upstream.circuit_closed", backend=server)

    async def starttls(self, connection: Connection, address: Address) -> None:
        """TLS on a connection whose peer has agreed. Raises UpstreamFailure: TLS; LOST where the peer goes meanwhile."""
        try:
            await connection.start_tls(
                self.context_to(address), server_side=False, server_hostname=address.tls_name
            )
        except (ConnectionError, ssl.SSLEOFError) as error:
            text = "it closed the connection during the TLS handshake"
            raise UpstreamFailure(UpstreamKind.LOST, address.server, text) from error
        except OSError as error:
            raise UpstreamFailure(UpstreamKind.TLS, address.server, why(error)) from error

    def context_to(self, address: Address) -> ssl.SSLContext:
        """Raises UpstreamFailure: TLS where the files that it wants cannot be read."""
        try:
            return self.context(address.ca)
        except OSError as error:
            text = f"{address.ca or 'the files of [tls]'}: {why(error)}"
            raise UpstreamFailure(UpstreamKind.TLS, address.server, text) from error
