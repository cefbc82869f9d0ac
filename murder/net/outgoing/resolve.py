"""Where named servers are: the system's resolver, asked beside the event loop.

It may wait for half a minute where a zone's servers are silent, and nobody can stop it. The loop's own threads for it are
four, for all: four such names, or four tries at one, and no other name has an address any more. So a name is looked up
once at a time, for all who want to connect there, in one of `AT_ONCE` threads that nobody waits for at the end. Where
there is no answer for now, a name has the addresses that it had last (RFC 8767).
"""

import asyncio
import functools
import ipaddress
import queue
import socket
import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary

from murder.log import logger

AT_ONCE: Final = 16  # names that are looked up; each may be one whose servers are silent
PATIENCE_S: Final = 1.0  # then where it was last is where it is
STALE_S: Final = 86400.0  # so long; RFC 8767 §5 has one to three days
MOST_NAMES: Final = 10_000  # that are remembered

Addresses = Sequence[str]
P = TypeVar("P", bound=asyncio.BaseProtocol)

log = logger()


@functools.lru_cache(1024)
def is_address(host: str) -> bool:
    """Whether it is an address itself, and nothing is to be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def look_up(host: str) -> Addresses:
    """All of a name, as the system prefers them; in a thread. Raises socket.gaierror, UnicodeError."""
    there = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in there))


class _Threads:
    """As many as there are look-ups under way, and no more than AT_ONCE. They end with the process, whatever they wait for:
    an executor's would be waited for."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._count = self._busy = 0

    def begin(self, work: Callable[[], None]) -> None:
        """Raises RuntimeError where none is there and none can be had now."""
        with self._lock:
            is_short = self._count < min(self._busy + 1, AT_ONCE)
            if is_short:
                try:
                    threading.Thread(target=self._run, name="resolve", daemon=True).start()
                    self._count += 1
                except RuntimeError:
                    if not self._count:
                        raise
            self._busy += 1
        self._work.put(work)

    def _run(self) -> None:
        while True:
            self._work.get()()
            with self._lock:
                self._busy -= 1


_threads: Final = _Threads()


class _Name:
    """What is known of one: where it was last, whether it is looked up, and who waits."""

    __slots__ = ("answered_at", "impatient", "is_asked", "is_stale", "last", "waiting")

    def __init__(self) -> None:
        self.last: Addresses = ()
        self.answered_at = 0.0
        self.is_asked = self.is_stale = False
        self.impatient: asyncio.TimerHandle | None = None  # None, while it is asked: for long
        self.waiting: list[asyncio.Future[Addresses]] = []


class Resolver:
    """One event loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._names: OrderedDict[str, _Name] = OrderedDict()

    def addresses(self, host: str) -> "asyncio.Future[Addresses]":
        """Those of a name. Its error: socket.gaierror, UnicodeError."""
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name()
            self._forget_some()
        future: asyncio.Future[Addresses] = self._loop.create_future()
        name.waiting.append(future)
        if not name.is_asked:
            name.is_asked = True
            try:
                _threads.begin(lambda: self._ask(host))
            except RuntimeError as error:
                trouble = socket.gaierror(socket.EAI_AGAIN, str(error))
                self._loop.call_soon(self._answered, host, trouble)
            name.impatient = self._loop.call_later(PATIENCE_S, self._wait_no_more, host, name)
        elif name.impatient is None:
            self._be_content(host, name)
        return future

    def _wait_no_more(self, host: str, name: _Name) -> None:
        name.impatient = None
        self._be_content(host, name)

    def _forget_some(self) -> None:
        """Of the longest known, if nobody looks them up."""
        while len(self._names) > MOST_NAMES:
            host, name = next(iter(self._names.items()))
            if name.is_asked:
                return
            del self._names[host]

    def _ask(self, host: str) -> None:
        """In a thread."""
        answer: Addresses | Exception
        try:
            answer = look_up(host)
        except Exception as error:  # noqa: BLE001 - the end of a look-up: who waits gets it
            answer = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._answered, host, answer)

    def _answered(self, host: str, answer: Addresses | Exception) -> None:
        name = self._names[host]
        name.is_asked = False
        if name.impatient is not None:
            name.impatient.cancel()
            name.impatient = None
        if not isinstance(answer, Exception):
            name.last, name.answered_at, name.is_stale = answer, self._loop.time(), False
        elif _is_for_now(answer):
            self._be_content(host, name)
        else:
            name.last = ()
        waiting, name.waiting = name.waiting, []
        for future in waiting:
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _be_content(self, host: str, name: _Name) -> None:
        """With where it was last."""
        if not name.last or self._loop.time() - name.answered_at >= STALE_S:
            return
        if not name.is_stale:
            name.is_stale = True
            log.warning("name.not_answered", host=host, addresses=list(name.last))
        waiting, name.waiting = name.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(name.last)


def _is_for_now(error: Exception) -> bool:
    """Nobody says that there is no such name."""
    return isinstance(error, socket.gaierror) and error.errno in (
        socket.EAI_AGAIN,
        socket.EAI_FAIL,
        socket.EAI_SYSTEM,
    )


# by loop, as tests have several
_resolvers: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Resolver]] = WeakKeyDictionary()


def resolver_of(loop: asyncio.AbstractEventLoop) -> Resolver:
    resolver = _resolvers.get(loop)
    if resolver is None:
        resolver = _resolvers[loop] = Resolver(loop)
    return resolver


async def addresses_of(host: str) -> Addresses:
    """All of a name in the running loop, as `Resolver.addresses`; an address is its own. Raises socket.gaierror,
    UnicodeError."""
    if is_address(host):
        return (host,)
    return await resolver_of(asyncio.get_running_loop()).addresses(host)


class _Streams(asyncio.StreamReaderProtocol):
    transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        super().connection_made(transport)


async def open_streams(
    host: str, port: int, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As `asyncio.open_connection`. Raises OSError, UnicodeError."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = _Streams(reader, loop=loop)
    await create_connection(
        loop, lambda: protocol, host, port, ssl=tls, server_hostname=host if tls else None
    )
    return reader, asyncio.StreamWriter(protocol.transport, protocol, reader, loop)


async def create_connection(
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], P],
    host: str,
    port: int,
    **words: Any,  # as `loop.create_connection` has them
) -> P:
    """As `loop.create_connection`, of which it tells the protocol; to a name: to the first of its addresses that takes it.
    It may be run without a task. Raises OSError (and so socket.gaierror), UnicodeError."""
    if is_address(host):
        _, made = await loop.create_connection(factory, host, port, **words)
        return made
    failure: OSError | None = None
    for address in await resolver_of(loop).addresses(host):
        try:
            _, made = await loop.create_connection(factory, address, port, **words)
            return made
        except ssl.SSLError:
            raise
        except OSError as error:
            failure = error
    raise failure or socket.gaierror(socket.EAI_NONAME, "no address")
