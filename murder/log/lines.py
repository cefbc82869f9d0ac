"""What a line of the log is made of, and how it comes to standard error: nobody is held up by it, and what has not come
there is counted."""

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

import structlog
from structlog.typing import FilteringBoundLogger

Log = FilteringBoundLogger

STDERR: Final = 2
LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# As sd-daemon(3) has them: how the journal, when it reads standard error, knows of levels (`journalctl -p err`).
PRIORITIES: Final[Mapping[str, int]] = {"debug": 7, "info": 6, "warning": 4, "error": 3}
# PIPE_BUF of pipe(7): so much in one write is not mixed with what other workers write, whatever standard error is
WHOLE_OCTETS: Final = 4096

quoted: Final = json.encoder.encode_basestring_ascii


def logger(**bound: object) -> Log:
    """A logger with these facts bound; cheap, and usable before `set_up`."""
    return cast(Log, structlog.get_logger(**bound))


def encoder(*, ascii_only: bool = True) -> Callable[[object], str]:
    """JSON as `json.dumps` writes it, in one step of C where there is one."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(default=readable, ensure_ascii=ascii_only).encode
    as_string = quoted if ascii_only else json.encoder.encode_basestring
    pieces = make(None, readable, as_string, None, ": ", ", ", False, False, True)
    return lambda line: "".join(pieces(line, 0))


def readable(value: object) -> str:
    """How JSON shows what it has no form for: octets as text, never a failure."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


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


def write_lines(lines: Iterable[bytes]) -> None:
    """Each whole, with its end; small ones in one write, as many as nobody mixes."""
    held = b""
    for line in lines:
        if held and len(held) + len(line) > WHOLE_OCTETS:
            write(held)
            held = b""
        held += line
    if held:
        write(held)


class _Lost:
    """What has not come there, and is still to be told of: lines, as many each time; and whether a part of the last has."""

    __slots__ = ("is_cut", "lines")

    def __init__(self) -> None:
        self.lines: deque[int] = deque(maxlen=1_000_000)
        self.is_cut = False


_lost: Final = _Lost()


def write(octets: bytes) -> None:
    """A line, or some."""
    before = 0
    if _lost.is_cut:  # else what comes is a part of that line
        octets = b"\n" + octets
        before = 1
    try:
        written = os.write(STDERR, octets)
    except OSError:
        written = 0  # the log's reader has gone, or stands still; mail goes on
    if written < len(octets):
        _lost.lines.append(octets.count(b"\n", max(before, written)))
        if written:
            _lost.is_cut = octets[written - 1] != ord("\n")
    elif _lost.lines:
        _lost.is_cut = False
        _tell_lost()


def _tell_lost() -> None:
    """A line has been written where others were not."""
    lines = sum(_lost.lines)
    _lost.lines.clear()
    own_log = logger()
    own_log.warning("log.lost", lines=lines)
    if _lost.lines:  # there was room for that line and not for this
        _lost.lines.append(lines)
