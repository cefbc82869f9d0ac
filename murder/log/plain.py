"""What is said at each login and of each message, without structlog's dozen of steps; and the last lines of all.

Such lines are many, and each is made and written where everything else of a session is cold: one costs a twelfth of all that
a session does. So a worker gathers them (`gathering`), and makes and writes many at once, within a moment. Whatever else is
said, a warning or an error, is written behind them, so the log's order stays. What is kept elsewhere, too, is made and
put there sooner: all of one turn of the loop at its end.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Final

from murder.log.lines import LEVELS, encoder, logger, quoted, readable, write_lines

RECENT_LINES: Final = 300
RECENT_CHARACTERS: Final = 1000
MOST_SHAPES: Final = 200  # of lines of events that are said often; there are a few
GATHER_S: Final = 0.1  # for which lines wait for others; one that comes alone does not
MOST_GATHERED: Final = 100  # lines: half a millisecond to make and write
LONG_LINE: Final = 4096  # characters: it waits for nobody

Later = Callable[[float, Callable[[], None]], object]
Soon = Callable[[Callable[[], None]], object]
Keep = Callable[[Sequence[str]], None]
"""Who keeps lines elsewhere, too: is given some, each one JSON with `at`, `event` and the facts in letters of ASCII."""

_json: Final = encoder()


class _Said:
    """When it was said; the event and its facts; the line, once it is made. Without a constructor, which is a call."""

    __slots__ = ("event", "facts", "line", "now")
    now: float
    event: str
    facts: Mapping[str, object]
    line: str


class Recent:
    """The last lines of this process, for who asks a node from elsewhere: so many, each cut where it is long."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: deque[tuple[float, str, str]] = deque(maxlen=RECENT_LINES)

    def note(self, level: str, line: str) -> None:
        self.lines.append((time.time(), level, line[:RECENT_CHARACTERS]))

    def found(self, word: str, least: str) -> list[tuple[float, str, str]]:
        """Time, level and text of those in which the word stands, in upper or lower case, from that level on."""
        plain_log.flush()
        wanted, limit = word.lower(), LEVELS[least]
        return [
            line
            for line in list(self.lines)
            if LEVELS[line[1]] >= limit and (not wanted or wanted in line[2].lower())
        ]


recent: Final = Recent()


