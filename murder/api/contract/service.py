"""Services: whatever a client sends, a connection ends when its input does, and others are not held up."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from murder.api.contract.check import Broken, Check, hold
from murder.api.service import LINE_OCTETS, READ_OCTETS, Ask, BackendStream, Service
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.model.identity import Identity
from murder.model.name import MailboxName, Namespace

Make = Callable[[], Service]

SLOW_S: Final = 0.05
MOST_WRITES: Final = 10_000
ODD: Final = (
    *(b"", b"\r\n", b"\n" * 1000, b"\0" * 100, b"\xff" * 4000 + b"\r\n", b"x" * 100_000),
    *(b"a" * 8000 + b"\r\n", b'"' * 3000 + b"\r\n", b"(" * 3000 + b"\r\n", b"{999999999999}\r\n"),
    *(b"a b c\r\n" * 300, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"QUIT\r\n" * 3),
)


class ByHand:
    """A client of whom all is known: what it sends, and then the end of its input. Nobody can log in."""

    def __init__(self, role: str, octets: bytes) -> None:
        self.role = role
        self.server_name = "mail.example.org"
        self.peer = "192.0.2.1"
        self.cid = "check"
        self.namespace = Namespace()
        self.is_tls = False
        self.is_admin = False
        self.may_start_tls = False
        self.identity: Identity | None = None
        self.written: list[bytes] = []
        self._octets = octets
        self._since = time.thread_time()
        self.slowest_s = 0.0

    def _turn(self) -> None:
        """The plugin waits: how long did it compute?"""
        now = time.thread_time()
        self.slowest_s = max(self.slowest_s, now - self._since)
        self._since = now

    def _cut(self, count: int) -> bytes:
        octets, self._octets = self._octets[:count], self._octets[count:]
        self._since = time.thread_time()
        return octets

    async def read(self, most: int = READ_OCTETS) -> bytes:
        self._turn()
        return self._cut(most)

    async def read_line(self, most: int = LINE_OCTETS) -> bytes | None:
        self._turn()
        end = self._octets.find(b"\n")
        if (end if end >= 0 else len(self._octets)) > most:
            raise BadSyntax(f"a line may have {most} octets")
        return self._cut(end + 1)[:-1].removesuffix(b"\r") if end >= 0 else None

    async def read_exactly(self, count: int) -> bytes:
        self._turn()
        if not 0 <= count <= 4 * 1024 * 1024:
            raise BadSyntax("that is too long")
        return self._cut(count)

    async def write(self, octets: bytes) -> None:
        self._turn()
        if not isinstance(octets, bytes):
            raise Broken(f"it writes {type(octets).__name__}, not bytes")
        self.written.append(octets)
        if len(self.written) > MOST_WRITES:
            raise Broken(f"it writes {MOST_WRITES} times and comes to no end")
        self._since = time.thread_time()

    async def start_tls(self, agreed: bytes) -> None:
        raise Refusal(Code.CANNOT, "No TLS here")

    def mechanisms(self) -> Sequence[str]:
        return ("PLAIN",)

    async def authenticate(self, mechanism: str, initial: bytes | None, ask: Ask) -> Identity:
        if initial is None:
            await ask(b"")
        raise Refusal(Code.AUTHENTICATION_FAILED, "Wrong user or password")

    async def log_in(self, user: str, password: bytes) -> Identity:
        raise Refusal(Code.AUTHENTICATION_FAILED, "Wrong user or password")

    async def find(self, name: MailboxName) -> MailboxEntry:
        raise Refusal(Code.NONEXISTENT, "No such mailbox")

    async def open_backend(
        self, server: str, enter: Callable[[BackendStream], Awaitable[None]], protocol: str = ""
    ) -> BackendStream:
        raise UpstreamFailure(UpstreamKind.CONNECT, server, "nobody is there")

    async def relay(self, backend: BackendStream) -> None:
        raise Broken("it relays to a backend that was not opened")


async def is_a_service(make: Make) -> None:
    """The hook answers a Service with ports, and octets for who comes when there is no room."""
    service = make()
    hold(isinstance(service, Service), f"expected a Service, got {service!r}")
    hold(service.protocol.refusal, "the protocol's `refusal` is empty")
    hold(service.roles, "it is for no role")


async def _serve(service: Service, role: str, octets: bytes) -> ByHand:
    client = ByHand(role, octets)
    try:
        await service.serve(client)
    except (BadSyntax, UpstreamFailure):
        pass
    client._turn()
    return client


async def a_connection_ends_with_its_input(make: Make) -> None:
    """A client that goes without a word, or in the middle of one, ends the connection, and nothing is raised."""
    service = make()
    for role in sorted(service.roles):
        for octets in (b"", b"half a li"):
            await _serve(service, role, octets)


async def nonsense_ends_too(make: Make) -> None:
    """Octets that are nothing of this protocol are answered or refused; the connection comes to its end."""
    service = make()
    for role in sorted(service.roles):
        for octets in ODD:
            await _serve(service, role, octets)


async def no_turn_is_long(make: Make) -> None:
    """Between two reads or writes it computes for hardly any time: what takes longer is awaited in a thread."""
    service = make()
    for role in sorted(service.roles):
        for octets in ODD:
            client = await _serve(service, role, octets)
            hold(
                client.slowest_s < SLOW_S,
                f"it computed for {client.slowest_s:.3f} s after {octets[:20]!r}",
            )


SERVICE_CHECKS: Final[tuple[Check, ...]] = (
    is_a_service,
    a_connection_ends_with_its_input,
    nonsense_ends_too,
    no_turn_is_long,
)
