"""A node's own files of JSON lines.

One writer for each kind (`mail`) of each worker of a role: straight to the file, in one write what comes together. At half
of its bound a file becomes the former one, which the next takes the place of: so much is kept, and no more. Nothing is
flushed to the disk: a power cut may cost the last lines, never mail.
"""

import atexit
import errno
import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from murder.log import encoder, logger
from murder.trail.chain import (
    ENDS,
    FORMER,
    LINK_OCTETS,
    Ends,
    alone,
    format_line,
    goes_on_from,
    link,
    newest_line,
    oldest_link,
    read_ends,
    write_ends,
)

FOLDER: Final = "trail"
ENDING: Final = ".jsonl"
MAX_LATE: Final = 1000  # lines that wait for another process; beyond it they are left out
SETTLE_S: Final = 5.0
LOOK_S: Final = 1.0  # a file that is taken away takes the lines of so long with it
LEFT_OUT: Final = "LOST"  # the event of a line that stands where others could not be written
MAX_FOUND: Final = 2000  # lines of one answer, the newest

_json: Final = encoder(ascii_only=False)
# JSON takes as they are what moves a terminal's cursor, ends a line for many readers, or turns text around
_UNSEEN: Final = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def _encode(value: object) -> str:
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", _json(value))


def folder_of(data: Path) -> Path:
    """Of a node, by its `node.data`."""
    return data / FOLDER


