"""A protocol that a plugin brings: its ports, and who serves a connection.

A plugin of this kind gives one by the hook `make_service`. From there it has its keys (`[frontend] services`, `[backend]
services`, `[servers."NAME"] services`), its listeners, its answer when there is no room, and its ports in `murder demo`. Who
may come and how many, TLS, logins with what wrong ones cost, time-outs, fair turns, the log, and the end of the node
are the core's; the plugin reads octets and writes octets.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from murder.errors import Misuse
from murder.model.entry import MailboxEntry
from murder.model.identity import Identity
from murder.model.name import MailboxName, Namespace
from murder.model.protocol import BACKEND, BY_KEY, FRONTEND
from murder.model.protocol import PortKey as PortKey  # site plugins find them here
from murder.model.protocol import ProtocolSpec as ProtocolSpec

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
LINE_OCTETS: Final = 8192
READ_OCTETS: Final = 64 * 1024
EVERY_ROLE: Final = frozenset({FRONTEND, BACKEND})

Ask = Callable[[bytes], Awaitable[bytes]]
"""Sends a SASL challenge to the client in the protocol's own form, and returns its answer; both without base64. Raises
BadSyntax where the client breaks off."""


class Stream(Protocol):
    """Octets in, octets out, at either end. What a method waits for has the time-outs of the configuration: it raises
    TimeoutError, and ConnectionResetError where the connection has gone; leave both to murder."""

    @property
    def is_tls(self) -> bool: ...

    async def read(self, most: int = READ_OCTETS) -> bytes:
        """What has come, up to so many octets; b"" at the end of the input."""
        ...

    async def read_line(self, most: int = LINE_OCTETS) -> bytes | None:
        """The next line without its end; None at the end of the input. Raises BadSyntax where it is longer."""
        ...

    async def read_exactly(self, count: int) -> bytes:
        """So many octets (a literal): fewer at the end of the input. Raises BadSyntax for more than
        `max_literal_bytes` of the role."""
        ...

    async def write(self, octets: bytes) -> None:
        """Send them, and wait while the peer does not take what was sent."""
        ...


class BackendStream(Stream, Protocol):
    """A frontend's connection to a backend, for one client. What goes wrong with it raises UpstreamFailure."""

    @property
    def server(self) -> str: ...

    @property
    def needs_tls(self) -> bool:
        """Whether the configuration wants STARTTLS of this protocol, and it is not there yet."""
        ...

    async def start_tls(self) -> None:
        """TLS, the backend having agreed."""
        ...

    def close(self) -> None: ...

    def credentials(self) -> tuple[str, bytes]:
        """A SASL mechanism and its initial response (without base64) by which this node speaks for the user who is in."""
        ...


class ServiceClient(Stream, Protocol):
    """A client's connection. `cid` is its name in the log; `role` is `frontend` or `backend`."""

    @property
    def role(self) -> str: ...

    @property
    def server_name(self) -> str: ...

    @property
    def peer(self) -> str: ...

    @property
    def cid(self) -> str: ...

    @property
    def namespace(self) -> Namespace: ...

    @property
    def identity(self) -> Identity | None:
        """Who is in; None before the login."""
        ...

    @property
    def is_admin(self) -> bool: ...

    @property
    def may_start_tls(self) -> bool: ...

    async def start_tls(self, agreed: bytes) -> None:
        """Send the agreement, and put TLS under the connection. Raises Refusal where there is none, or it is there."""
        ...

    def mechanisms(self) -> Sequence[str]:
        """The SASL mechanisms that would work now."""
        ...

    async def authenticate(self, mechanism: str, initial: bytes | None, ask: Ask) -> Identity:
        """One SASL exchange, to its end; `initial` is the client's initial response without base64. A wrong one is as slow
        as everywhere, logged and counted: behind the reply to one too many the input ends. Raises Refusal, BadSyntax,
        UpstreamFailure (it cannot be said now)."""
        ...

    async def log_in(self, user: str, password: bytes) -> Identity:
        """The same by a name and a password, where the protocol has no SASL."""
        ...

    async def find(self, name: MailboxName) -> MailboxEntry:
        """A mailbox that who is in may know of, with its place: at a frontend of the whole murder, at a backend its own.
        Raises Refusal(NONEXISTENT), UpstreamFailure where that cannot be known now."""
        ...

    async def open_backend(
        self, server: str, enter: Callable[[BackendStream], Awaitable[None]], protocol: str = ""
    ) -> BackendStream:
        """At a frontend: a connection to that backend's port of this protocol (or of another, by its name), which ends with
        the client's. `enter` reads its greeting and logs in there, within `upstream_login_timeout_s`. Raises
        UpstreamFailure; Refusal(CANNOT) at a backend."""
        ...

    async def relay(self, backend: BackendStream) -> None:
        """Pass octets on, both ways, until one of them ends."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """`serve` is called with each connection, and returns when that is to end: it greets first, and what it raises ends
    the connection (our bug, the log says; BadSyntax, UpstreamFailure and time-outs are the peers'). `bye`: the octets
    that a client gets whom the node's end or a time-out sends away. `needs_login`: a connection has `login_timeout_s` to
    log in, else it ends; False: silence alone ends it. `roles`: where it may be listened on.
    """

    protocol: ProtocolSpec
    serve: Callable[[ServiceClient], Awaitable[None]]
    bye: bytes = b""
    needs_login: bool = True
    roles: frozenset[str] = EVERY_ROLE

    def __post_init__(self) -> None:
        spec = self.protocol
        for name in (spec.name, *(key.name for key in spec.keys)):
            if not NAME.fullmatch(name):
                raise Misuse(f"{name!r}: a protocol and its keys have a-z, 0-9 and _")
            if name in BY_KEY or name in {known.name for known, _ in BY_KEY.values()}:
                raise Misuse(f"{name!r} is murder's own; choose another name")
        if not spec.keys:
            raise Misuse(f"{spec.name}: a protocol has a port at least")
        if not self.roles <= EVERY_ROLE:
            raise Misuse(f"{spec.name}: no role {', '.join(sorted(self.roles - EVERY_ROLE))}")
