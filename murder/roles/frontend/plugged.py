"""What services of plugins get of a frontend: the list of the whole murder, and ways to the backends."""

import asyncio
from collections.abc import Awaitable
from typing import Final

from murder.api.service import LINE_OCTETS, READ_OCTETS, BackendStream
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.model.identity import Login
from murder.model.name import MailboxName
from murder.model.protocol import ProtocolSpec
from murder.net.connection import Connection
from murder.net.outgoing.proving import GSSAPI
from murder.net.outgoing.upstream import Address, Upstreams
from murder.roles.frontend.shared import Frontend
from murder.roles.frontend.visible import find
from murder.serve.service import Session
from murder.session.sasl import plain_response
from murder.session.stream import StreamSession

HELD_OCTETS: Final = 256 * 1024  # of what nobody has asked for yet, before reading stops


class UpstreamStream:
    """A connection to a backend; a `murder.api.service.BackendStream`. `begun` is False while greeting and login last,
    whose waits have a bound of their own; then silence is the client's matter."""

    def __init__(
        self, address: Address, upstreams: Upstreams, login: Login | None, write_timeout_s: float
    ) -> None:
        self._address = address
        self._upstreams = upstreams
        self._login = login
        self._write_timeout_s = write_timeout_s
        self._session = StreamSession()
        self._waiter: asyncio.Future[None] | None = None
        self._is_lost = False
        self.connection: Connection

    # --- Receiver

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        self._session.receive(data)
        if self._waiter is not None:
            self._wake()
        elif self._session.held > HELD_OCTETS:
            self.connection.pause_reading()

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        self._is_lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- octets

    @property
    def server(self) -> str:
        return self._address.server

    @property
    def is_tls(self) -> bool:
        return self.connection.is_tls

    @property
    def needs_tls(self) -> bool:
        return self._address.tls == "starttls" and not self.is_tls

    def _failure(self, kind: UpstreamKind, text: str) -> UpstreamFailure:
        return UpstreamFailure(kind, self.server, text)

    async def read(self, most: int = READ_OCTETS) -> bytes:
        self._session.want(max(1, most))
        return await self._next() or b""

    async def read_line(self, most: int = LINE_OCTETS) -> bytes | None:
        self._session.want_line(most)
        return await self._next()

    async def read_exactly(self, count: int) -> bytes:
        if not 0 <= count <= HELD_OCTETS:
            raise self._failure(UpstreamKind.PROTOCOL, f"more than {HELD_OCTETS} octets")
        self._session.want_exactly(count)
        event = await self._next()
        return self._session.take_rest() if event is None else event

    async def _next(self) -> bytes | None:
        while True:
            try:
                event = self._session.next_event()
            except BadSyntax as error:
                raise self._failure(UpstreamKind.PROTOCOL, str(error)) from error
            if event is not None or self._is_lost:
                return event
            self.connection.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def write(self, octets: bytes) -> None:
        if self._is_lost:
            raise self._failure(UpstreamKind.LOST, "it closed the connection")
        self.connection.write(octets)
        try:
            await self.connection.drain(self._write_timeout_s)
        except ConnectionError as error:
            raise self._failure(UpstreamKind.TIMEOUT, str(error)) from error

    async def start_tls(self) -> None:
        if self._session.take_rest():  # it was injected (CVE-2011-0411)
            raise self._failure(UpstreamKind.PROTOCOL, "octets behind the answer to STARTTLS")
        await self._upstreams.starttls(self.connection, self._address)

    def credentials(self) -> tuple[str, bytes]:
        login, address = self._login, self._address
        if login is None:
            raise Refusal(Code.AUTHORIZATION_FAILED, "Nobody is logged in")
        if login.is_admin and login.password is not None:
            if not self.is_tls and address.tls != "none":
                raise self._failure(UpstreamKind.TLS, "no password is sent without TLS")
            return "PLAIN", plain_response("", login.user, login.password)
        if address.auth == "external":
            return "EXTERNAL", login.user.encode()
        if address.auth == GSSAPI:
            text = "protocols of plugins know no tickets: say `auth` for it in [servers]"
            raise self._failure(UpstreamKind.AUTH, text)
        secret = address.proxy_password.encode()
        return "PLAIN", plain_response(login.user, address.proxy_user, secret)

    def close(self) -> None:
        self.connection.close()


class FrontendReach:
    """See `murder.serve.plugged.Reach`."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend

    @property
    def sessions(self) -> set[Session]:
        """Of this worker, all protocols."""
        return self._frontend.sessions

    async def welcome(self, login: Login) -> None:
        pass

    async def find(self, name: MailboxName, login: Login) -> MailboxEntry:
        return await find(self._frontend, name, login)

    async def open_backend(
        self, server: str, protocol: ProtocolSpec, client: Connection, login: Login | None
    ) -> BackendStream:
        upstreams = self._frontend.upstreams
        address = upstreams.address(server, protocol)
        if protocol.implicit_key is None and address.tls == "implicit":
            text = f"{protocol.name} has no implicit TLS: set starttls"
            raise UpstreamFailure(UpstreamKind.TLS, server, text)
        timeout_s = self._frontend.config.upstream_timeout_s
        stream = UpstreamStream(address, upstreams, login, timeout_s)

        def receiver(connection: Connection) -> UpstreamStream:
            stream.connection = connection
            return stream

        await upstreams.open_connection(address, receiver, (client.peer, client.peer_port))
        return stream

    async def enter(self, stream: BackendStream, entering: Awaitable[None]) -> None:
        async with self._frontend.upstreams.entering(stream.server):
            await entering
