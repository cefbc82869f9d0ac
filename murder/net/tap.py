"""What passes on the connections of a user, for who traces them: nothing here is used while nobody does.

A tap stands between a connection and both its ends. Whose connection it is shows only at its login; until then what
passes is kept, a little of it, and told when the user turns out to be one that is asked for, let in or refused. What
could be a password is left out: before a login the client's lines are shown only where they are known to hold none.
"""

import asyncio
import contextlib
import functools
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, cast, runtime_checkable
from weakref import WeakKeyDictionary

from murder.net.connection import Connection, HalfCloses, Receiver
from murder.wire.nodes.control_answers import SessionShown, Traced

MAX_LINES: Final = 10_000  # that wait to be told; more are left out
MAX_SHOWN: Final = 2000  # octets of one read or write
MAX_KEPT_LINES: Final = 40  # of a connection before its login: more than any client says there
MAX_KEPT_OCTETS: Final = 8 * 1024
# whose login is awaited: 8 MiB at most; more are traced from their login on
MAX_KEPT_CONNECTIONS: Final = 1000
_SECRET: Final = re.compile(rb"(?i)(\b(?:LOGIN|AUTHENTICATE|AUTH|PASS)\b).*")
_HARMLESS: Final = re.compile(
    rb"(?i)(?:[^ ]{1,64} )?(?:CAPABILITY|NOOP|STARTTLS|LOGOUT|ID|CAPA|STLS|QUIT|LHLO|XCLIENT|COMPRESS|ENABLE)(?: .*)?"
)
_VERB: Final = re.compile(rb"(?i)((?:[^ ]{1,64} )?(?:LOGIN|AUTHENTICATE|AUTH|USER|PASS|APOP)\b).*")
_GOES_ON: Final = (b"+ ", b"334 ", b"+\r")  # the server wants more of a login


@runtime_checkable
class HasUser(Protocol):
    """A session that can say whose it is."""

    def describe(self) -> SessionShown: ...


class Traces:
    """All traces in one process, and the taps that stand for them."""

    def __init__(self) -> None:
        self._asked: dict[asyncio.Queue[Traced], str] = {}
        self._taps: WeakKeyDictionary[Connection, Tap] = WeakKeyDictionary()

    def begin(self, user: str) -> "asyncio.Queue[Traced]":
        """Where the lines of this user will come."""
        lines: asyncio.Queue[Traced] = asyncio.Queue(MAX_LINES)
        self._asked[lines] = user
        return lines

    def end(self, lines: "asyncio.Queue[Traced]") -> bool:
        """Whether others go on; with the last trace all taps go."""
        self._asked.pop(lines, None)
        if not self._asked:
            for tap in list(self._taps.values()):
                tap.remove()
            self._taps.clear()
        return bool(self._asked)

    def watch(self, connection: Connection, receiver: Receiver) -> Receiver:
        """A new connection: its receiver from now on."""
        awaited = sum(not tap.user for tap in self._taps.values())
        if not self._asked or awaited >= MAX_KEPT_CONNECTIONS:
            return receiver
        tap = self._taps[connection] = Tap(self, connection, receiver)
        return tap

    def look(self, connections: Iterable[Connection]) -> None:
        """At those of a user who is asked for: each has its tap."""
        for connection in connections:
            tap = self._taps.get(connection)
            if tap is None:
                tap = self._taps[connection] = Tap(self, connection, connection.receiver)
            tap.stand()

    def asks_for(self, user: str) -> bool:
        return user in self._asked.values()

    def drop(self, connection: Connection) -> None:
        """It is another's."""
        tap = self._taps.pop(connection, None)
        if tap is not None:
            tap.remove()

    def put(self, user: str, line: Traced) -> None:
        for lines, asked in self._asked.items():
            if asked == user:
                with contextlib.suppress(asyncio.QueueFull):
                    lines.put_nowait(line)


class Between:
    """Stands between a connection and the receiver that is meant, and passes on what is no octets."""

    receiver: Receiver

    def begin(self) -> None:
        self.receiver.begin()

    def writable(self) -> None:
        self.receiver.writable()

    def input_ended(self) -> bool:
        return isinstance(self.receiver, HalfCloses) and self.receiver.input_ended()


class Overheard:
    """A transport whose writes are told, before they are written."""

    def __init__(self, transport: asyncio.Transport, heard: Callable[[bytes], None]) -> None:
        self.untapped = transport
        self._heard = heard

    def write(self, data: bytes) -> None:
        self._heard(bytes(data))
        self.untapped.write(data)

    def writelines(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self.write(piece)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.untapped, name)


