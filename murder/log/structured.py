"""structlog, as this program has it: facts in, a line out; secrets masked, listeners told."""

import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TextIO

import structlog
from structlog.typing import Processor

from murder.log.lines import (
    LEVELS,
    PRIORITIES,
    STDERR,
    is_journal,
    logger,
    priority_of,
    readable,
    write,
)
from murder.log.plain import plain_log, recent

MASK: Final = "***"
SECRETS: Final = frozenset(
    {"authorization", "credentials", "initial_response", "passwd", "password", "secret", "token"}
)

Listener = Callable[[str, str, Mapping[str, object]], None]
"""Who is told what happens: the event, its level, its facts."""


class _Told:
    """Tells listeners before the line is written; and ends what the log itself does not show. What a listener logs is told
    to nobody, and one that raises is let go."""

    def __init__(self) -> None:
        self.listeners: list[tuple[str, Listener]] = []
        self.threshold = logging.INFO
        self._telling = threading.local()

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        level = LEVELS[event["level"]]
        if level >= logging.INFO and not getattr(self._telling, "now", False):
            self._telling.now = True
            try:
                self._tell(event)
            finally:
                self._telling.now = False
        if level < self.threshold:
            raise structlog.DropEvent
        return event

    def _tell(self, event: Mapping[str, Any]) -> None:
        facts = MappingProxyType({key: event[key] for key in event.keys() - _NO_FACTS})
        for pair in tuple(self.listeners):
            name, listener = pair
            try:
                listener(event["event"], event["level"], facts)
            except Exception as error:  # noqa: BLE001 - the end of a listener
                self.listeners = [present for present in self.listeners if present is not pair]
                logger().error("plugin.failed", plugin=name, hook="happened", exc_info=error)


_NO_FACTS: Final = frozenset({"event", "level", "timestamp"})
_told: Final = _Told()
_set_up_as: list[tuple[str, str, Mapping[str, object]]] = []  # the last one


def listen(listeners: Sequence[tuple[str, Listener]]) -> None:
    """From now on these are told of every event of this process from `info` on, also of those that the log does not show;
    each with the name of its plugin. Nobody: and nothing is any slower for it."""
    _told.listeners = list(listeners)
    if _set_up_as:
        level, form, bound = _set_up_as[-1]
        set_up(level, form, **bound)


def set_up(level: str, form: str, **bound: object) -> None:
    """Configure this process's log, with `[log] level` and `[log] format`. May be called again.

    `bound` (node, worker …) stands in every line.
    """
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    as_text = form == "text" or (form == "auto" and is_terminal)
    threshold = LEVELS[level]
    _set_up_as[:] = [(level, form, bound)]
    listeners, heard = _told.listeners, min(threshold, logging.INFO)
    _told.threshold = threshold
    sink = _Sink({level: priority_of(level) for level in PRIORITIES})
    if is_journal():  # which may stand still: nobody waits for it
        os.set_blocking(STDERR, False)
    structlog.configure(
        processors=[
            _Constants(bound),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not as_text),
            mask_secrets,
            *((_told,) if listeners else ()),
            *(_text_renderers(is_terminal) if as_text else _json_renderers()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(heard if listeners else threshold),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,  # a reload may change the level
    )
    plain_log.set_up(threshold, not (as_text or listeners), bound, priority_of("info"))
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(max(threshold, logging.WARNING))


def mask_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The last guard: a key that names a secret never shows its value, whoever logged it."""
    for name in SECRETS & event.keys():
        event[name] = MASK
    return event


class _Constants:
    """Adds what is the same in all lines of this process."""

    def __init__(self, bound: Mapping[str, object]) -> None:
        self._bound = dict(bound)

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        for name, value in self._bound.items():
            event.setdefault(name, value)
        return event


def _text_renderers(colours: bool) -> list[Processor]:
    return [
        _harmless,
        structlog.dev.ConsoleRenderer(
            colors=colours,
            pad_event_to=24,
            exception_formatter=_traceback,
        ),
    ]


def _json_renderers() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=readable),
    ]


class _Escaped:
    """Text that is shown as Python writes it: what is no printable character stands as an escape."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _harmless(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Octets become text; what a peer chose moves no cursor, sets no title, and turns no line around."""
    for name, value in event.items():
        if isinstance(value, bytes):
            value = event[name] = readable(value)
        if isinstance(value, str) and not value.isprintable():
            event[name] = _Escaped(value)
    return event


def _traceback(out: TextIO, exc_info: Any) -> None:
    """Without local variables, and as harmless as the rest: indented, none of its lines looks like one of the log's."""
    buffer = io.StringIO()
    structlog.dev.plain_traceback(buffer, exc_info)
    for line in buffer.getvalue().splitlines(keepends=True):
        text = line.rstrip("\n")
        out.write("  " + (text if text.isprintable() else repr(text)[1:-1]))
        out.write(line[len(text) :])


class _Sink:
    """Where rendered lines go: one write each. `priorities` has what each level's lines begin with."""

    def __init__(self, priorities: Mapping[str, str]) -> None:
        self._priorities = priorities

    def _write(self, level: str, line: str) -> None:
        plain_log.flush()  # what was said before it
        recent.note(level, line)
        if priority := self._priorities[level]:
            line = priority + line.replace("\n", f"\n{priority}")
        write(line.encode("utf-8", "backslashreplace") + b"\n")

    def debug(self, line: str) -> None:
        self._write("debug", line)

    def info(self, line: str) -> None:
        self._write("info", line)

    def warning(self, line: str) -> None:
        self._write("warning", line)

    def error(self, line: str) -> None:
        self._write("error", line)

    msg = log = info
    warn = warning
    critical = exception = fatal = error


# The event loop says so at each write to a peer that has gone, and the connection's own end is told. A peer that has sent
# many commands ahead and goes would write hundreds of lines.
_SAID_AT_EACH_WRITE: Final = frozenset(
    {"SSL connection is closed", "socket.send() raised exception."}
)


class _Bridge(logging.Handler):
    """What libraries say through `logging` (asyncio: a task's lost exception) comes out as our lines."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg in _SAID_AT_EACH_WRITE:
            return
        log = logger(library=record.name, text=record.getMessage())
        failed = record.exc_info if record.exc_info and record.exc_info[0] else None
        if record.levelno >= logging.ERROR:
            log.error("library.logged", exc_info=failed)
        else:
            log.warning("library.logged", exc_info=failed)
