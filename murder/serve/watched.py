"""Sessions that are sampled for a trace (`trail.spans`): what stands between a frontend and its client then, and what a
backend measures of the same session. Nothing of it is made for any other session.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, cast

from murder.api.timing import STEP
from murder.net.connection import Connection, Receiver
from murder.net.listener import Service
from murder.net.tap import Between, HasUser, Overheard
from murder.trail.spans import Spans, Timed, Value, token_in
from murder.wire.imap.command import Command

T = TypeVar("T")

MAX_UNDER_WAY: Final = 500  # commands of a session whose end is awaited
MAX_LINE: Final = 4096  # octets of a line that are looked at
_COMMAND: Final = re.compile(rb"([^ \r\n]{1,64}) +(?:((?i:UID)) +)?([A-Za-z0-9-]{1,32})(?=[ \r\n])")
_LITERAL: Final = re.compile(rb"\{([0-9]{1,19})\+?\}\r?\n\Z")
_TAGGED: Final = re.compile(rb"(?m)^([^ \r\n]{1,64}) (OK|NO|BAD)\b")
IMAP: Final = "imap"


def sampling(service: Service, protocol: str, spans: Spans) -> Service:
    """The same service, of whose sessions some are sampled."""

    def serve(connection: Connection) -> Receiver:
        token = spans.sample()
        if not token:
            return service(connection)
        connection.cid = f"{connection.cid}-{token}"
        return Watched(connection, service(connection), protocol, spans, token)

    return serve


class Watched(Between):
    """Stands between a client's connection and both its ends, for the session's span and one for each of its commands
    (IMAP)."""

    def __init__(
        self,
        connection: Connection,
        receiver: Receiver,
        protocol: str,
        spans: Spans,
        token: str,
    ) -> None:
        self._connection = connection
        self.receiver = receiver
        self._protocol = protocol
        self._spans = spans
        self._session = Timed(spans, token, "", f"{protocol} session", id=token)
        self._commands = Commands(self._begin) if protocol == IMAP else None
        self._under_way: OrderedDict[bytes, Timed] = OrderedDict()
        self._unfinished = b""  # the last line that was written
        self._wrap()

    def _begin(self, tag: bytes, name: str) -> None:
        while len(self._under_way) >= MAX_UNDER_WAY:
            self._under_way.popitem(last=False)
        session = self._session
        self._under_way[tag] = Timed(self._spans, session.trace, session.id, f"IMAP {name}")

    def written(self, data: bytes) -> None:
        """To the client."""
        if not self._under_way:
            return
        data = self._unfinished + data
        for tag, word in _TAGGED.findall(data):
            timed = self._under_way.pop(tag, None)
            if timed is not None:
                text = word.decode()
                timed.end({"murder.response": text}, is_error=text != "OK")
        self._unfinished = data[data.rfind(b"\n") + 1 :][-MAX_LINE:]

    def stand(self) -> None:
        """Between both ends again, where somebody has taken the connection over, or TLS was put under it."""
        current = self._connection.receiver
        inner: object = current
        while isinstance(inner, Between) and inner is not self:
            inner = inner.receiver
        if inner is not self:
            self.receiver = current
            self._connection.receiver = self
        self._wrap()

    def _wrap(self) -> None:
        transport: Any = self._connection.transport
        while transport is not None:
            if isinstance(transport, _WatchedTransport):
                return
            transport = getattr(transport, "untapped", None)
        watched = _WatchedTransport(self._connection.transport, self.written)
        self._connection.transport = cast(asyncio.Transport, watched)

    # --- Receiver

    def received(self, data: bytes) -> None:
        self._wrap()
        if self._commands is not None:
            self._commands.feed(data)
        self.receiver.received(data)
        if not self._connection.is_lost:
            self.stand()

    def lost(self, error: Exception | None) -> None:
        connection = self._connection
        facts: dict[str, Value] = {
            "session.id": connection.cid,
            "client.address": connection.peer,
            "network.protocol.name": self._protocol,
            "murder.tls": connection.is_tls,
        }
        if isinstance(self.receiver, HasUser):
            facts["user.name"] = self.receiver.describe().user
        self.receiver.lost(error)
        self._session.end(facts, is_error=error is not None)


class _WatchedTransport(Overheard):
    """A sampled session's."""


class Commands:
    """Where commands of IMAP begin in what a client sends, as far as a trace needs that; of none are the arguments kept."""

    def __init__(self, begun: Callable[[bytes, str], None]) -> None:
        self._begun = begun
        self._line = b""
        self._left = 0  # octets of a literal that are still to come
        self._goes_on = False  # behind a literal

    def feed(self, data: bytes) -> None:
        """What has come."""
        at = 0
        while at < len(data):
            if self._left:
                skipped = min(self._left, len(data) - at)
                self._left -= skipped
                at += skipped
                continue
            end = data.find(b"\n", at) + 1
            piece = data[at : end or len(data)]
            at += len(piece)
            self._line = (self._line + piece)[-MAX_LINE:] if self._goes_on else self._line + piece
            if not end:
                if len(self._line) > 2 * MAX_LINE:  # both ends of it are of use
                    self._line = self._line[:MAX_LINE] + self._line[-64:]
                return
            self._ended(self._line)
            self._line = b""

    def _ended(self, line: bytes) -> None:
        if not self._goes_on:
            match = _COMMAND.match(line)
            if match is not None:
                name = match[3].upper().decode()
                self._begun(match[1], f"UID {name}" if match[2] else name)
        literal = _LITERAL.search(line)
        self._goes_on = literal is not None
        self._left = int(literal[1]) if literal else 0


async def traced(spans: Spans | None, cid: str, name: str, running: Coroutine[Any, Any, T]) -> T:
    """One piece of work for a session of which a proxy has told by this id: a span of its trace, if it is traced."""
    token = token_in(cid) if spans is not None else ""
    if spans is None or not token:
        return await running
    return await _timed(Timed(spans, token, token, name), running)


async def _timed(timed: Timed, running: Coroutine[Any, Any, T]) -> T:
    before, failed = STEP.set(timed.step), True
    try:
        result = await running
        failed = False
        return result
    finally:
        STEP.reset(before)
        timed.end({}, is_error=failed)


class BackendSession:
    """A sampled session at a backend, from the moment a proxy has told of it."""

    def __init__(self, spans: Spans, token: str, protocol: str) -> None:
        self._spans = spans
        self._session = Timed(spans, token, token, f"{protocol} session")

    async def during(self, running: Coroutine[Any, Any, None], command: Command) -> None:
        """A command, and below it what its store does."""
        session = self._session
        name = f"IMAP {command.name.decode()}"
        await _timed(Timed(self._spans, session.trace, session.id, name), running)

    def end(self, cid: str, user: str) -> None:
        """It is over, or the connection is another user's from now on."""
        self._session.end({"session.id": cid, "user.name": user})
