"""Cuts a stream of octets into messages: a line with the literals it announces, up to the line that ends it.

For IMAP and MUPDATE, servers and clients (RFC 3501 §4.3, RFC 7888); `literal` says what announces one.
It never waits, never re-reads what it has seen, and holds at most `max_line` + `max_message` octets. A message comes out as
one `bytes` with its literals in place. What is to happen with a literal that is not simply collected (it is
synchronising, or large) is asked of the caller, which answers with `accept`, `stream` or `refuse`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from murder.errors import BadSyntax, Misuse
from murder.wire.literal import Announced, announced_at_end

T = TypeVar("T")

# RFC 7162 §4 wants 8192 of servers; a UID set of 100,000 messages that are no ranges has 700,000
MAX_LINE_OCTETS: Final = 1024 * 1024
MAX_MESSAGE_OCTETS: Final = 1024 * 1024  # a command with all its collected literals
# non-synchronising literals up to this are collected without asking
COLLECT_OCTETS: Final = 16 * 1024
# of a message that is thrown away; beyond it the stream is given up
MAX_SKIP_OCTETS: Final = 64 * 1024 * 1024
# literals of one message that are asked about, each with a copy of all before it
MAX_ASKED: Final = 1000
MAX_COLLECTED: Final = (
    2000  # literals of one message that are not: five milliseconds; real messages of a MULTIAPPEND
    # fill `MAX_MESSAGE_OCTETS` with fewer
)
# pieces that wait as they came: of an octet each they take fifty times as much
MAX_LOOSE: Final = 500
KEPT_OCTETS: Final = 16 * 1024  # of a block that has been given out, until the next one comes
UNBOUNDED: Final = 1 << 62
# lines with small literals that are cut in one turn of a loop: three milliseconds
STEPS: Final = 1000
_HEAD_OCTETS: Final = 400  # of a message that is too long: its tag and name are in them
_TAIL_OCTETS: Final = 64  # of its unfinished line: a literal that it announces is in them


@dataclass(frozen=True, slots=True)
class Literal:
    """An announced literal. `head` is the whole message up to and with the announcing line."""

    head: bytes
    size: int
    synchronising: bool
    is_binary: bool = False
    # it is spelt as not everybody reads it: it can only be refused
    problem: BadSyntax | None = None


@dataclass(frozen=True, slots=True)
class TooLong:
    """A message beyond a limit, of which `head` is the beginning. All of it is thrown away as it comes."""

    head: bytes
    error: BadSyntax


@dataclass(frozen=True, slots=True)
class Chunk:
    """Octets of a literal that is being streamed. `last`: no more of it follows (the message goes on)."""

    data: bytes
    last: bool


Fragment = bytes | Literal | Chunk | TooLong | None


class Fragmenter:
    """Octets in by `feed`, fragments out by `next`: whole messages (`bytes`), `Literal` to be decided, `Chunk`, or
    None for "need more". A line or message beyond its limits is BadSyntax, and the stream is then lost; where it is
    `lenient` it is told as TooLong, and the stream goes on behind it."""

    __slots__ = (
        "_asked",
        "_asked_before",
        "_at",
        "_begin",
        "_buffer",
        "_collected",
        "_discard",
        "_discarded",
        "_lenient",
        "_literal_left",
        "_loose",
        "_newline",
        "_pending",
        "_pending_octets",
        "_scan",
        "_stream_empty",
        "collect_octets",
        "is_behind",
        "max_line",
        "max_message",
        "max_skip",
        "most_steps",
    )

    def __init__(
        self,
        max_line: int = MAX_LINE_OCTETS,
        max_message: int = MAX_MESSAGE_OCTETS,
        collect_octets: int = COLLECT_OCTETS,
        lenient: bool = False,
    ) -> None:
        self.max_line = max_line
        self.max_message = max_message
        self.collect_octets = collect_octets
        self.max_skip = MAX_SKIP_OCTETS
        self.most_steps = UNBOUNDED  # of one `next`: see `is_behind`
        self.is_behind = False  # the last `next` has given up before the end of what is held
        self._lenient = lenient
        self._buffer = b""
        self._begin = 0  # where the present message begins in the buffer
        self._at = 0  # where its present line begins
        self._scan = 0  # up to where that line was searched for its end
        self._literal_left = 0  # octets of a literal still to come (streaming or discarding)
        self._stream_empty = False  # a streamed literal of size 0 still owes its last Chunk
        self._pending: list[bytes] = []  # fed, and not yet joined to the buffer
        self._pending_octets = 0
        self._loose = 0  # so many of them, the last ones, are as they came
        self._newline = False  # whether one of these holds an LF
        self._discard = False  # the rest of this message is thrown away
        self._discarded = 0  # how much of it was
        self._asked: Literal | None = None
        self._asked_before = 0  # in this message
        self._collected = 0  # so many literals, in this message

    def feed(self, data: bytes | memoryview) -> None:
        """Add octets. They are joined to what is held only when that can complete something, so that a message
        fed octet by octet costs no more than linear time."""
        if self._begin == len(self._buffer) and not self._pending:
            self._buffer = bytes(data)
            self._begin = self._at = self._scan = 0
            return
        octets = bytes(data)
        self._pending.append(octets)
        self._pending_octets += len(octets)
        self._loose += 1
        if self._loose == MAX_LOOSE:
            self._pending[-MAX_LOOSE:] = [b"".join(self._pending[-MAX_LOOSE:])]
            self._loose = 0
        self._newline = self._newline or b"\n" in octets

    def _join(self) -> None:
        """Bring the pending octets into the buffer, if something could be complete then."""
        if not self._pending:
            return
        octets = len(self._buffer) + self._pending_octets
        beyond = octets - self._at
        if self._literal_left or (beyond > 0 and (self._newline or beyond > self.max_line)):
            begin = self._begin
            self._buffer = b"".join((self._buffer[begin:], *self._pending))
            self._pending.clear()
            self._pending_octets = self._loose = 0
            self._newline = False
            self._at -= begin
            self._scan -= begin
            self._begin = 0

    @property
    def held(self) -> int:
        """Octets fed and not yet given out."""
        return len(self._buffer) - self._begin + self._pending_octets

    @property
    def is_between(self) -> bool:
        """Whether nothing is held, and what comes next begins a message."""
        return not (
            self._begin != len(self._buffer)
            or self._pending
            or self._asked is not None
            or self._literal_left
            or self._stream_empty
            or self._discard
        )

    def take_rest(self) -> bytes:
        """Give up cutting: all octets not yet given out (the caller changes protocol: COMPRESS, a relay)."""
        rest = b"".join((self._buffer[self._begin :], *self._pending))
        self._pending.clear()
        self._pending_octets = self._loose = 0
        self._buffer = b""
        self._begin = self._at = self._scan = 0
        return rest

    def take_matches(self, pattern: re.Pattern[bytes], most: int) -> list[tuple[bytes, ...]]:
        """At most `most` messages that are next in line and match `pattern` (line end included), as its groups: for a
        bulk of simple ones, several times as fast as one by one. Empty in the middle of a message."""
        taken: list[tuple[bytes, ...]] = []
        if self._asked is not None or self._literal_left or self._stream_empty:
            return taken
        self._join()
        if self._at != self._begin or self._discard:
            return taken
        buffer, at, match = self._buffer, self._begin, pattern.match
        while len(taken) < most and (matched := match(buffer, at)) is not None:
            taken.append(matched.groups())
            at = matched.end()
        if taken:
            self._begin = self._at = self._scan = at
        return taken

    def take_run(
        self,
        pattern: re.Pattern[bytes],
        most_octets: int,
        read: Callable[[re.Match[bytes]], T | None],
        joins: Callable[[T], bool],
        most: int,
    ) -> list[T]:
        """What `read` makes of whole messages that are next in line, where each matches `pattern` (line end included) and
        has no more than `most_octets`: the commonest ones are found in one step. Of as many as join others, or of a single
        one that does not. None is taken of which it makes nothing, and none in the middle of a message."""
        run: list[T] = []
        if self._pending:
            self._join()
        at = self._begin
        if self._scan != at or self._literal_left or self._stream_empty or self._discard:
            return run
        buffer, match = self._buffer, pattern.match
        while len(run) < most and (matched := match(buffer, at, at + most_octets)) is not None:
            made = read(matched)
            if made is None:
                break
            is_joining = joins(made)
            if run and not is_joining:
                break
            run.append(made)
            at = matched.end()
            if not is_joining:
                break
        if run:
            self._begin = self._at = self._scan = at
        return run

    def peek_lines(self, most: int) -> bytes:
        """At most `most` octets of whole lines that are next; b"" in the middle of a message. `skip` takes them."""
        if self._asked is not None or self._literal_left or self._stream_empty:
            return b""
        self._join()
        if self._at != self._begin or self._discard:
            return b""
        begin = self._begin
        return self._buffer[begin : self._buffer.rfind(b"\n", begin, begin + most) + 1]

    def skip(self, octets: int) -> None:
        """Take what `peek_lines` gave, or its first messages."""
        self._begin = self._at = self._scan = self._begin + octets

    def next(self) -> Fragment:
        """The next fragment, or None if more octets are needed, or (`is_behind`) another call."""
        self.is_behind = False
        if self._asked is not None:
            return self._asked
        if self._pending:
            self._join()
        elif self._begin == len(self._buffer) and not self._stream_empty:  # nothing is held
            if self._begin > KEPT_OCTETS:
                self._let_go()
            return None
        if self._stream_empty:
            self._stream_empty = False
            return Chunk(b"", last=True)
        left = self.most_steps
        while True:
            if self._literal_left:
                chunk = self._literal_octets()
                if chunk is None and self._begin > KEPT_OCTETS:
                    self._let_go()
                if chunk is not None or self._literal_left:
                    return chunk
                continue
            line = self._next_line()
            if line is None:
                if self._begin > KEPT_OCTETS:
                    self._let_go()
                return None
            if not isinstance(line, _Skipped):
                return line
            left -= 1
            if not left:
                self.is_behind = True
                return None

    def _let_go(self) -> None:
        """More is needed, which may never come: of a large block no more is held than is not yet given out."""
        begin = self._begin
        if 2 * begin > len(self._buffer):
            self._buffer = self._buffer[begin:]
            self._at -= begin
            self._scan -= begin
            self._begin = 0

    def _next_line(self) -> "bytes | Literal | TooLong | _Skipped | None":
        buffer = self._buffer
        end = buffer.find(b"\n", self._scan) + 1
        if not end:
            self._scan = max(self._scan, len(buffer))
            if self._discard:
                self._forget(max(self._at, len(buffer) - _TAIL_OCTETS))
            elif len(buffer) - self._at > self.max_line:
                return self._too_long(f"a line may have {self.max_line} octets", self._at)
            return None
        if end - self._at > self.max_line and not self._discard:
            return self._too_long(f"a line may have {self.max_line} octets", self._at)
        announced = None
        if buffer[end - 2 : end - 1] == b"}" or buffer[end - 3 : end - 1] == b"}\r":
            announced = announced_at_end(buffer, self._at, end)
        if announced is None:
            return self._finish(end)
        return self._announce(announced, end)

    def _finish(self, end: int) -> "bytes | _Skipped":
        message = self._buffer[self._begin : end]
        self._begin = self._at = self._scan = end
        self._asked_before = self._collected = 0
        if self._discard:
            self._discard = False
            return _SKIPPED
        return message

    def _too_long(self, text: str, line: int) -> TooLong:
        """Throw the message away, from `line` on what is still to be cut."""
        error = BadSyntax(text)
        if not self._lenient:
            raise error
        event = TooLong(self._buffer[self._begin : self._begin + _HEAD_OCTETS], error)
        self._discard = True
        self._discarded = 0
        self._begin = self._at = self._scan = line
        return event

    def _forget(self, at: int) -> None:
        """Let go of the octets before `at` of a message that is thrown away. Raises BadSyntax where it does not end."""
        self._discarded += at - self._begin
        self._buffer = self._buffer[at:]
        self._begin = self._at = 0
        self._scan = max(0, self._scan - at)
        self._count_discarded(0)

    def _count_discarded(self, octets: int) -> None:
        self._discarded += octets
        if self._discarded > self.max_skip:
            raise BadSyntax(
                f"no more than {self.max_skip} octets of a refused command are waited for"
            )

    def _announce(self, announced: Announced, end: int) -> "Literal | TooLong | _Skipped | None":
        size = announced.size
        if self._discard:
            if not announced.synchronising:  # a synchronising one never comes: nobody asks for it
                self._count_discarded(size)
                self._begin = self._at = self._scan = end
                self._literal_left = size
                return _SKIPPED
            self._finish(end)
            return _SKIPPED
        collected = not announced.synchronising and size <= self.collect_octets
        if collected and announced.is_spelt_right:
            self._collected = self._collected + 1 if self._at != self._begin else 1
            if self._collected > MAX_COLLECTED:
                return self._too_long(f"a command may have {MAX_COLLECTED} literals", self._at)
            if end - self._begin + size > self.max_message:
                return self._too_long(f"a command may have {self.max_message} octets", self._at)
            self._at = self._scan = end + size
            return _SKIPPED
        self._asked_before = self._asked_before + 1 if self._at != self._begin else 1
        if self._asked_before > MAX_ASKED:
            return self._too_long(f"a command may have {MAX_ASKED} literals", self._at)
        self._asked = Literal(
            self._buffer[self._begin : end],
            size,
            announced.synchronising,
            announced.is_binary,
            announced.problem,
        )
        self._at = self._scan = end
        return self._asked

    def _literal_octets(self) -> Chunk | None:
        """Octets of a literal that is not collected: given out, or thrown away."""
        available = min(self._literal_left, len(self._buffer) - self._begin)
        if not available:
            return None
        data = self._buffer[self._begin : self._begin + available]
        self._begin += available
        self._at = self._scan = self._begin
        self._literal_left -= available
        if self._discard:
            return None
        return Chunk(data, last=not self._literal_left)

    def _answered(self) -> Literal:
        if self._asked is None:
            raise Misuse("no literal was announced")
        asked, self._asked = self._asked, None
        return asked

    def accept(self) -> None:
        """Collect the announced literal into the message. Raises BadSyntax where that passes `max_message`, or for one that
        not everybody reads alike."""
        asked = self._answered()
        if asked.problem is not None:
            raise asked.problem
        if len(asked.head) + asked.size > self.max_message:
            raise BadSyntax(f"a command may have {self.max_message} octets")
        self._at = self._scan = self._begin + len(asked.head) + asked.size

    def stream(self) -> None:
        """Let go of the message so far; the literal comes as Chunks, then the rest as a message of its own."""
        asked = self._answered()
        if asked.problem is not None:
            raise asked.problem
        self._begin = self._at = self._scan = self._begin + len(asked.head)
        self._asked_before = self._collected = 0
        self._literal_left = asked.size
        self._stream_empty = not asked.size

    def refuse(self) -> None:
        """Throw the message away: a synchronising literal will not come, any other is skipped with what follows. Raises
        BadSyntax where that is more than `max_skip`."""
        asked = self._answered()
        self._begin = self._at = self._scan = self._begin + len(asked.head)
        if not asked.synchronising:
            self._discard = True
            self._discarded = 0
            self._count_discarded(asked.size)
            self._literal_left = asked.size


class _Skipped:
    """Go on: this line gave nothing to the caller."""

    __slots__ = ()


_SKIPPED: Final = _Skipped()
