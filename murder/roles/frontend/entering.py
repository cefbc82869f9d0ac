"""A login on its way to its server in few steps, where nothing has to be asked: what every protocol has of it. A connection
that opens without a task, a place in the sweep for what takes too long, and an end that is told to the dialogue.

To an address, nothing waits until the connection stands: what comes next is the greeting, which the loop tells in any case,
and so it is one turn of it, and some system calls, less. That it stands is asked for only when the time for that is over.

What the server says is the protocol's (`multiplexor.express`, `pop3_express`), and the octets are no concern here.
"""

import asyncio
import errno
import functools
import os
import socket
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.connection import Connection, Receiver
from murder.net.outgoing.connect import failure_of
from murder.net.outgoing.resolve import create_connection, is_address
from murder.net.outgoing.upstream import Address
from murder.net.sweep import NOWHERE, SLOT_S, Sweep
from murder.roles.frontend.shared import Frontend

MOST_REMEMBERED: Final = 4096  # users, whose login's octets are the same each time
UNREACHED: Final = frozenset(  # a connection that never stood
    {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT}
)
UNDER_WAY: Final = frozenset({0, errno.EINPROGRESS})  # one that will, or will not
_STREAM: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


class Socket(socket.socket):
    """One that is handed to a loop at once: what a loop asks of it is answered in C."""

    _io_refs = 0  # in place of slots, which the constructor in Python fills
    _closed = False
    __init__ = socket.SocketType.__init__
    detach = socket.SocketType.detach
    # whose values are integers, too
    type = socket.SocketType.type  # type: ignore[assignment]  # an enumeration
    family = socket.SocketType.family  # type: ignore[assignment]  # likewise