class PlainLog:
    """Where lines are JSON, the same line as structlog's in one step. All but the facts is written once for each event with
    facts of these names, and the time of day once a second."""

    __slots__ = (
        "_day",
        "_gathered",
        "_is_due",
        "_is_keeping",
        "_kept",
        "_later",
        "_lock",
        "_says",
        "_shapes",
        "_soon",
        "_thread",
        "_wrote_at",
        "constants",
        "is_json",
        "priority",
        "threshold",
    )

    def __init__(self) -> None:
        self.threshold = logging.INFO
        self.is_json = False
        self.constants: Mapping[str, object] = {}
        self.priority = ""
        self._says = False
        self._shapes: dict[tuple[str, ...], tuple[str, str]] = {}
        self._day = 0, ""
        self._later: Later | None = None  # where lines are gathered, by which thread
        self._soon: Soon | None = None
        self._thread = 0
        self._gathered: deque[_Said] = deque()
        self._kept: deque[tuple[_Said, Keep]] = deque()  # and not put there yet
        self._is_keeping = False
        self._is_due = False
        self._wrote_at = 0.0
        self._lock = RLock()  # a thread that warns writes them, too

    def set_up(
        self, threshold: int, is_json: bool, constants: Mapping[str, object], priority: str
    ) -> None:
        """See the attributes; `constants` stand in every line."""
        self.flush()
        self.threshold, self.is_json = threshold, is_json
        self.constants, self.priority = dict(constants), priority
        self._says = is_json and threshold <= logging.INFO
        self._shapes.clear()

    def gather(self, later: Later | None, soon: Soon | None = None) -> None:
        """From now on this thread's lines wait for each other for `GATHER_S`; `later` calls us then. What is kept elsewhere
        waits until `soon` does: the loop's `call_soon`. None: no longer."""
        self.flush()
        self._later, self._soon, self._thread = later, soon, get_ident()
        self._is_due, self._wrote_at = False, 0.0

    def info(self, event: str, facts: Mapping[str, object], *, keep: Keep | None = None) -> None:
        """As `logger(**facts).info(event)`. None of the facts is a secret, and none changes any more. `keep`: who keeps it
        elsewhere, too. No call more than there must be: this is the way of every session."""
        says = self._says
        if not self.is_json:
            logger(**facts).info(event)
        if not (says or keep is not None):
            return
        said = _Said()
        said.now, said.event, said.facts, said.line = time.time(), event, facts, ""
        waits = self._later is not None and get_ident() == self._thread
        if says:
            self._gathered.append(said)
        if keep is not None:
            self._kept.append((said, keep))
            if not waits or self._soon is None or len(self._kept) >= MOST_GATHERED:
                self._keep()
            elif len(self._kept) == 1:
                self._soon(self._keep)
        if says:
            if not waits or len(self._gathered) >= MOST_GATHERED:
                self.flush()
            elif len(self._gathered) == 1:
                self._begin(said.now)

    def _keep(self) -> None:
        """Put elsewhere what is kept there, of each in one step."""
        kept = self._kept
        if not kept:
            return
        with self._lock:  # behind another thread, which may have looked for the last time
            if self._is_keeping:  # who cannot keep them says so in the log
                return
            self._is_keeping = True
            try:
                by_keeper: dict[Keep, list[str]] = {}
                is_long = False
                while kept:
                    said, keep = kept.popleft()
                    at, text = self._make(said)
                    line = f'{{"at": "{at}", "event": "{said.event}", {text}}}'
                    is_long = is_long or len(line) > LONG_LINE
                    lines = by_keeper.get(keep)
                    if lines is None:
                        by_keeper[keep] = [line]
                    else:
                        lines.append(line)
                for keep, lines in by_keeper.items():
                    keep(lines)
            finally:
                self._is_keeping = False
        if is_long:
            self.flush()

    def _begin(self, now: float) -> None:
        """A line waits. Where none was written just now, there is not much to say: it waits for no other."""
        if self._is_due or self._later is None:
            return
        if 0 <= now - self._wrote_at < GATHER_S:
            self._is_due = True
            self._later(GATHER_S, self._end)
        else:
            self.flush()

    def _end(self) -> None:
        self._is_due = False
        self.flush()

    def flush(self) -> None:
        """Write what has been gathered, by any thread."""
        if self._kept:
            self._keep()
        gathered = self._gathered
        if not gathered:
            return
        with self._lock:
            octets = []
            while gathered:
                said = gathered.popleft()
                if not said.line:
                    self._make(said)
                line = said.line
                recent.lines.append((said.now, "info", line[:RECENT_CHARACTERS]))  # as `note` does
                octets.append(f"{self.priority}{line}\n".encode())
            self._wrote_at = time.time()
            write_lines(octets)

    def _make(self, said: _Said) -> tuple[str, str]:
        """Its line; its time, and its facts."""
        facts, now = said.facts, said.now
        names = (said.event, *facts)
        shape, end = self._shapes.get(names) or self._shape(names)
        second = int(now)
        known, day = self._day
        if known != second:
            day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._day = second, day
        values: list[object] = []
        for value in facts.values():
            if type(value) is str:
                values.append(quoted(value))
            elif type(value) is int:
                values.append(value)
            elif value is False:
                values.append("false")
            elif type(value) is bytes:
                values.append(quoted(readable(value)))
            else:
                values.append(_json(value))
        text = shape % tuple(values)
        at = f"{day}.{int((now - second) * 1e6):06d}Z"
        said.line = f'{{{text}{end}{at}"}}'
        return at, text

    def _shape(self, names: tuple[str, ...]) -> tuple[str, str]:
        """Of this event with facts of these names: a place for each of those, and what follows, as far as the time."""
        event, *facts = names
        bound = {name: value for name, value in self.constants.items() if name not in facts}
        fixed = _json({"event": event, **bound, "level": "info"})[1:-1]
        places = ", ".join(quoted(name).replace("%", "%%") + ": %s" for name in facts)
        shape = places, f'{", " if facts else ""}{fixed}, "timestamp": "'
        if len(self._shapes) >= MOST_SHAPES:
            self._shapes.clear()
        self._shapes[names] = shape
        return shape


plain_log: Final = PlainLog()


@contextmanager
def gathering(later: Later, soon: Soon | None = None) -> Iterator[None]:
    """Of a process whose loop turns: its `call_later` and `call_soon`. Behind it nothing waits."""
    plain_log.gather(later, soon)
    try:
        yield
    finally:
        plain_log.gather(None)
