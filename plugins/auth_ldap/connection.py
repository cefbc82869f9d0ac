"""A connection to a directory: TLS, requests by number, many at a time; what goes wrong in a sentence with the cure."""

import asyncio
import itertools
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from murder.api.addresses import at_an_address
from murder.errors import UpstreamFailure, UpstreamKind, why_not_believed
from plugins.auth_ldap import messages
from plugins.auth_ldap.ber import Malformed, whole_length
from plugins.auth_ldap.messages import Entry, Message, Result
from plugins.auth_ldap.policy import CONTROL

MAX_MESSAGE: Final = 1 << 20  # octets; someone in 500 groups with the longest names has 130 kB
MAX_REFERENCES: Final = 100  # to other servers, and what comes between, in the answer to one search


@dataclass(frozen=True, slots=True)
class Server:
    """One of the directory's."""

    host: str
    port: int
    is_tls: bool
    start_tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ldaps' if self.is_tls else 'ldap'}://{host}:{self.port}"


class _Waiting:
    """A request that is under way."""

    def __init__(self, most: int) -> None:
        self.entries: list[Entry] = []
        self.most = most  # that were asked for
        self.beside = 0
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()


class Connection(asyncio.Protocol):
    """See the module. Raises UpstreamFailure from everything that asks."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_lost = False
        self.was_used = False  # so that it may have died since
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._why = "it closed the connection"
        self.elsewhere = ""  # a reference to another server, where a search has met one

    # --- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            while (length := whole_length(self._data)) is not None:
                if length > MAX_MESSAGE:
                    raise Malformed(f"a message of {length} octets")
                if len(self._data) < length:
                    break
                octets = bytes(self._data[:length])
                del self._data[:length]
                self._take(messages.parse_message(octets))
        except (Malformed, ValueError) as error:
            self._end(UpstreamKind.PROTOCOL, f"it does not speak LDAP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(UpstreamKind.LOST, f"{exc}" if exc else self._why)

    def _take(self, message: Message) -> None:
        if message.number == messages.NOTICE_OF_DISCONNECTION:
            self._why = f"it closes the connection: {message.value}"
            self._end(UpstreamKind.LOST, self._why)
            return
        waiting = self._waiting.get(message.number)
        if waiting is None or waiting.done.done():
            raise Malformed("an answer that nobody has asked for")
        if isinstance(message.value, Entry):
            if len(waiting.entries) >= waiting.most:
                raise Malformed("more entries than were asked for")
            waiting.entries.append(message.value)
        elif isinstance(message.value, Result):
            waiting.done.set_result(message.value)
        else:
            waiting.beside += 1
            self.elsewhere = message.value or self.elsewhere
            if waiting.beside > MAX_REFERENCES:
                raise Malformed("references without end")

    def _end(self, kind: UpstreamKind, text: str) -> None:
        self.is_lost = True
        self._data.clear()
        for waiting in self._waiting.values():
            if not waiting.done.done():
                waiting.done.set_exception(UpstreamFailure(kind, str(self.server), text))
                waiting.done.exception()  # who has stopped waiting does not hear of it
        self.close()

    # --- what is asked

    async def ask(
        self, operation: bytes, *controls: bytes, most: int = 0
    ) -> tuple[Result, list[Entry]]:
        """Send a request and wait for its end, and `most` entries before it."""
        if self.is_lost or self._transport is None:
            raise UpstreamFailure(UpstreamKind.LOST, str(self.server), self._why)
        number, waiting = next(self._numbers), _Waiting(most)
        self._waiting[number] = waiting
        try:
            self._transport.write(messages.format_request(number, operation, *controls))
            result = await waiting.done
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self.close()  # its answer would come some time
            raise
        finally:
            del self._waiting[number]
        return result, waiting.entries

    async def bind(self, name: str, password: bytes) -> Result:
        """Become somebody, or hear why not. An empty password is no bind at all (RFC 4513 §5.1.2), and never sent so."""
        if name and not password:
            raise AssertionError("an empty password reached the directory")
        result, _ = await self.ask(
            messages.bind_request(name.encode("utf-8", "surrogateescape"), password), CONTROL
        )
        return result

    async def search(
        self,
        base: str,
        scope: int,
        encoded_filter: bytes,
        attributes: Sequence[str],
        most: int,
        time_s: int,
    ) -> tuple[Result, list[Entry]]:
        return await self.ask(
            messages.search_request(base, scope, encoded_filter, attributes, most, time_s),
            most=most,
        )

    def close(self) -> None:
        self.is_lost = True
        if self._transport is not None:
            if not self._transport.is_closing():
                self._transport.write(
                    messages.format_request(next(self._numbers), messages.unbind_request())
                )
            self._transport.close()

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        try:
            result, _ = await self.ask(messages.start_tls_request())
        except UpstreamFailure as failure:
            text = f"{failure.text}, asked for StartTLS; is {self.server.port} its port for ldaps://? Say so, then"
            raise UpstreamFailure(failure.kind, failure.server, text) from None
        if result.code != messages.SUCCESS:
            cure = "use ldaps://, give the server a certificate, or, on this host alone, starttls = false"
            text = f"it does no StartTLS: {result}; {cure}"
            raise UpstreamFailure(UpstreamKind.TLS, str(self.server), text)
        if self._data or self._transport is None:  # in plain text behind it: injected
            raise UpstreamFailure(UpstreamKind.TLS, str(self.server), "more came before TLS began")
        self._transport.pause_reading()
        transport = await asyncio.get_running_loop().start_tls(
            self._transport, self, context, server_hostname=self.server.host
        )
        if transport is None:
            raise ConnectionResetError("it closed the connection")
        self._transport = transport


async def connect(server: Server, context: ssl.SSLContext, timeout_s: float) -> Connection:
    """A connection with TLS as the server's address says. Raises UpstreamFailure."""
    connection: Connection | None = None

    async def open_at(address: str) -> Connection:
        _, made = await asyncio.get_running_loop().create_connection(
            lambda: Connection(server),
            address,
            server.port,
            ssl=context if server.is_tls else None,
            server_hostname=server.host if server.is_tls else None,
        )
        return made

    try:
        async with asyncio.timeout(timeout_s):
            connection = await at_an_address(server.host, open_at)
            if server.start_tls:
                await connection._start_tls(context)
    except BaseException as error:
        if connection is not None:
            connection.close()
        failure = failure_of(error, server, timeout_s)
        if failure is None:
            raise
        raise failure from None
    return connection


