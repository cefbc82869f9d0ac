"""The log: structlog set up once a process, secrets masked, every event name in one list.

An event is a constant `noun.happened`; facts are keys. Bound once on accept: `role`, `protocol`, `cid`, `peer`; at
login: `user`. One line is one write to standard error, so lines of several workers do not mix, and a log that
cannot be written never stops the mail.
"""

import io
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

Log = FilteringBoundLogger

STDERR: Final = 2
MASK: Final = "***"
SECRETS: Final = frozenset(
    {"authorization", "credentials", "initial_response", "passwd", "password", "secret", "token"}
)
LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# As sd-daemon(3) has them: how the journal, when it reads standard error, knows of levels (`journalctl -p err`).
PRIORITIES: Final[Mapping[str, int]] = {"debug": 7, "info": 6, "warning": 4, "error": 3}

# Every event this program can log: an operator's list for filters and alarms. tests/test_log.py compares it with
# the code, both ways.
EVENTS: Final = frozenset(
    {
        "announce.repaired",
        "announce.undone_late",
        "command.crashed",
        "command.malformed",
        "config.needs_restart",
        "config.refused",
        "config.reloaded",
        "connection.not_accepted",
        "connection.refused",
        "connection.unintelligible",
        "control.asked",
        "control.refused",
        "control.unavailable",
        "copy.not_undone",
        "library.logged",
        "list.incomplete",
        "login.failed",
        "login.succeeded",
        "mailbox.adopted",
        "mailbox.conflict",
        "mailbox.expired",
        "mailbox.missing",
        "mailbox.followed",
        "mailbox.not_expired",
        "mailbox.not_followed",
        "mailbox.not_created",
        "mailbox.noticed",
        "message.duplicate",
        "mailbox.quarantined",
        "mailbox.returned",
        "mailbox.taken",
        "mailbox.unreadable",
        "master.back",
        "master.unreachable",
        "move.aborted",
        "move.bad_request",
        "move.begun",
        "move.crashed",
        "move.differs",
        "move.done",
        "move.failed",
        "move.interrupted",
        "move.kept_changed",
        "move.let_go",
        "move.peer_away",
        "move.peer_gone",
        "move.taken",
        "notify.incomplete",
        "replica.behind",
        "replica.crashed",
        "replica.disconnected",
        "replica.synchronised",
        "referral.unknown",
        "resync.done",
        "resync.refused",
        "plugin.failed",
        "role.failed",
        "role.reloaded",
        "role.started",
        "role.stopped",
        "role.stuck",
        "server.ready",
        "server.stopped",
        "store.epoch_unknown",
        "store.restored",
        "store.unmatched",
        "subscriber.began",
        "subscriber.cut",
        "supervisor.lost",
        "tls.distrusted",
        "tls.failed",
        "tls.revoked",
        "upstream.connected",
        "upstream.failed",
        "upstream.left_alone",
        "upstream.lost",
        "upstream.returned",
        "worker.died",
        "worker.ready",
        "worker.stood_in_for",
        "worker.stuck",
    }
)


def logger(**bound: object) -> Log:
    """A logger with these facts bound; cheap, and usable before `set_up`."""
    return cast(Log, structlog.get_logger(**bound))


def set_up(level: str, form: str, **bound: object) -> None:
    """Configure this process's log, with `[log] level` and `[log] format`. May be called again.

    `bound` (node, worker …) stands in every line.
    """
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    as_text = form == "text" or (form == "auto" and is_terminal)
    threshold = LEVELS[level]
    sink = _Sink({level: priority_of(level) for level in PRIORITIES})
    structlog.configure(
        processors=[
            _Constants(bound),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not as_text),
            mask_secrets,
            *(_text_renderers(is_terminal) if as_text else _json_renderers()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,  # a reload may change the level
    )
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


def readable(value: object) -> str:
    """How JSON shows what it has no form for: octets as text, never a failure."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


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
    told = io.StringIO()
    structlog.dev.plain_traceback(told, exc_info)
    for line in told.getvalue().splitlines(keepends=True):
        text = line.rstrip("\n")
        out.write("  " + (text if text.isprintable() else repr(text)[1:-1]))
        out.write(line[len(text) :])


def is_journal() -> bool:
    """Whether the journal reads standard error (systemd.exec(5), JOURNAL_STREAM), and not a file or a pipe of ours."""
    named = os.environ.get("JOURNAL_STREAM", "")
    try:
        seen = os.fstat(STDERR)
    except OSError:
        return False
    return named == f"{seen.st_dev}:{seen.st_ino}"


def priority_of(level: str) -> str:
    """What a line of that level begins with: nothing, unless the journal reads it."""
    return f"<{PRIORITIES[level]}>" if is_journal() else ""


class _Sink:
    """Where rendered lines go: one write each. `priorities` has what each level's lines begin with."""

    def __init__(self, priorities: Mapping[str, str]) -> None:
        self._priorities = priorities

    def _write(self, level: str, line: str) -> None:
        if priority := self._priorities[level]:
            line = priority + line.replace("\n", f"\n{priority}")
        try:
            os.write(STDERR, line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError:
            pass  # the log's reader has gone; mail goes on

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


class _Bridge(logging.Handler):
    """What libraries say through `logging` (asyncio: a task's lost exception) comes out as our lines."""

    def emit(self, record: logging.LogRecord) -> None:
        log = logger(library=record.name, text=record.getMessage())
        failed = record.exc_info if record.exc_info and record.exc_info[0] else None
        if record.levelno >= logging.ERROR:
            log.error("library.logged", exc_info=failed)
        else:
            log.warning("library.logged", exc_info=failed)
