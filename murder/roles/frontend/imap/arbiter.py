"""Several backends that speak to one client unasked (NOTIFY): whole responses, never one inside another.

Each upstream writes through its own `Gate`; while one of them is in the middle of a response, all others wait.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from murder.net.bulk import write_much
from murder.net.connection import Connection
from murder.net.outgoing.exchange import Client
from murder.net.outgoing.relay import ImapUpstream

LIST: Final = b"* LIST ("
MAX_WAITING_OCTETS: Final = 256 * 1024  # beyond it, no more is read from the backends that wait

Correct = Callable[[ImapUpstream, bytes], bytes]


class Arbiter:
    """Whose turn it is."""

    def __init__(
        self, connection: Connection, session: Client, correct: Correct | None = None
    ) -> None:
        """`correct` is shown what begins with a LIST response, and tells it as it should be."""
        self.session = session
        self.correct = correct
        self.connection = connection
        self._speaker: ImapUpstream | None = None  # in the middle of a response
        self._waiting: dict[ImapUpstream | None, bytes] = {}

    def let_through(self, upstream: ImapUpstream) -> None:
        """From now on, this upstream asks here."""
        upstream.client = Gate(self, upstream)

    @property
    def is_full(self) -> bool:
        if self.connection.writing_paused:
            return True
        return sum(map(len, self._waiting.values())) > MAX_WAITING_OCTETS

    def write(self, upstream: ImapUpstream | None, data: bytes) -> None:
        """Of an upstream, or (None) whole responses of the frontend's own."""
        if self._speaker is not None and self._speaker is not upstream:
            self._waiting[upstream] = self._waiting.get(upstream, b"") + data
            return
        self._say(upstream, data)
        self._go_on()

    def _say(self, upstream: ImapUpstream | None, data: bytes) -> None:
        write_much(self.connection, data)
        self._speaker = upstream if upstream is not None and upstream.is_inside else None

    def _go_on(self) -> None:
        """What waits is all that its upstream has said so far."""
        waited = False
        while self._speaker is None and self._waiting:
            first = next(iter(self._waiting))
            self._say(first, self._waiting.pop(first))
            waited = True
        if waited and not self.is_full:
            self.session.writable()

    def forget(self, upstream: ImapUpstream, mid_response: bool = True) -> None:
        """It has gone, with what it had begun to say; what is whole is said."""
        waiting = self._waiting.pop(upstream, b"")
        if waiting and not mid_response:
            self._waiting[None] = self._waiting.get(None, b"") + waiting
        if self._speaker is upstream:
            self._speaker = None
            self._go_on()


class Gate(Client):
    """An upstream's client: the session, with the arbiter in place of its connection."""

    def __init__(self, arbiter: Arbiter, upstream: ImapUpstream) -> None:
        self._arbiter = arbiter
        self._upstream = upstream
        self.connection = self
        self._is_inside = False  # a response
        # it is written to by `write` only, and with no slices: `is_inside` is about the end of all that was said at once
        self.is_plain = self.is_tls = False

    def write(self, data: bytes) -> None:
        correct = self._arbiter.correct
        if correct is not None and not self._is_inside and data.startswith(LIST):
            data = correct(self._upstream, data)
        self._is_inside = self._upstream.is_inside
        self._arbiter.write(self._upstream, data)

    @property
    def writing_paused(self) -> bool:
        """Whether the client takes no more for now."""
        return self._arbiter.is_full

    @property
    def gathered(self) -> list[bytes]:
        return self._arbiter.connection.gathered

    @property
    def transport(self) -> asyncio.Transport:
        return self._arbiter.connection.transport

    def upstream_idle(self, upstream: ImapUpstream) -> None:
        self._arbiter.session.upstream_idle(upstream)

    def upstream_left(self, upstream: ImapUpstream, name: bytes) -> None:
        self._arbiter.session.upstream_left(upstream, name)

    def upstream_lost(self, upstream: ImapUpstream, tags: list[bytes], mid_response: bool) -> None:
        self._arbiter.forget(upstream, mid_response)
        self._arbiter.session.upstream_lost(upstream, tags, mid_response)