def failure_of(error: BaseException, server: Server, timeout_s: float) -> UpstreamFailure | None:
    """An error of the system's in words, with the cure behind a semicolon."""
    name = str(server)
    match error:
        case ssl.SSLCertVerificationError():
            cure = "put its authority's certificate into plugins.auth_ldap.ca, and call it by the name in its certificate"
            text, cure = why_not_believed(error, cure)
            return UpstreamFailure(UpstreamKind.TLS, name, f"{text}; {cure}")
        case ssl.SSLError():
            text = f"TLS failed: {error.reason or error}; is that its port for ldaps://?"
            return UpstreamFailure(UpstreamKind.TLS, name, text)
        case TimeoutError():
            text = f"no answer in {timeout_s:g} s; does it run? a firewall between?"
            return UpstreamFailure(UpstreamKind.TIMEOUT, name, text)
        case socket.gaierror():
            text = f"{_why(error)}; put its name into DNS or /etc/hosts, or set plugins.auth_ldap.servers"
            return UpstreamFailure(UpstreamKind.CONNECT, name, text)
        case OSError() if server.is_tls and not _why(error):  # it hung up in the handshake
            text = (
                f"no TLS is spoken there; is {server.port} its port for ldaps://? Else say ldap://"
            )
            return UpstreamFailure(UpstreamKind.TLS, name, text)
        case OSError():
            text = f"{_why(error)}; does it run there? is plugins.auth_ldap.servers right?"
            return UpstreamFailure(UpstreamKind.CONNECT, name, text)
    return None


def _why(error: OSError) -> str:
    """In the system's words; asyncio has its own, which say less."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
