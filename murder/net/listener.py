"""Accepting connections on sockets that somebody else has bound; counting them; draining.

The supervisor binds (low ports, one socket a worker); a worker listens here and hands each connection to its service.
Plain listeners leave accepting to the loop; where something stands before the session (TLS, a balancer's header) a
`Doorway` does it, and counts who comes before that costs anything.
"""

import asyncio
import functools
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from murder.config.value import Network, contains
from murder.log import logger
from murder.net.connection import Connection, Receiver
from murder.net.doorway import Arrival, Doorway
from murder.net.ended import Ended
from murder.net.shared_counter import TOTAL, Counts, SharedCounter, Total, place_of

REFUSED_S: Final = 5.0  # for who is refused to go
SAID_S: Final = 10.0  # a limit that is reached is logged once in this time
LOGIN_S: Final = 5.0  # who does not log in within it makes room for another where all is full
MAX_NODES: Final = 1000  # addresses that nodes of the murder have come from

_total_at, _put_total = TOTAL.unpack_from, TOTAL.pack_into

Service = Callable[[Connection], Receiver]

log = logger()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a listener allows: `max_connections` in all, `max_per_address` from one address (0: no limit), and of those
    `max_strangers` who have not logged in. `refusal` is sent to whoever comes beyond. `receive_octets`: see ProtocolSpec."""

    max_connections: int = 10_000
    max_per_address: int = 0
    refusal: bytes = b""
    backlog: int = 1024
    balancers: tuple[Network, ...] = ()  # who must begin with a PROXY header
    max_strangers: int = 0
    trusted: tuple[Network, ...] = ()  # whom limits by address do not bind
    receive_octets: int = 0


def came_from(connection: Connection) -> str:
    """The address that a connection is counted by: a proxy's, whoever it speaks for."""
    return connection.peer if connection.through is None else connection.through[0]


class Stranger(Protocol):
    """Somebody who has not logged in."""

    def abort(self) -> None: ...


