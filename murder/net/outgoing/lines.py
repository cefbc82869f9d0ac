"""A connection to a backend's POP3, LMTP or ManageSieve: replies line by line, then (POP3) octets as they come.

Every wait has `timeout_s`. Raises UpstreamFailure throughout.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from murder.errors import UpstreamFailure, UpstreamKind
from murder.model.protocol import ProtocolSpec
from murder.net.bulk import BULK_OCTETS, took_much
from murder.net.connection import Connection
from murder.net.outgoing.proving import Proof
from murder.net.outgoing.upstream import Address, Upstreams
from murder.net.sweep import NOWHERE, SLOT_S, here

MAX_LINES: Final = 100  # of one reply
SLOW_OCTETS: Final = 64 * 1024
MAX_CHALLENGES: Final = 8  # of a login there; the longest takes three
MAX_HELD_OCTETS: Final = 256 * 1024  # of replies that nobody has asked for yet


class LineUpstream:
    """See the module. `pipe`, once set, gets all octets; `gone` is called at the end of the connection."""

    # Attributes begin as they stand here: see `murder.net.dialogue`
    is_lost = False
    pipe: Callable[[bytes], None] | None = None
    gone: Callable[[], None] | None = None
    drained: Callable[[], None] | None = None
    reads_slowly = False  # what comes is long, and waits at the backend until it is passed on
    was_used = False  # it has answered for a command of a client
    _has_said_some = False  # since something was sent to it
    _waiter: asyncio.Future[None] | None = None
    _due = math.inf  # when what is waited for is overdue
    sweep_slot = NOWHERE

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self.server = address.server
        self.connection: Connection
        self.timeout_s = timeout_s  # of each wait; inf where the caller has a limit for all
        self._held = bytearray()

    # --- Receiver

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        if self.pipe is not None:
            self.pipe(data)
            if len(data) >= BULK_OCTETS:
                took_much(self.connection)
            return
        self._held += data
        self._has_said_some = True
        if len(self._held) > MAX_HELD_OCTETS:
            self.connection.abort()
        elif self.reads_slowly and len(self._held) > SLOW_OCTETS:
            self.connection.pause_reading()
        self._wake()

    def writable(self) -> None:
        if self.drained is not None:
            self.drained()

    def lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if self.sweep_slot:
            here().forget(self)
        self._wake()
        if self.gone is not None:
            self.gone()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- lines

    def failure(self, kind: UpstreamKind, text: str, cure: str = "") -> UpstreamFailure:
        return UpstreamFailure(kind, self.server, text, cure)

    async def line(self) -> bytes:
        """The next reply line, without its end."""
        if b"\n" not in self._held:
            await self._wait_for(b"\n")
        return self._cut()

    def _cut(self) -> bytes:
        """The first of what has come."""
        held = self._held
        end = held.find(b"\n")
        line = bytes(held[:end])
        del held[: end + 1]  # which copies nothing
        return line.removesuffix(b"\r")

    async def _wait_for(self, octets: bytes) -> None:
        """Until something is there, and these are in it. Without a timer of its own: see `net.sweep`."""
        loop = asyncio.get_running_loop()
        if self.timeout_s != math.inf:
            due = self._due = loop.time() + self.timeout_s
            slot = self.sweep_slot
            if not slot or due < (slot - 1) * SLOT_S:
                here().watch(self, due)
        try:
            while not self._held or octets not in self._held:
                if self.reads_slowly:
                    self.connection.resume_reading()
                if self.is_lost:
                    raise self.failure(UpstreamKind.LOST, "it closed the connection")
                if self._has_said_some:  # a part of what is waited for
                    self.connection.acknowledge_now()
                self._waiter = loop.create_future()
                await self._waiter
        finally:
            self._waiter, self._due = None, math.inf

    def look(self, now: float) -> float | None:
        """For the sweep: is an answer overdue? Where none is waited for, it is looked at as often as one that is asked for
        just then would have to be: so asking touches no timer."""
        if self.is_lost or self.pipe is not None or self.timeout_s == math.inf:
            return None
        if now < self._due:
            return min(self._due, now + self.timeout_s)
        if self._waiter is None or self._waiter.done():
            return now  # it has just come
        self._waiter.set_exception(self._timed_out())
        return None

    def _timed_out(self) -> UpstreamFailure:
        self.connection.abort()
        return self.failure(UpstreamKind.TIMEOUT, f"no answer in {self.timeout_s:g} s")

    async def replies(self) -> list[bytes]:
        """The lines of one SMTP-like reply, `250-` to `250 `. Once it has begun, all of it comes within one wait."""
        if b"\n" not in self._held:
            await self._wait_for(b"\n")
        lines = [self._cut()]
        if lines[0][3:4] == b"-":
            limit_s = None if self.timeout_s == math.inf else self.timeout_s
            try:
                async with asyncio.timeout(limit_s):
                    await self._more_lines(lines)
            except TimeoutError:
                raise self._timed_out() from None
        return lines

    async def _more_lines(self, lines: list[bytes]) -> None:
        while lines[-1][3:4] == b"-":
            lines.append(await self.line())
            if len(lines) > MAX_LINES:
                raise self.failure(UpstreamKind.PROTOCOL, "an endless reply")

    @property
    def has_said_more(self) -> bool:
        """Whether it has said what nobody has asked for: BYE, before it goes."""
        return bool(self._held)

    async def octets(self, most: int) -> bytes:
        """Some that come next, no more than that."""
        if not self._held:
            await self._wait_for(b"")
        octets = bytes(self._held[:most])
        del self._held[:most]
        return octets

    def send(self, octets: bytes) -> None:
        self._has_said_some = False
        self.connection.write(octets)

    async def drain(self) -> None:
        try:
            await self.connection.drain(self.timeout_s)
        except ConnectionError as error:
            raise self.failure(UpstreamKind.TIMEOUT, str(error)) from error

    def take_rest(self) -> bytes:
        rest, self._held = bytes(self._held), bytearray()
        return rest

    async def starttls(self, upstreams: Upstreams) -> None:
        """TLS, the peer having agreed. What came behind its agreement was injected (CVE-2011-0411)."""
        if self.take_rest():
            raise self.failure(UpstreamKind.PROTOCOL, "octets behind the answer to STARTTLS")
        await upstreams.starttls(self.connection, self.address)

    def close(self) -> None:
        self.connection.close()


async def open_lines(
    upstreams: Upstreams,
    server: str,
    protocol: ProtocolSpec,
    timeout_s: float,
    client: Connection | None,
) -> LineUpstream:
    """Connect, for a client where there is one; the greeting is not read yet."""
    origin = (client.peer, client.peer_port) if client is not None else None
    address = upstreams.address(server, protocol)
    return await open_lines_at(upstreams, address, protocol, timeout_s, origin)


async def open_lines_at(
    upstreams: Upstreams,
    address: Address,
    protocol: ProtocolSpec,
    timeout_s: float,
    origin: tuple[str, int] | None,
) -> LineUpstream:
    """The same, where it is known how the server is reached."""
    if protocol.implicit_key is None and address.tls == "implicit":
        text = f"{protocol.name.upper()} has no implicit TLS: set starttls"
        raise UpstreamFailure(UpstreamKind.TLS, address.server, text)
    upstream = LineUpstream(address, timeout_s)

    def receiver(connection: Connection) -> LineUpstream:
        upstream.connection = connection
        return upstream

    await upstreams.open_connection(address, receiver, origin)
    return upstream


async def prove(upstream: LineUpstream, proof: Proof, asks: bytes) -> bytes:
    """AUTH as POP3 and LMTP have it, to its end: the last line of the answer. `asks`: what a challenge begins with. Raises
    UpstreamFailure."""
    upstream.send(b"AUTH " + proof.mechanism + proof.first + b"\r\n")
    for _ in range(MAX_CHALLENGES):
        line = await upstream.line()
        if not line.startswith(asks):
            return line
        try:
            response = await proof.reply(line[len(asks) :])
        except ValueError:
            raise upstream.failure(
                UpstreamKind.PROTOCOL, "a challenge that is not base64"
            ) from None
        upstream.send(response + b"\r\n")
    raise upstream.failure(UpstreamKind.PROTOCOL, "an endless login")