class Trail:
    """The writer of one kind of lines in one process; it keeps nothing before `keep` was told how much. What cannot be
    written is left out, and the log says so once, until it can be again. Where lines are `chained`, `trail.chain`
    sees where one was taken out or altered; the log then has each line that was left out, and behind them stands how many.

    Lines of a chain are written by one process at a time: of a command line, or a worker and the one before it, there may
    be two. Who finds another at it does not wait: a thread does, and writes all that comes until then."""

    def __init__(
        self, folder: Path, kind: str, role: str, worker: int, *, chained: bool = False
    ) -> None:
        self._is_chained = chained
        self._last = ""  # link of the chain
        self._late: deque[str] = deque()  # lines that another process is in the way of
        self._writing_late: threading.Thread | None = None
        self._path = folder / f"{kind}-{role}-{worker}{ENDING}"
        self._limit = 0
        self._file = -1
        self._size = 0
        self._looked_at = 0.0  # whether the file is still the one of its name
        self._is_broken = False
        self._left_out, self._left_out_since = 0, ""  # of a chain, and not told there so far
        self._lock = threading.Lock()  # a store's threads write, too

    def keep(self, octets: int) -> None:
        """So much from now on, in both files together."""
        self._limit = octets // 2

    def write(self, event: str, facts: Mapping[str, object]) -> None:
        """A line with `at` (ISO 8601, UTC) and `event`. None of the facts is a secret. Never raises for the disk."""
        if not self._limit:
            return
        self.append((_encode({"at": _stamped(datetime.now(UTC)), "event": event, **facts}),))

    def append(self, texts: Sequence[str]) -> None:
        """Lines as `write` makes them, by who has some. In one step where nothing is in the way: whoever takes or passes on
        a message comes here."""
        limit, lines = self._limit, "\n".join((*texts, "")).encode("utf-8", "replace")
        if not limit:
            return
        with self._lock:
            size = self._size + len(lines)
            if (
                self._file >= 0
                and size + LINK_OCTETS <= limit
                and not (self._is_chained or self._is_broken)
                and time.monotonic() - self._looked_at < LOOK_S
            ):
                try:
                    written = os.write(self._file, lines)
                    if written == len(lines):
                        self._size = size
                        return
                    whole = lines.rfind(b"\n", 0, written) + 1  # a full disk: so much is there
                    self._size += whole
                    texts = texts[lines.count(b"\n", 0, whole) :]
                    self._take_back(written - whole)
                except OSError:  # the longer way says so
                    pass
            for text in texts:
                self._try(self._append_in_turn if self._is_chained else self._append, text)

    def settle(self, within_s: float = SETTLE_S) -> bool:
        """Wait for what another process is in the way of; whether all is written. Blocks: for a process that ends."""
        if (thread := self._writing_late) is not None:
            thread.join(within_s)
        return not self._late

    def _try(self, append: Callable[[str], None], text: str) -> None:
        try:
            append(text)
            self._is_broken = False
        except OSError as error:
            self._not_written(error, text)

    def _not_written(self, error: OSError, text: str) -> None:
        trail_log = logger()
        if not self._is_broken:
            path, problem = str(self._path), error.strerror
            trail_log.warning("trail.not_written", path=path, problem=problem)
        self._is_broken = True
        if self._is_chained:
            self._left_out += 1
            self._left_out_since = self._left_out_since or stamp(0)
            trail_log.warning("audit.not_written", line=text)

    def _append(self, text: str) -> None:
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S and self._file >= 0:
            self._looked_at = now
            if self._current_size() < 0:  # somebody has taken it away, or renamed it
                self.close()
        if self._file < 0 or self._size + len(text) + LINK_OCTETS > self._limit:
            self._open(len(text) + LINK_OCTETS)
        self._size += self._put(f"{text}\n".encode("utf-8", "replace"))

    def _put(self, line: bytes) -> int:
        """How many octets it is. Raises OSError."""
        written = os.write(self._file, line)
        if written < len(line):
            self._take_back(written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def _take_back(self, octets: int) -> None:
        """What a full disk has taken of a line, unless another process has written behind it."""
        end = os.lseek(self._file, 0, os.SEEK_CUR)
        if octets and os.fstat(self._file).st_size == end:
            os.ftruncate(self._file, end - octets)

    def _append_in_turn(self, text: str) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._writing_late is None:
            try:
                with alone(self._path, waits=False):
                    self._append_chained(text)
                return
            except BlockingIOError:
                pass
        elif len(self._late) >= MAX_LATE:
            raise OSError(errno.EAGAIN, "another process does not let go of it")
        if self._writing_late is None:
            thread = threading.Thread(target=self._write_late, daemon=True)
            try:
                thread.start()  # it waits for our lock
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, str(error)) from error
            self._writing_late = thread
            atexit.unregister(self.settle)
            atexit.register(self.settle)
        self._late.append(text)

    def _write_late(self) -> None:
        try:
            with alone(self._path, waits=True):
                while self._write_next():
                    pass
        except OSError as error:  # of the lock's file
            with self._lock:
                for text in self._late:
                    self._not_written(error, text)
                self._late.clear()
                self._writing_late = None

    def _write_next(self) -> bool:
        """One line of those that wait; whether there was one. The thread is over where there was none."""
        with self._lock:
            if not self._late:
                self._writing_late = None
                return False
            self._try(self._append_chained, self._late.popleft())
            return True

    def _append_chained(self, text: str) -> None:
        if self._left_out and self._writing_late is None:  # those came before it
            what = f"{self._left_out} lines, since {self._left_out_since}: see audit.not_written in the log"
            facts = {"at": stamp(0), "event": LEFT_OUT, "user": "", "arguments": what}
            self._add_link(_encode(facts))
            self._left_out, self._left_out_since = 0, ""
        self._add_link(text)

    def _add_link(self, text: str) -> None:
        size, wanted = self._current_size(), len(text) + LINK_OCTETS
        if size < 0 or size + wanted > self._limit:
            self._open(wanted)
            size = os.fstat(self._file).st_size
        ends = read_ends(self._path)
        if size != self._size or ends is None or ends.last != self._last:
            self._last, self._size = goes_on_from(self._both(), ends), size
        its_link = link(self._last, text)
        written = self._put(format_line(text, its_link))
        first = oldest_link(self._both()) if ends is None else ends.first
        try:
            write_ends(self._path, Ends(first, its_link))
        except OSError:
            # else the next line would not go on from where the ends say
            os.ftruncate(self._file, size)
            raise
        self._last, self._size = its_link, size + written

    def _open(self, wanted: int) -> None:
        """The file, or a new one where this has no room for so many octets more."""
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size and size + wanted > self._limit:
            os.replace(self._path, f"{self._path}{FORMER}")
            size = 0
            if self._is_chained and (ends := read_ends(self._path)) is not None:
                write_ends(self._path, Ends(oldest_link(self._both()), ends.last))
        if self._is_chained and not self._last:
            self._last = newest_line(self._both())[1]
        self._file = os.open(
            self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self._size = size

    def _current_size(self) -> int:
        """Of the file; -1 where none is open, or what is open is no longer the one of that name."""
        if self._file < 0:
            return -1
        status = os.fstat(self._file)
        try:
            return status.st_size if os.path.samestat(status, os.stat(self._path)) else -1
        except FileNotFoundError:
            return -1

    def _both(self) -> tuple[Path, Path]:
        return Path(f"{self._path}{FORMER}"), self._path

    @property
    def path(self) -> Path:
        return self._path

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def files_of(folder: Path, kind: str, role: str) -> list[Path]:
    """All that its workers have written, also those that are no more; the former ones first."""
    if not folder.is_dir():
        return []
    mine = f"{kind}-{role}-"
    files = [path for path in folder.iterdir() if path.name.startswith(mine)]
    return sorted(files, key=lambda path: (not path.name.endswith(FORMER), path.name))


def chains_of(folder: Path, kind: str, role: str) -> list[Path]:
    """The file of each of its workers whose lines are chained, whether it is there or not."""
    names = {path.name.removesuffix(FORMER) for path in files_of(folder, kind, role)}
    left = [path.name.removeprefix(ENDS) for path in folder.glob(f"{ENDS}*")]
    names.update(name for name in left if name.startswith(f"{kind}-{role}-"))
    return [folder / name for name in sorted(names)]


def find(
    files: Sequence[Path], words: Collection[str], keys: Collection[str], since: str = ""
) -> Iterator[dict[str, object]]:
    """Lines in which one of these words is the value of one of these keys, or part of it where the key ends in `*`, or in a
    row of a list where it is `list.key`; in the order of the files. Without words: all. `since` is an `at`. Letters of ASCII
    count alike in upper and lower case. Blocks: for a thread. Linear in the size of the files."""
    wanted = {word.lower() for word in words}
    forms = {
        form(word)[1:-1] for word in words for form in (_encode, json.dumps)
    }  # both are written
    encoded = [form.encode().lower() for form in forms]
    exact = [key for key in keys if not key.endswith("*") and "." not in key]
    listed = [tuple(key.split(".")) for key in keys if "." in key]
    within = [key[:-1] for key in keys if key.endswith("*")]
    for path in files:
        try:
            lines = open(path, "rb")
        except OSError:
            continue
        with lines:
            for line in lines:
                lowered = line.lower()
                if encoded and not any(word in lowered for word in encoded):
                    continue  # without a parse
                line_facts = _parsed(line)
                if line_facts is None or str(line_facts.get("at", "")) < since:
                    continue
                if not wanted or _holds(line_facts, wanted, exact, within, listed):
                    yield line_facts


def _parsed(line: bytes) -> dict[str, object] | None:
    try:
        facts = json.loads(line)
    except ValueError:  # cut by a power cut
        return None
    return facts if isinstance(facts, dict) else None


def _holds(
    facts: Mapping[str, object],
    wanted: set[str],
    exact: Sequence[str],
    within: Sequence[str],
    listed: Sequence[tuple[str, ...]],
) -> bool:
    if any(str(facts.get(key, "")).lower() in wanted for key in exact):
        return True
    for name, key in listed:
        if any(str(row.get(key, "")).lower() in wanted for row in rows_in(facts, name)):
            return True
    texts = [str(facts.get(key, "")).lower() for key in within]
    return any(word in text for text in texts for word in wanted)


def rows_in(facts: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    """Of a line's list of rows; none where it has no such list."""
    rows = facts.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def newest(lines: Iterator[dict[str, object]], most: int = MAX_FOUND) -> list[dict[str, object]]:
    """The last ones by their time, in its order; never more in memory than twice as many."""
    held: list[dict[str, object]] = []
    for line in lines:
        held.append(line)
        if len(held) >= 2 * most:
            held = sorted(held, key=_at)[-most:]
    return sorted(held, key=_at)[-most:]


def _at(line: Mapping[str, object]) -> str:
    return str(line.get("at", ""))


def stamp(before_s: float) -> str:
    """An `at`, so many seconds before now."""
    return _stamped(datetime.fromtimestamp(max(0.0, time.time() - before_s), UTC))


def _stamped(when: datetime) -> str:
    """All of one length, so that they are in order as text."""
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")
