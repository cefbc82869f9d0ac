"""A client of an etcd cluster: calls with deadlines to one member after the other, logins, TLS. Knows nothing of lists.

It lives in an event loop of its own. A call goes to the member that answered last. Where that fails, or says nothing for
some tenths of a second, the next one is asked, until the time of the caller is up: so calls must be such that doing them
twice is no harm.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeVar

import h2.exceptions
from google.protobuf.message import DecodeError, Message
from grpclib.client import Stream
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from murder.errors import UpstreamFailure, UpstreamKind
from plugins.list_etcd.channel import BoundedChannel, TooLong
from plugins.list_etcd.etcd_pb2 import (
    AuthenticateRequest,
    AuthenticateResponse,
    MemberListRequest,
    MemberListResponse,
    RangeRequest,
    RangeResponse,
    StatusRequest,
    StatusResponse,
    TxnRequest,
    TxnResponse,
    WatchRequest,
    WatchResponse,
)
from plugins.list_etcd.settings import Endpoint, Settings

A = TypeVar("A", bound=Message)

# until another member is asked, too; and a second more for each MiB that is sent
SILENCE_S: Final = 0.4
# of silence, after which a connection is given up where another member has answered
ATTEMPT_S: Final = 1.0
PAUSE_S: Final = 0.05  # between two attempts
MIB: Final = 1 << 20
FAILURES: Final = (
    GRPCError,
    OSError,  # ssl.SSLError, TimeoutError, ConnectionError
    StreamTerminatedError,
    ProtocolError,
    h2.exceptions.ProtocolError,
    DecodeError,
    NotImplementedError,  # by these two grpclib tells frames that it does not read
    AssertionError,
)
# The member must know a leader, else it says at once that it does not: one that is cut off from the others would wait.
HAS_LEADER: Final = ("hasleader", "true")


class Method(NamedTuple):
    """What can be asked for. Without `needs_leader` a member answers for itself, also where it is cut off."""

    path: str
    request: type[Any]
    answer: type[Any]
    needs_leader: bool = True


RANGE: Final = Method("/etcdserverpb.KV/Range", RangeRequest, RangeResponse)
TXN: Final = Method("/etcdserverpb.KV/Txn", TxnRequest, TxnResponse)
WATCH: Final = Method("/etcdserverpb.Watch/Watch", WatchRequest, WatchResponse)
LOGIN: Final = Method("/etcdserverpb.Auth/Authenticate", AuthenticateRequest, AuthenticateResponse)
MEMBERS: Final = Method(
    "/etcdserverpb.Cluster/MemberList", MemberListRequest, MemberListResponse, False
)
STATUS: Final = Method("/etcdserverpb.Maintenance/Status", StatusRequest, StatusResponse, False)


class Denied(Exception):
    """etcd has said that it does not do this. `is_retry`: it was asked before, and that may be done yet."""

    def __init__(self, status: Status, text: str, *, is_retry: bool) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.is_retry = is_retry


def _is_certain(error: BaseException) -> bool:
    """Whether the server has answered that nothing was done, and will say so again."""
    if not isinstance(error, GRPCError):
        return False
    text = error.message or ""
    match error.status:
        case Status.RESOURCE_EXHAUSTED:
            return "too many requests" not in text
        case Status.INVALID_ARGUMENT | Status.OUT_OF_RANGE | Status.PERMISSION_DENIED:
            return True
        case Status.FAILED_PRECONDITION | Status.UNIMPLEMENTED | Status.NOT_FOUND:
            return True
    return False


def _wants_login(error: BaseException) -> bool:
    if not isinstance(error, GRPCError):
        return False
    text = error.message or ""
    return error.status is Status.UNAUTHENTICATED or any(
        words in text
        for words in ("invalid auth token", "user name is empty", "revision in header is old")
    )


def shown(error: BaseException) -> str:
    """What a failure says, in one line."""
    if isinstance(error, GRPCError):
        return error.message or error.status.name
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)
    return " ".join(str(error).split()) or type(error).__name__


def kind_of(error: BaseException) -> UpstreamKind:
    match error:
        case ssl.SSLError():
            return UpstreamKind.TLS
        case TimeoutError():
            return UpstreamKind.TIMEOUT
        case OSError():
            return UpstreamKind.CONNECT
        case GRPCError(status=Status.UNAUTHENTICATED | Status.PERMISSION_DENIED):
            return UpstreamKind.AUTH
        case GRPCError():
            return UpstreamKind.DOWN
        case DecodeError() | NotImplementedError() | AssertionError():
            return UpstreamKind.PROTOCOL
    return UpstreamKind.LOST


class _Asked:
    """The attempts of one call."""

    def __init__(
        self, ask: Callable[..., Coroutine[Any, Any, Any]], members: Sequence[Endpoint]
    ) -> None:
        """`members`: in the order in which they are asked."""
        self._ask = ask
        self._members = members
        self._waiting: dict[asyncio.Task[Any], tuple[Endpoint, float]] = {}
        self._last: tuple[Endpoint, BaseException] | None = None
        self.count = 0

    @property
    def slowness(self) -> int:
        """By which patience grows, once each of them has been asked twice and says nothing."""
        return 1 + len(self._waiting) // (2 * len(self._members))

    def add(self, method: Method, request: Message, left_s: float) -> None:
        """Ask the next one."""
        loop = asyncio.get_running_loop()
        endpoint = self._members[self.count % len(self._members)]
        task = loop.create_task(self._ask(endpoint, method, request, max(left_s, 0.05)))
        self._waiting[task] = (endpoint, loop.time())
        self.count += 1

    async def some(self, within_s: float) -> Sequence[tuple[Endpoint, Any]]:
        """Those that have ended first, with their answers or errors."""
        timeout = max(within_s, 0.0)
        ended, _ = await asyncio.wait(
            self._waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        return [(self._waiting.pop(task)[0], task.exception() or task.result()) for task in ended]

    def silent_for(self, seconds: float) -> Sequence[Endpoint]:
        before = asyncio.get_running_loop().time() - seconds
        return [endpoint for endpoint, since in self._waiting.values() if since <= before]

    def note_failure(self, endpoint: Endpoint, error: BaseException) -> None:
        """Silence at last says less than what somebody has said before."""
        if self._last is None or not isinstance(error, TimeoutError):
            self._last = (endpoint, error)

    def failure(self) -> UpstreamFailure:
        """What came last from anybody."""
        endpoint, error = self._last or (self._members[0], TimeoutError())
        text = f"etcd at {endpoint}: {shown(error)}"
        failure = UpstreamFailure(kind_of(error), "etcd", text)
        failure.__cause__ = error
        return failure

    def end(self) -> None:
        for task in self._waiting:
            task.cancel()
            task.add_done_callback(_is_over)


def _is_over(task: asyncio.Task[Any]) -> None:
    """Whatever has become of it."""
    if not task.cancelled():
        task.exception()


class Cluster:
    """See the module. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._endpoints = settings.members()
        self._channels: dict[Endpoint, BoundedChannel] = {}
        self._at = 0
        self._token = ""
        self._login = asyncio.Lock()

    @property
    def endpoint(self) -> Endpoint:
        """The one that is asked next."""
        return self._endpoints[self._at % len(self._endpoints)]

    def leave(self, endpoint: Endpoint) -> None:
        """It failed: ask another one from here on, and begin anew with this one later."""
        if endpoint == self.endpoint:
            self._at += 1
        channel = self._channels.pop(endpoint, None)
        if channel is not None:
            channel.close()

    def _channel(self, endpoint: Endpoint) -> BoundedChannel:
        channel = self._channels.get(endpoint)
        if channel is None:
            context = self._context() if endpoint.is_tls else None
            channel = BoundedChannel(
                endpoint.host,
                endpoint.port,
                ssl=context,
                most_octets=self._settings.max_message_bytes,
            )
            self._channels[endpoint] = channel
        return channel

    def _context(self) -> ssl.SSLContext:
        """Read anew for each connection: certificates are renewed while a node runs. Raises OSError."""
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.key)
        return context

    async def call(
        self, method: Method, request: Message, within_s: float, patience_s: float = 0.0
    ) -> Any:
        """Ask until somebody has answered. Who says nothing for a while (`patience_s`, at the least) is waited for, while
        the next one is asked, too: a proposal may have been lost with a leader. Raises Denied; UpstreamFailure where nobody
        has answered within that time: it may have been done, or be done a little later; TooLong, where less should be
        asked for."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        silence_s = max(patience_s, SILENCE_S) + request.ByteSize() / MIB
        at = self._at % len(self._endpoints)
        asked = _Asked(self.ask, [*self._endpoints[at:], *self._endpoints[:at]])
        try:
            while True:
                asked.add(method, request, end - loop.time())
                ended = await asked.some(min(end - loop.time(), silence_s * asked.slowness))
                for endpoint, answer in ended:
                    if not isinstance(answer, BaseException):
                        self._answers(endpoint, asked.silent_for(ATTEMPT_S))
                        return answer
                for endpoint, answer in ended:
                    asked.note_failure(endpoint, answer)
                    if isinstance(answer, GRPCError) and _is_certain(answer):
                        text, is_retry = shown(answer), asked.count > 1
                        raise Denied(answer.status, text, is_retry=is_retry) from answer
                    self.leave(endpoint)
                    if isinstance(answer, TooLong) or not isinstance(answer, FAILURES):
                        raise answer
                if loop.time() + PAUSE_S >= end:
                    raise asked.failure()
                if ended:
                    await asyncio.sleep(PAUSE_S)
        finally:
            asked.end()

    def _answers(self, endpoint: Endpoint, silent: Sequence[Endpoint]) -> None:
        """It is asked first from here on; who has said nothing for long is left."""
        for mute in silent:
            self.leave(mute)
        self._at = self._endpoints.index(endpoint)

    async def ask(
        self, endpoint: Endpoint, method: Method, request: Message, within_s: float
    ) -> Any:
        """Ask one member once; a second time where it wants a login. Raises FAILURES."""
        async with asyncio.timeout(within_s):
            try:
                return await self._ask(endpoint, method, request, within_s)
            except GRPCError as error:
                if not self._settings.user or not _wants_login(error):
                    raise
                await self._log_in(endpoint, self._token, within_s)
                return await self._ask(endpoint, method, request, within_s)

    async def _ask(
        self, endpoint: Endpoint, method: Method, request: Message, within_s: float
    ) -> Any:
        if self._settings.user and not self._token:
            await self._log_in(endpoint, "", within_s)
        async with self._stream(
            endpoint,
            method,
            Cardinality.UNARY_UNARY,
            within_s,
            [HAS_LEADER] if method.needs_leader else [],
        ) as stream:
            await stream.send_message(request, end=True)
            answer = await stream.recv_message()
        if answer is None:
            raise ProtocolError("no message came")
        return answer

    async def _log_in(self, endpoint: Endpoint, old_token: str, within_s: float) -> None:
        async with self._login:
            if self._token != old_token:
                return  # somebody else just has
            settings = self._settings
            request = AuthenticateRequest(name=settings.user, password=settings.password)
            self._token = ""
            async with self._stream(
                endpoint, LOGIN, Cardinality.UNARY_UNARY, within_s, []
            ) as stream:
                await stream.send_message(request, end=True)
                answer = await stream.recv_message()
            if answer is None:
                raise ProtocolError("no message came")
            self._token = answer.token

    @asynccontextmanager
    async def watch(self, endpoint: Endpoint, request: Message) -> AsyncIterator[Stream[Any, Any]]:
        """A stream of what happens, at one member, without an end of its own. Raises FAILURES."""
        async with self._stream(
            endpoint, WATCH, Cardinality.STREAM_STREAM, None, [HAS_LEADER]
        ) as stream:
            await stream.send_message(request)
            yield stream
            await stream.cancel()

    def _stream(
        self,
        endpoint: Endpoint,
        method: Method,
        cardinality: Cardinality,
        within_s: float | None,
        metadata: Sequence[tuple[str, str]],
    ) -> Stream[Any, Any]:
        words = [*metadata, ("token", self._token)] if self._token else [*metadata]
        return self._channel(endpoint).request(
            method.path,
            cardinality,
            method.request,
            method.answer,
            timeout=within_s,
            metadata=words,
        )

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
