"""What is said at each login and of each message, without structlog's dozen of steps; and the last lines of all.

Such lines are many, and each is made and written where everything else of a session is cold: one costs a twelfth of all that
a session does. So a worker gathers them (`gathering`), and makes and writes many at once, within a moment; likewise what is
kept elsewhere, too. Whatever else is said, a warning or an error, is written behind them, so the log's order stays.
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
MOST_ROWS: Final = 10  # of a line that waits: so all of them are some dozens of KB

Later = Callable[[float, Callable[[], None]], object]
Facts = Mapping[str, object] | Callable[[], Mapping[str, object]]
"""Or who makes them of what does not change any more: not at all where nobody writes them, else of many lines at once."""
Keep = Callable[[Sequence[str]], None]
"""Who keeps lines elsewhere, too: is given some, each one JSON with `at`, `event` and the facts in letters of ASCII."""

_json: Final = encoder()


class _Said:
    """When it was said; the event and its facts; whether the log has it, and who else keeps it. Without a constructor,
    which is a call."""

    __slots__ = ("event", "facts", "is_logged", "keep", "now")
    now: float
    event: str
    facts: Facts
    is_logged: bool
    keep: Keep | None


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
        "_is_writing",
        "_later",
        "_lock",
        "_says",
        "_shapes",
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
        self._thread = 0
        self._gathered: deque[_Said] = deque()
        self._is_writing = False
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

    def gather(self, later: Later | None) -> None:
        """From now on this thread's lines wait for each other for `GATHER_S`; `later` calls us then. None: no longer."""
        self.flush()
        self._later, self._thread = later, get_ident()
        self._is_due, self._wrote_at = False, 0.0

    def info(self, event: str, facts: Facts, *, keep: Keep | None = None, rows: int = 1) -> None:
        """As `logger(**facts).info(event)`. None of the facts is a secret, and none changes any more. `keep`: who keeps it
        elsewhere, too. `rows`: how many things it tells of. No call more than there must be: this is the way of every
        session."""
        if not self.is_json:
            facts = facts() if callable(facts) else facts
            logger(**facts).info(event)
        if not (self._says or keep is not None):
            return
        said, gathered = _Said(), self._gathered
        said.now, said.event, said.facts = time.time(), event, facts
        said.is_logged, said.keep = self._says, keep
        gathered.append(said)
        waits = self._later is not None and get_ident() == self._thread
        if not waits or rows > MOST_ROWS or len(gathered) >= MOST_GATHERED:
            self.flush()
        elif len(gathered) == 1:
            self._begin(said.now)

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
        if not self._gathered:
            return
        with self._lock:  # behind another thread, which may have looked for the last time
            if self._is_writing:  # who cannot keep them says so in the log
                return
            self._is_writing = True
            try:
                while self._gathered:
                    self._write()
            finally:
                self._is_writing = False

    def _write(self) -> None:
        """To the log, then elsewhere: to each in one step."""
        gathered, octets = self._gathered, []
        by_keeper: dict[Keep, list[str]] = {}
        while gathered:
            said = gathered.popleft()
            line, kept = self._make(said)
            if said.is_logged:
                recent.lines.append((said.now, "info", line[:RECENT_CHARACTERS]))  # as `note` does
                octets.append(f"{self.priority}{line}\n".encode())
            if said.keep is not None:
                by_keeper.setdefault(said.keep, []).append(kept)
        self._wrote_at = time.time()
        write_lines(octets)
        for keep, lines in by_keeper.items():
            keep(lines)

    def _make(self, said: _Said) -> tuple[str, str]:
        """Its line of the log, and as it is kept elsewhere; "" where it is not."""
        facts, now = said.facts, said.now
        if callable(facts):
            facts = facts()
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
        line = f'{{{text}{end}{at}"}}' if said.is_logged else ""
        kept = "" if said.keep is None else f'{{"at": "{at}", "event": "{said.event}", {text}}}'
        return line, kept

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
def gathering(later: Later) -> Iterator[None]:
    """Of a process whose loop turns: its `call_later`. Behind it nothing waits."""
    plain_log.gather(later)
    try:
        yield
    finally:
        plain_log.gather(None)