class Tap(Between):
    """Stands between a connection and both its ends, and tells what passes."""

    def __init__(self, traces: Traces, connection: Connection, receiver: Receiver) -> None:
        self._traces = traces
        self._connection = connection
        self.receiver = receiver
        self._kept: deque[Traced] = deque(maxlen=MAX_KEPT_LINES)
        self._kept_octets = 0
        self._unfinished = b""  # of the client's present line
        self._is_secret = False  # the client is inside a login
        self._refused = ""  # who it was that has just been refused
        self._wrap()

    @property
    def user(self) -> str:
        """Empty before the login."""
        receiver = behind_tap(self.receiver)
        return receiver.describe().user if isinstance(receiver, HasUser) else ""

    def stand(self) -> None:
        """Between both ends again, where somebody has taken the connection over, or TLS was put under it."""
        if self._connection.receiver is not self:
            self.receiver = self._connection.receiver
            self._connection.receiver = self
        self._wrap()

    def _wrap(self) -> None:
        transport = self._connection.transport
        if not isinstance(transport, _TappedTransport):
            tapped = _TappedTransport(transport, functools.partial(self.tell, "S"))
            self._connection.transport = cast(asyncio.Transport, tapped)

    def remove(self) -> None:
        if self._connection.receiver is self:
            self._connection.receiver = self.receiver
        transport = self._connection.transport
        if isinstance(transport, _TappedTransport):
            self._connection.transport = transport.untapped

    def tell(self, who: str, data: bytes) -> None:
        user = self.user
        if not user:
            self._keep(who, data)
            return
        if not self._traces.asks_for(user):
            self._traces.drop(self._connection)
            return
        while self._kept:
            self._traces.put(user, self._kept.popleft())
        self._kept_octets = 0
        self._traces.put(
            user, self._line(who, _SECRET.sub(rb"\1 ***", data[:MAX_SHOWN]), len(data))
        )

    def login_failed(self, user: str) -> None:
        """Somebody was refused who called themselves so: what has passed is theirs, with the answer that follows."""
        self._refused = user if self._traces.asks_for(user) else ""
        self._tell_kept()

    def _tell_kept(self) -> None:
        if self._refused:
            while self._kept:
                self._traces.put(self._refused, self._kept.popleft())
            self._kept_octets = 0

    def _line(self, who: str, octets: bytes, size: int) -> Traced:
        text = octets.decode("utf-8", "backslashreplace")
        more = f" … {size - MAX_SHOWN} more octets" if size > MAX_SHOWN else ""
        return Traced(time.time(), self._connection.cid, who, text + more)

    def _keep(self, who: str, data: bytes) -> None:
        if who == "C":
            masked = self._without_secrets(data)
        elif data.startswith(_GOES_ON):
            masked = b"+ ***"  # a challenge
        else:
            self._is_secret = False
            masked = data
        if not masked:
            return
        masked = masked[:MAX_SHOWN]
        self._kept.append(self._line(who, masked, len(masked)))
        self._kept_octets += len(masked)
        while self._kept and self._kept_octets > MAX_KEPT_OCTETS:
            self._kept_octets -= len(self._kept.popleft().octets)
        self._tell_kept()
        if who == "S":
            self._refused = ""  # what comes next may be another's

    def _without_secrets(self, data: bytes) -> bytes:
        """The lines that these octets end, each as it may be shown."""
        lines = (self._unfinished + data).split(b"\n")
        self._unfinished = lines.pop()[:MAX_SHOWN]
        return b"\n".join(self._masked(line.rstrip(b"\r")) for line in lines)

    def _masked(self, line: bytes) -> bytes:
        if not self._is_secret and _HARMLESS.fullmatch(line):
            return line
        verb = None if self._is_secret else _VERB.fullmatch(line)
        self._is_secret = True
        return verb.group(1) + b" ***" if verb is not None else b"***"

    # --- Receiver

    def received(self, data: bytes) -> None:
        self._wrap()
        self.tell("C", data)
        self.receiver.received(data)

    def lost(self, error: Exception | None) -> None:
        self.tell("-", b"the connection has ended")
        self.receiver.lost(error)


class _TappedTransport(Overheard):
    """A tap's."""


def behind_tap(receiver: Receiver) -> Receiver:
    """Whoever speaks with the peer."""
    while isinstance(receiver, Between):
        receiver = receiver.receiver
    return receiver
