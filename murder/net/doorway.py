"""What stands before a session: the PROXY header of a load balancer, and TLS where it is implicit.

Sockets are accepted here one by one, so that who comes is counted before a handshake costs anything: one that says nothing
is a socket and a timer, and no TLS, until its first octet is there. Only addresses of the trusted networks are asked for a
PROXY header, and must give it; from anybody else it is no header. Not one octet more is read than the header has (what
follows may be TLS).
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final, Protocol

from murder.config.value import Network, contains
from murder.errors import BadSyntax
from murder.log import logger
from murder.net.connection import TLS_HANDSHAKE_S, Connection, Receiver
from murder.net.handshakes import HANDSHAKES
from murder.net.seldom import TLS_FAILURES, why_no_tls
from murder.wire.haproxy import octets_wanted, parse_header

HEADER_S: Final = 5.0  # for the header to come
ACCEPTS: Final = 16  # in one turn of the loop
FULL_PAUSE_S: Final = 1.0  # where the process has no more files
MAX_REFUSED: Final = 100  # refusals that are being said; who comes beyond is just closed
OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logger()


class Host(Protocol):
    """Who the door belongs to."""

    @property
    def tls(self) -> ssl.SSLContext | None: ...

    @property
    def balancers(self) -> tuple[Network, ...]: ...

    def meet(self, who: "Arrival", peer: str) -> bool:
        """Whether there is room for one more from there; it is counted then."""
        ...

    def turn_away(self, arrival: "Arrival") -> None:
        """It was met, and has not come to a session."""
        ...

    def admit(self, connection: Connection, arrival: "Arrival") -> Receiver:
        """It was met, and the connection stands."""
        ...

    def refuse(self, connection: Connection) -> Receiver:
        """It was not let in: say so."""
        ...

    def forget(self, connection: Connection) -> None:
        """An admitted one is over."""
        ...


class Doorway:
    """One listening socket's."""

    def __init__(self, sock: socket.socket, host: Host, backlog: int) -> None:
        self._sock = sock
        self.host = host
        self._backlog = backlog
        self._loop = asyncio.get_running_loop()
        self._is_open = False
        self.arrivals: set[Arrival] = set()
        self.refused = 0

    def open(self) -> None:
        self._sock.setblocking(False)
        self._sock.listen(self._backlog)
        self._is_open = True
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def close(self) -> None:
        """Take no more; who has come comes in."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def abort(self) -> None:
        for arrival in list(self.arrivals):
            arrival.abort()

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_FILES:
                    raise
                log.warning("connection.not_accepted", problem=error.strerror)
                self._loop.remove_reader(self._sock.fileno())
                self._loop.call_later(FULL_PAUSE_S, self._accept_again)
                return
            sock.setblocking(False)
            arrival = Arrival(self, sock, str(address[0]), int(address[1]))
            self.arrivals.add(arrival)
            arrival.begin()

    def _accept_again(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._sock.fileno(), self._accept)


class Arrival:
    """Somebody between the socket and the session."""

    __slots__ = (
        "_door",
        "_header",
        "_is_admitted",
        "_is_met",
        "_is_refused",
        "_loop",
        "_port",
        "_sock",
        "_task",
        "_timer",
        "peer",
    )

    def __init__(self, door: Doorway, sock: socket.socket, peer: str, port: int) -> None:
        self._door = door
        self._sock = sock
        self.peer, self._port = peer, port
        self._header = b""
        self._is_met = self._is_refused = self._is_admitted = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        if self._door.host.balancers and contains(self._door.host.balancers, self.peer):
            self._wait(HEADER_S, self._read_header)
        else:
            self._known_by_address()

    def abort(self) -> None:
        """In whatever state."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._end()

    def _wait(self, limit_s: float, then: Callable[[], None]) -> None:
        """For octets."""
        self._timer = self._loop.call_later(limit_s, self.abort)
        self._loop.add_reader(self._sock.fileno(), then)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._loop.remove_reader(self._sock.fileno())

    def _read_header(self) -> None:
        try:
            while wanted := octets_wanted(self._header):
                octets = self._sock.recv(wanted)
                if not octets:
                    self._end()
                    return
                self._header += octets
            origin = parse_header(self._header)
        except (BlockingIOError, InterruptedError):
            return
        except BadSyntax as error:
            log.info("connection.protocol_error", peer=self.peer, problem=str(error))
            self._end()
            return
        except OSError:
            self._end()
            return
        self._header = b""
        self._wait_no_more()
        if origin.address:
            self.peer, self._port = origin.address, origin.port
        self._known_by_address()

    def _known_by_address(self) -> None:
        """Who it is has been said: is there room for them?"""
        self._is_met = self._door.host.meet(self, self.peer)
        if not self._is_met:
            if self._door.refused >= MAX_REFUSED:
                self._end()
                return
            self._is_refused = True
            self._door.refused += 1
        if self._door.host.tls is not None:
            self._wait(TLS_HANDSHAKE_S, self._go_in)
        else:
            self._go_in()

    def _go_in(self) -> None:
        self._wait_no_more()
        if self._door.host.tls is not None and self._has_gone():
            self._end()  # without a handshake that would only find it out
            return
        self._task = self._loop.create_task(self._stand())

    async def _stand(self) -> None:
        """Put transport and TLS under a connection."""
        tls = self._door.host.tls
        is_ours = True
        try:
            async with HANDSHAKES.one(self.peer) if tls is not None else contextlib.nullcontext():
                is_ours = False
                await self._loop.connect_accepted_socket(
                    lambda: Connection(self._make_receiver, self._door.host.forget),
                    self._sock,
                    ssl=tls,
                    ssl_handshake_timeout=TLS_HANDSHAKE_S if tls is not None else None,
                )
        except TimeoutError:
            self._note("too many handshakes from there at once")
        except OSError as error:
            self._note(why_no_tls(error))
        finally:
            self._end(is_socket_ours=is_ours)

    def _note(self, problem: str) -> None:
        facts = TLS_FAILURES.facts()
        if facts is not None:
            log.info("tls.failed", peer=self.peer, problem=problem, **facts)

    def _has_gone(self) -> bool:
        """What was readable is the end."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _make_receiver(self, connection: Connection) -> Receiver:
        connection.peer, connection.peer_port = self.peer, self._port
        if not self._is_met:
            return self._door.host.refuse(connection)
        self._is_admitted = True
        return self._door.host.admit(connection, self)

    def _end(self, *, is_socket_ours: bool = True) -> None:
        """Nothing more is done here; called once or again."""
        if self not in self._door.arrivals:
            return
        self._door.arrivals.discard(self)
        self._wait_no_more()
        if self._is_met and not self._is_admitted:
            self._door.host.turn_away(self)
        if self._is_refused:
            self._door.refused -= 1
        if is_socket_ours:
            with contextlib.suppress(OSError):
                self._sock.close()
