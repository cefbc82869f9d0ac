"""A chain of lines: each ends with a hash of itself and of that of the line before it, so that one which was taken out or
altered shows.

Beside a writer's files stands one with both ends of the chain: else lines at the beginning or the end could be taken away
unseen. This is against who edits files; who may write them and knows how this is made can make all of it anew.
"""

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

FORMER: Final = ".1"  # behind a file's name
ENDS: Final = "ends-"  # before the name of a writer's file, which is no file of lines then
AT_END: Final = "end"  # in place of a line's number
TAIL_OCTETS: Final = 64 * 1024
_LINK: Final = ', "chain": "'
_LINK_END: Final = '"}'
LINK_OCTETS: Final = len(_LINK) + 64 + len(_LINK_END)
_ENDS_LINE: Final = re.compile("([0-9a-f]{64}) ([0-9a-f]{64})\n")


class Ends(NamedTuple):
    """Links of the oldest line that is kept, and of the newest."""

    first: str
    last: str


def link(before: str, text: str) -> str:
    """Of a line as JSON without its link, behind the line with that link."""
    return hashlib.sha256(f"{before}{text}".encode("utf-8", "replace")).hexdigest()


def format_line(text: str, its_link: str) -> bytes:
    """A line as it is kept, from one without its link."""
    return f"{text[:-1]}{_LINK}{its_link}{_LINK_END}\n".encode("utf-8", "replace")


def parse_line(line: bytes) -> tuple[str, str]:
    """A line without its link, and the link; "" where it has none."""
    text, mark, tail = line.rstrip(b"\n").decode("utf-8", "replace").rpartition(_LINK)
    return (f"{text}}}", tail.removesuffix(_LINK_END)) if mark else ("", "")


def newest_line(paths: Sequence[Path]) -> tuple[str, str]:
    """As `parse_line`; the former file first."""
    newest = "", ""
    for path in paths:
        with contextlib.suppress(OSError), open(path, "rb") as lines:
            lines.seek(max(0, path.stat().st_size - TAIL_OCTETS))
            for line in lines:
                parsed = parse_line(line)
                newest = parsed if parsed[1] else newest
    return newest


def oldest_link(paths: Sequence[Path]) -> str:
    """The former file first."""
    for path in paths:
        with contextlib.suppress(OSError), open(path, "rb") as lines:
            if oldest := parse_line(lines.readline())[1]:
                return oldest
    return ""


def ends_file(path: Path) -> Path:
    """Of the writer of that file."""
    return path.with_name(ENDS + path.name)


def read_ends(path: Path) -> Ends | None:
    """None where there are none: an earlier version has written the lines."""
    try:
        match = _ENDS_LINE.fullmatch(ends_file(path).read_text("ascii", "replace"))
    except FileNotFoundError:
        return None
    return Ends(match[1], match[2]) if match else None


def write_ends(path: Path, ends: Ends) -> None:
    """In place: the line has always the same length. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    file = os.open(ends_file(path), flags, 0o600)
    try:
        os.pwrite(file, f"{ends.first} {ends.last}\n".encode("ascii"), 0)
    finally:
        os.close(file)


@contextlib.contextmanager
def alone(path: Path, *, waits: bool) -> Iterator[None]:
    """Nobody else, in any process, writes a line there or has the file become the former one. Raises OSError:
    BlockingIOError where somebody does just then, and who asks does not wait (which blocks: for a thread)."""
    file = os.open(ends_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)


def goes_on_from(paths: Sequence[Path], ends: Ends | None) -> str:
    """The link behind which the next line stands: that of the last one written, also where that is no longer there, so that
    its absence shows for good. One line more than the ends know of is from a process that was killed in between."""
    text, newest = newest_line(paths)
    if ends is None or newest in (ends.last, link(ends.last, text)):
        return newest
    return ends.last


def breaks_in(path: Path) -> list[str]:
    """Where the chain of the writer of that file is broken: `file:line` of each line that does not go on from the one before
    it; `file:1` and `file:end` where lines before or behind are missing. Blocks: for a thread."""
    # looked at once more: a file may have become the former one while this was read
    return _breaks_in(path) and _breaks_in(path)


def _breaks_in(path: Path) -> list[str]:
    former = path.with_name(path.name + FORMER)
    ends, files = read_ends(path), [file for file in (former, path) if file.exists()]
    breaks: list[str] = []
    first, before = "", None
    has_last = False
    for place, line in _numbered(files):
        text, its_link = parse_line(line)
        expected = its_link if before is None else link(before, text)
        if not its_link or its_link != expected:
            breaks.append(place)
        first = first or its_link
        has_last = has_last or ends is None or its_link == ends.last
        before = its_link or before
    if ends is None or (now := read_ends(path)) is None:
        return breaks
    if first != ends.first == now.first:  # else a file has become the former one meanwhile
        breaks.insert(0, f"{(files or [path])[0].name}:1")
    if not has_last and ends.first == now.first:
        breaks.append(f"{path.name}:{AT_END}")
    return breaks


def _numbered(files: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in files:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{path.name}:{number}", line
