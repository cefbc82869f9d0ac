"""Spans of sampled sessions (OpenTelemetry), as they wait to be sent: a bounded queue that nobody waits for.

A session that is sampled at a frontend has a token of 16 hexadecimal digits behind its `cid`, and with that it is told to
backends: all that they add belongs to the same trace. The trace's id is the token behind zeros (a trace id of 64 bits), and
the token is the id of the session's own span, under which all others stand.
"""

import random
import re
import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from murder.trail.figures import Figures

MAX_BATCH: Final = 200  # sent at once: a millisecond or two of JSON
_TOKEN: Final = re.compile(r"-([0-9a-f]{16})\Z")
Value = str | int | bool


class Kind(IntEnum):
    """SpanKind of opentelemetry/proto/trace/v1/trace.proto."""

    INTERNAL = 1
    SERVER = 2


@dataclass(frozen=True, slots=True)
class Span:
    """`trace` is the token of the session; `began` and `ended` are seconds since 1970. `parent` is empty for the session's
    own at the frontend."""

    trace: str
    id: str
    parent: str
    name: str
    kind: Kind
    began: float
    ended: float
    attributes: Mapping[str, Value] = field(default_factory=dict)
    is_error: bool = False


def new_id() -> str:
    """Of a span or a session."""
    return secrets.token_hex(8)


def token_in(cid: str) -> str:
    """Of a session as a proxy has told of it; empty where it is not sampled."""
    match = _TOKEN.search(cid)
    return match[1] if match else ""


class Spans:
    """What one role in one process has still to send. `share` of its sessions are sampled: 0 where nobody wants any."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._waiting: deque[Span] = deque()
        self._most = 0
        self.share = 0.0
        self.are_wanted = False

    def configure(self, share: float, most_waiting: int) -> None:
        """From now on; 0 waiting: none are kept."""
        self.share, self._most, self.are_wanted = share, most_waiting, bool(most_waiting)
        if not most_waiting:
            self._waiting.clear()

    def sample(self) -> str:
        """The token of a new session; empty for most."""
        return new_id() if random.random() < self.share else ""

    def add(self, span: Span) -> None:
        """To be sent; where too many wait it is left out, and counted."""
        if len(self._waiting) < self._most:
            self._waiting.append(span)
        elif self._most:
            self._figures.add("spans", "dropped")

    def take(self) -> list[Span]:
        """The next ones to send."""
        return [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]

    def note_sent(self, count: int) -> None:
        self._figures.more("spans", count, "sent")

    def put_back(self, spans: Sequence[Span]) -> None:
        """They are to be sent later, before all others; as far as there is room."""
        room = max(0, self._most - len(self._waiting))
        self._waiting.extendleft(reversed(spans[:room]))
        if len(spans) > room:
            self.note_lost(len(spans) - room)

    def note_lost(self, count: int) -> None:
        """They could not be sent, and are not kept."""
        self._figures.more("spans", count, "dropped")

    def give_up(self) -> int:
        """Nobody will send what still waits; how many that were. They are counted."""
        lost = len(self._waiting)
        self._waiting.clear()
        if lost:
            self.note_lost(lost)
        return lost

    def __len__(self) -> int:
        return len(self._waiting)


class Timed:
    """A span that has begun."""

    __slots__ = ("_began", "_spans", "id", "kind", "name", "parent", "trace")

    def __init__(
        self,
        spans: Spans,
        trace: str,
        parent: str,
        name: str,
        kind: Kind = Kind.SERVER,
        id: str = "",
    ) -> None:
        self._spans, self._began = spans, time.time()
        self.trace, self.parent, self.name, self.kind = trace, parent, name, kind
        self.id = id or new_id()

    def step(self, name: str, took_s: float) -> None:
        """Below it, something that has just ended."""
        now = time.time()
        began = now - took_s
        self._spans.add(Span(self.trace, new_id(), self.id, name, Kind.INTERNAL, began, now))

    def end(self, attributes: Mapping[str, Value], *, is_error: bool = False) -> None:
        now = time.time()
        ids = self.trace, self.id, self.parent
        self._spans.add(Span(*ids, self.name, self.kind, self._began, now, attributes, is_error))