class Guests:
    """Who is here, by address, over all listeners of a role in this process, and with `counts` in all its workers. Of
    strangers each worker has its share."""

    def __init__(self, counts: Counts | None = None) -> None:
        self._from_address = SharedCounter(counts.addresses() if counts is not None else None)
        self._total = Total(counts)
        self._workers = counts.workers if counts is not None else 1
        self._strangers_from: dict[str, int] = {}
        self._nodes: dict[str, None] = {}
        self._strangers: dict[
            Stranger, tuple[str, float]
        ] = {}  # place and time; the longest here first
        # the client has logged in; in a step, as each session comes here
        self.known: Callable[[Connection], None] = functools.partial(self.no_stranger, is_in=True)

    def enter(self, who: Stranger, peer: str, bounds: Bounds) -> str:
        """One more, a stranger as yet; or the key of the limit that forbids it."""
        place = place_of(peer) if ":" in peer else peer
        is_bound = not (bounds.trusted and contains(bounds.trusted, peer))
        there = self._strangers_from.get(place, 0)
        if (
            is_bound
            and bounds.max_strangers
            and there >= (bounds.max_strangers // self._workers or 1)
        ):
            if place not in self._nodes:
                return "max_strangers_per_address"
        counted = self._total  # as `Total.enter`, in a call less
        total = counted.here = counted.here + 1
        memory = counted.memory
        if memory is not None:
            _put_total(memory, counted.own, total)
            total = 0
            for at in counted.places:
                total += _total_at(memory, at)[0]
        if total > bounds.max_connections:
            counted.leave()
            if not self._has_made_room(bounds):
                return "max_connections"
        if not self._from_address.enter(place, bounds.max_per_address if is_bound else 0):
            self._total.leave()
            return "max_connections_per_address"
        self._strangers_from[place] = there + 1
        self._strangers[who] = place, time.monotonic()
        return ""

    def _has_made_room(self, bounds: Bounds) -> bool:
        """Where all is full, whoever has been here longest without a login goes."""
        longest, (_, when) = next(iter(self._strangers.items()), (None, ("", 0.0)))
        if longest is None or time.monotonic() - when < LOGIN_S:
            return False
        self.no_stranger(longest)
        longest.abort()
        return self._total.enter(bounds.max_connections + 1)  # it is counted until it has gone

    def goes_on_as(self, who: Stranger, connection: Stranger) -> None:
        """A stranger's connection stands."""
        noted = self._strangers.pop(who, None)
        if noted is not None:
            self._strangers[connection] = noted

    def is_nodes(self, peer: str) -> None:
        """A node of the murder has logged in from there: many may come at once."""
        if (place := place_of(peer)) not in self._nodes:
            if len(self._nodes) >= MAX_NODES:
                del self._nodes[next(iter(self._nodes))]
            self._nodes[place] = None

    def leave(self, who: Stranger, peer: str) -> None:
        if who in self._strangers:
            self.no_stranger(who)
        counted = self._total  # as `Total.leave`
        counted.here -= 1
        if counted.memory is not None:
            _put_total(counted.memory, counted.own, counted.here)
        self._from_address.leave(place_of(peer) if ":" in peer else peer)

    def no_stranger(self, who: Stranger, is_in: bool = False) -> None:
        """The client has logged in (`is_in`), or has gone."""
        noted = self._strangers.pop(who, None)
        if noted is not None:
            place = noted[0]
            left = self._strangers_from.get(place, 0) - 1
            if left > 0:
                self._strangers_from[place] = left
            else:
                self._strangers_from.pop(place, None)
        if is_in and isinstance(who, Connection):
            certificate = who.certificate
            if certificate is not None and certificate.roles:
                self.is_nodes(came_from(who))

    def publish(self) -> None:
        """There is a limit by address (now)."""
        self._from_address.publish()


class Listener:
    """One listening socket with its service; `tls` makes it implicit TLS. `guests` is shared with the worker's other
    listeners."""

    def __init__(
        self,
        sock: socket.socket,
        service: Service,
        bounds: Bounds,
        tls: ssl.SSLContext | None = None,
        guests: Guests | None = None,
    ) -> None:
        self._sock = sock
        self._service = service
        self._bounds = bounds
        self.tls = tls
        self._server: asyncio.AbstractServer | None = None
        self._doorway: Doorway | None = None
        self.connections: set[Connection] = set()
        self._guests = guests or Guests()
        self.balancers = bounds.balancers
        self._stopped = False
        # while somebody traces
        self.watch: Callable[[Connection, Receiver], Receiver] | None = None
        self._said_at = -SAID_S
        self._unsaid = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._bounds.receive_octets:
            # Connections have it from this socket. Were it set on theirs, the peer would have been promised more already:
            # on the loopback it then sends segments that find no room, and each waits for a timer
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._bounds.receive_octets)
        if self.tls is not None or self.balancers:
            self._doorway = Doorway(self._sock, self, self._bounds.backlog)
            self._doorway.open()
            return
        self._server = await loop.create_server(
            functools.partial(Connection, self._come, self.forget, may_have_tls=False),
            sock=self._sock,
            backlog=self._bounds.backlog,
        )
        if self._stopped:  # meanwhile
            self._server.close()

    def renew(self, tls: ssl.SSLContext | None) -> None:
        """Another context, for handshakes from now on."""
        if self.tls is not None and tls is not None:
            self.tls = tls

    def configure(self, service: Service, bounds: Bounds) -> None:
        """For connections from now on. Whether there are balancers at all is decided at the start."""
        self._service, self._bounds = service, bounds
        if self.balancers:
            self.balancers = bounds.balancers or self.balancers

    def _come(self, connection: Connection) -> Receiver:
        """A plain connection: `meet`, in one step less."""
        if self._stopped:
            return self.refuse(connection)
        limit = self._guests.enter(connection, connection.peer, self._bounds)
        if limit:
            self._say_full(limit, connection.peer)
            return self.refuse(connection)
        self.connections.add(connection)  # as `_serve`
        connection.on_known = self._guests.known
        receiver = self._service(connection)
        return receiver if self.watch is None else self.watch(connection, receiver)

    # --- for the doorway

    def meet(self, who: Stranger, peer: str) -> bool:
        """Whether there is room for one more from there; it is counted then."""
        if self._stopped:  # it was accepted in the turn of the loop before
            return False
        limit = self._guests.enter(who, peer, self._bounds)
        if limit:
            self._say_full(limit, peer)
        return not limit

    def turn_away(self, arrival: Arrival) -> None:
        """It was met, and has not come to a session."""
        self._guests.leave(arrival, arrival.peer)

    def admit(self, connection: Connection, arrival: Arrival) -> Receiver:
        """It was met, and the connection stands."""
        self._guests.goes_on_as(arrival, connection)
        return self._serve(connection)

    def _serve(self, connection: Connection) -> Receiver:
        self.connections.add(connection)
        if connection.is_tls:
            connection.is_a_strangers(self._guests.known)
        else:
            connection.on_known = self._guests.known
        receiver = self._service(connection)
        return receiver if self.watch is None else self.watch(connection, receiver)

    def refuse(self, connection: Connection) -> Receiver:
        """It was not let in: says why, and closes."""
        return _Refused(connection, self._bounds.refusal)

    def forget(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.discard(connection)
            through = connection.through  # as `came_from`
            self._guests.leave(connection, connection.peer if through is None else through[0])

    def _say_full(self, limit: str, peer: str) -> None:
        """Once in a while: who is refused may come ten thousand times a second."""
        now = asyncio.get_running_loop().time()
        self._unsaid += 1
        if now - self._said_at >= SAID_S:
            log.warning("connection.refused", limit=limit, peer=peer, count=self._unsaid)
            self._said_at, self._unsaid = now, 0

    # --- the end

    def stop_accepting(self) -> None:
        self._stopped = True
        self.let_go()

    def let_go(self) -> None:
        """Take no more from this socket; whoever came by it stays."""
        if self._server is not None:
            self._server.close()
        if self._doorway is not None:
            self._doorway.close()

    def abort(self) -> None:
        """Cut off whoever is still there."""
        if self._doorway is not None:
            self._doorway.abort()
        for connection in list(self.connections):
            connection.abort()


class _Refused(Ended):
    """Says that there is no room, and closes."""

    __slots__ = ("_connection", "_refusal")

    def __init__(self, connection: Connection, refusal: bytes) -> None:
        self._connection = connection
        self._refusal = refusal

    def begin(self) -> None:
        self._connection.write(self._refusal)
        self._connection.finish()
        asyncio.get_running_loop().call_later(REFUSED_S, self._connection.abort)
