"""A client's connection of a protocol that a plugin brings: what `murder.api.service` promises, on the common dialogue.

The plugin's coroutine runs for as long as the connection does. It is given octets as it asks for them, and the bounds of
everybody hold: what is not asked for is held up to a bound and then not read, a client that takes no answers is waited for,
turns end in reads and writes, and whoever is not in has so long to log in.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from murder.api.service import LINE_OCTETS, READ_OCTETS, Ask, BackendStream, Service
from murder.auth.gate import NotAdmitted, as_given
from murder.errors import BadSyntax, Code, Refusal
from murder.model.entry import MailboxEntry
from murder.model.identity import Identity, Login
from murder.model.name import MailboxName, Namespace
from murder.model.protocol import ProtocolSpec, protocol_named
from murder.model.sasl import PlainCredentials
from murder.net.connection import Connection
from murder.net.listener import Service as ListenerService
from murder.serve.client import ClientDialogue
from murder.serve.service import ClientService, Session
from murder.session.stream import StreamSession

PIECE_OCTETS: Final = 64 * 1024  # of what is written, before the client is waited for
QUIET_S: Final = 1.0  # silence in a pipe after which it may be ended


class Reach(Protocol):
    """What a role gives to services of plugins. `sessions` are drained at its end."""

    @property
    def sessions(self) -> set[Session]:
        """Those of the role; each leaves when it ends."""
        ...

    async def welcome(self, login: Login) -> None:
        """Somebody has logged in."""
        ...

    async def find(self, name: MailboxName, login: Login) -> MailboxEntry:
        """A mailbox that they may know of. Raises Refusal(NONEXISTENT), UpstreamFailure."""
        ...

    async def open_backend(
        self, server: str, protocol: ProtocolSpec, client: Connection, login: Login | None
    ) -> BackendStream:
        """Connected; nothing has been read. Raises UpstreamFailure, Refusal(CANNOT)."""
        ...

    async def enter(self, stream: BackendStream, entering: Awaitable[None]) -> None:
        """Await greeting and login there, in time. Raises UpstreamFailure."""
        ...


def service_of(plugged: Service, shared: ClientService, reach: Reach) -> ListenerService:
    """For a listener."""
    return lambda connection: ServiceDialogue(connection, shared, plugged, reach)


class ServiceDialogue(ClientDialogue):
    """See the module; a `murder.api.service.ServiceClient`."""

    session: StreamSession
    service: ClientService

    def __init__(
        self, connection: Connection, service: ClientService, plugged: Service, reach: Reach
    ) -> None:
        limits = service.limits
        timeout_s = limits.login_timeout_s if plugged.needs_login else limits.idle_timeout_s
        super().__init__(connection, StreamSession(), timeout_s)
        self.protocol = plugged.protocol.name
        self.write_timeout_s = limits.write_timeout_s
        self.activity_counts = not plugged.needs_login
        self.service = service
        self._plugged = plugged
        self._reach = reach
        self._ask: Ask | None = None
        reach.sessions.add(self)
        self._is_worn_out = False  # too many wrong logins: what it sends is not read any more
        self._is_at_rest = False  # waits for a command
        self._backends: list[BackendStream] = []

    # --- the loop

    def greet(self) -> None:
        self._start(None)

    def handle(self, event: Any) -> Coroutine[Any, Any, None]:
        async def serve() -> None:
            await self._plugged.serve(self)

        return serve()

    def rested(self) -> None:
        self.close()

    def failed(self, event: Any, error: Exception) -> None:
        self.note_failure(error)
        self.timed_out()

    def say_hopeless(self, error: BadSyntax) -> None:
        self.timed_out()

    def timed_out(self) -> None:
        self.say_bye("")

    def say_bye(self, text: str, code: Code = Code.UNAVAILABLE) -> None:
        """The plugin's own word for it, whatever the text."""
        self.send(self._plugged.bye)
        self.close()

    def is_quiet(self) -> bool:
        return self._is_at_rest and self.session.held == 0

    def ended(self) -> None:
        self._reach.sessions.discard(self)
        for backend in self._backends:
            backend.close()

    # --- octets

    @property
    def is_tls(self) -> bool:
        return self.connection.is_tls

    async def read(self, most: int = READ_OCTETS) -> bytes:
        self.session.want(max(1, most))
        return await self._next(is_command=True) or b""

    async def read_line(self, most: int = LINE_OCTETS) -> bytes | None:
        self.session.want_line(most)
        return await self._next(is_command=True)

    async def read_exactly(self, count: int) -> bytes:
        limit = self.service.limits.max_literal_bytes
        if not 0 <= count <= limit:
            raise BadSyntax(f"more than {limit} octets")
        self.session.want_exactly(count)
        octets = await self._next(is_command=False)
        return self.session.take_rest() if octets is None else octets

    async def _next(self, *, is_command: bool) -> bytes | None:
        """What the session is asked for; None at the end of the input. Raises TimeoutError, ConnectionResetError."""
        if self.is_closing or self._is_worn_out:
            return None
        if not self.activity_counts and self.time_left_s <= 0:
            raise TimeoutError("it did not log in in time")
        self._is_at_rest = is_command and self._ask is None
        try:
            octets: bytes | None = await self.next_event(
                None if self.activity_counts else self.time_left_s
            )
        except ConnectionResetError:
            if self._input_ended and not self.connection.is_lost:
                return None
            raise
        finally:
            self._is_at_rest = False
        return octets

    async def write(self, octets: bytes) -> None:
        for start in range(0, len(octets), PIECE_OCTETS):
            self.send(octets[start : start + PIECE_OCTETS])
            await self.flush()

    async def start_tls(self, agreed: bytes) -> None:
        if not self.may_start_tls:
            raise Refusal(Code.CANNOT, "No TLS here, or it is active already")
        await self.switch_to_tls(agreed)

    # --- who it is

    @property
    def role(self) -> str:
        return self.service.role

    @property
    def server_name(self) -> str:
        return self.service.server_name

    @property
    def peer(self) -> str:
        return self.connection.peer

    @property
    def cid(self) -> str:
        return self.connection.cid

    @property
    def namespace(self) -> Namespace:
        return self.service.namespace

    @property
    def identity(self) -> Identity | None:
        return self.login.identity if self.login is not None else None

    @property
    def is_admin(self) -> bool:
        return self.login is not None and self.login.is_admin

    def mechanisms(self) -> Sequence[str]:
        return self.service.gate.mechanisms(self.connection, self.protocol)

    async def ask(self, challenge: bytes) -> bytes:
        assert self._ask is not None
        return await self._ask(challenge)

    async def authenticate(self, mechanism: str, initial: bytes | None, ask: Ask) -> Identity:
        self._need_stranger()
        self._ask = ask
        try:
            login = await self.sasl(mechanism.upper(), initial)
        except NotAdmitted as refusal:
            self._is_worn_out = self.login_failed(refusal.user, refusal.code.value)
            raise
        finally:
            self._ask = None
        return await self._enter(login)

    async def log_in(self, user: str, password: bytes) -> Identity:
        self._need_stranger()
        given = PlainCredentials(user, "", password, "LOGIN")
        try:
            login = await self.service.gate.admit(given, self.connection, self.protocol)
        except Refusal as refusal:
            self._is_worn_out = self.login_failed(as_given(user), refusal.code.value)
            raise
        return await self._enter(login)

    def _need_stranger(self) -> None:
        if self.login is not None:
            raise Refusal(Code.CANNOT, "You are logged in already")
        if self._is_worn_out:
            raise Refusal(Code.AUTHENTICATION_FAILED, "Too many wrong logins")

    async def _enter(self, login: Login) -> Identity:
        try:
            self.count_in(login)
        except Refusal as refusal:
            self.log_not_served(login, refusal)
            self._is_worn_out = True
            raise
        self.entered_as(
            login,
            self.service.limits.idle_timeout_s,
            proxy=login.proxy,
            admin=login.is_admin,
            tls=self.connection.is_tls,
        )
        await self._reach.welcome(login)
        return login.identity

    # --- the murder

    async def find(self, name: MailboxName) -> MailboxEntry:
        if self.login is None:
            raise Refusal(Code.AUTHORIZATION_FAILED, "Nobody is logged in")
        return await self._reach.find(name, self.login)

    async def open_backend(
        self, server: str, enter: Callable[[BackendStream], Awaitable[None]], protocol: str = ""
    ) -> BackendStream:
        spec = self._plugged.protocol
        if protocol not in ("", spec.name):
            spec = protocol_named(protocol)
        stream = await self._reach.open_backend(server, spec, self.connection, self.login)
        self._backends.append(stream)
        try:
            await self._reach.enter(stream, enter(stream))
        except BaseException:
            self._backends.remove(stream)
            stream.close()
            raise
        return stream

    async def relay(self, backend: BackendStream) -> None:
        passed_at = self.loop.time()

        async def down() -> None:
            nonlocal passed_at
            while octets := await backend.read():
                passed_at = self.loop.time()
                await self.write(octets)

        async def up() -> None:
            while True:
                try:
                    octets = await self.read()
                except TimeoutError:
                    if self.loop.time() - passed_at >= self.idle_timeout_s:
                        raise
                    continue
                if not octets:
                    return
                await backend.write(octets)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = group.create_task(down()), group.create_task(up())
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                before = -1.0
                while not tasks[0].done() and before != passed_at:
                    before = passed_at  # the client sends no more; what it asked for is on its way
                    await asyncio.wait(tasks[:1], timeout=QUIET_S)
                for task in tasks:
                    task.cancel()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            backend.close()