class Dialogue(Protocol):
    """What is wanted of the client's."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def sweep(self) -> Sweep: ...
    @property
    def frontend(self) -> Frontend: ...


class Entering(Receiver):
    """The receiver of the connection to the server. `_is_over`: let in, failed or given up; nothing comes of it any more."""

    dialogue: Dialogue
    address: Address
    connection: Connection  # once there is one
    sweep_slot: int
    _opening: Coroutine[Any, Any, object]  # it, as the loop makes it
    _waited: asyncio.Future[Any] | None = None  # what that waits for
    _on_its_way: Socket | None = None  # until it is known whether it is connected
    _connect_due = 0.0

    def set_out(self) -> None:
        """Connect; the server is looked at no later than one that greets at once may take."""
        self.sweep_slot = NOWHERE
        self._has_connection = self._is_asked = self._is_over = False
        loop, limits = self.dialogue.loop, self.dialogue.frontend.config
        now = loop.time()
        connect_s, login_s = limits.connect_timeout_s, limits.upstream_login_timeout_s
        sweep, due = self.dialogue.sweep, now + (connect_s if connect_s < login_s else login_s)
        slot = int(due / SLOT_S) + 1
        if (ones := sweep.slots.get(slot)) is None:
            sweep.watch(self, due)
        else:  # the same
            self.sweep_slot = slot
            ones.add(self)
        address = self.address
        has_tls = address.tls == "implicit"
        where = None if has_tls else _socket_address(address.host, address.port)
        if where is not None:
            self._due, self._connect_due = now + login_s, now + connect_s
            make = functools.partial(Connection, self._met, may_have_tls=False)
            try:
                sock = Socket(where[0], _STREAM, socket.IPPROTO_TCP)
                refused = sock.connect_ex(where[1])
                if refused not in UNDER_WAY:
                    sock.close()
                    raise OSError(refused, os.strerror(refused))
                self._opening = loop.create_connection(make, sock=sock)
                self._waited = self._opening.send(None)
            except OSError as error:  # told in a later turn, as that it cannot be reached
                loop.call_soon(self._not_connected, error)
            else:
                self._on_its_way = sock
            return
        self._due = now + connect_s
        try:
            tls = self.dialogue.frontend.upstreams.context_to(address) if has_tls else None
        except UpstreamFailure as failure:
            loop.call_soon(self._not_begun, failure)
            return
        open_named = functools.partial(create_connection, loop)
        opening = (loop.create_connection if is_address(address.host) else open_named)(
            functools.partial(Connection, self._met, may_have_tls=has_tls),
            address.host,
            address.port,
            ssl=tls,
            server_hostname=address.tls_name if has_tls else None,
        )
        self._opening = opening
        self._go_on_connecting()

    def _take_over(self) -> None:
        """The server has said something, or it is over: what made the connection has its end."""
        self._on_its_way = None
        try:  # a line less than contextlib's three calls
            self._opening.send(None)
        except StopIteration:
            pass

    def _go_on_connecting(self, _: object = None) -> None:
        """As a task would, but in the turn of the loop that wants the connection: a task takes one more, in every session.
        That it cannot be is told in a later turn."""
        opening = self._opening
        try:
            # given up while what it waited for came about: nothing more is begun
            waited = (
                opening.throw(asyncio.CancelledError()) if self._is_over else opening.send(None)
            )
        except (StopIteration, asyncio.CancelledError):
            return
        except (OSError, UnicodeError) as error:  # the latter of a name that can be none
            self.dialogue.loop.call_soon(self._not_connected, error)
            return
        self._waited = waited
        waited._asyncio_future_blocking = False
        waited.add_done_callback(self._go_on_connecting)

    def _not_begun(self, failure: UpstreamFailure) -> None:
        if not self._is_over:
            self._break(failure)

    def _not_connected(self, error: OSError | UnicodeError) -> None:
        if self._is_over:
            return
        address = self.address
        if isinstance(error, UnicodeError):
            error = OSError(str(error))
        self._break(failure_of(error, address.host, address.port, address.server))

    def _met(self, connection: Connection) -> Receiver:
        self.connection, self._has_connection = connection, True
        return self

    # --- Receiver, of the server

    def begin(self) -> None:
        if self._is_over:
            self.connection.abort()
            return
        if self._on_its_way is None:
            dialogue = self.dialogue
            self._due = dialogue.loop.time() + dialogue.frontend.config.upstream_login_timeout_s

    def writable(self) -> None:
        """Nothing waits for that: a login has few octets."""

    def lost(self, error: Exception | None) -> None:
        if self._is_over:
            return
        if self._on_its_way is not None:
            self._take_over()
            if isinstance(error, OSError) and error.errno in UNREACHED:
                self._not_connected(error)
                return
        self._break(self.failure(UpstreamKind.LOST, "it closed the connection"))

    # --- Watched

    def look(self, now: float) -> float | None:
        """Whether the server has taken too long."""
        if self._is_over:
            return None
        limits, due = self.dialogue.frontend.config, self._due
        has_connection, sock = self._has_connection, self._on_its_way
        if sock is not None:
            has_connection = _is_connected(sock)
            if not has_connection:
                due = self._connect_due
                self._due = now + limits.upstream_login_timeout_s  # it stands later than this
        if now < due:
            return due
        if has_connection:
            text = f"no greeting and login within {limits.upstream_login_timeout_s:g} s"
            self._break(self.failure(UpstreamKind.TIMEOUT, text))
        else:
            text = f"no answer in {limits.connect_timeout_s:g} s"
            self._break(self.failure(UpstreamKind.CONNECT, text))
        return None

    # --- its end

    def failure(self, kind: UpstreamKind, text: str, cure: str = "") -> UpstreamFailure:
        return UpstreamFailure(kind, self.address.server, text, cure)

    def give_up(self) -> None:
        """The client has gone or is going, or the login has no good end."""
        self._is_over = True
        self.dialogue.sweep.forget(self)
        is_to_end = self._on_its_way is not None
        if self._has_connection:
            if is_to_end:
                self._take_over()
            self.connection.abort()
        elif self._waited is not None:
            if is_to_end:
                self._waited.add_done_callback(self._go_on_connecting)
            self._waited.cancel()

    def _break(self, failure: UpstreamFailure) -> None:
        """The server has failed, and others hear of it."""
        self.dialogue.frontend.upstreams.failed(failure)
        self._fail(failure)

    def _fail(self, failure: UpstreamFailure) -> None:
        """As a command that has failed."""
        raise NotImplementedError


@functools.lru_cache(maxsize=1024)
def _socket_address(host: str, port: int) -> tuple[int, tuple[str, int]] | None:
    """Its family, and as a socket connects to it; None of what is to be looked up."""
    if not is_address(host) or "%" in host:
        return None
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, port)


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
