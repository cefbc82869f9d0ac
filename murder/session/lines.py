"""A session whose commands are lines (POP3, LMTP), from the server's side, sans-IO.

Between commands come lines; a role may ask for dotted text (DATA) or for a number of octets (BDAT) next. Of a line it
holds no more than its limit; text and octets are given out as they come.
"""

from dataclasses import dataclass
from typing import Final

from murder.errors import BadSyntax
from murder.wire.dots import LineEnds, Unstuffer

# no command of POP3 or LMTP is longer, and a SASL response neither
MAX_LINE_OCTETS: Final = 64 * 1024
# of a text, looked at and passed on at once: 256 KiB may have come, all of it line ends or dots
PIECE_OCTETS: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of what was asked for; line ends are CR LF, dots are off."""

    octets: bytes
    last: bool


class LineSession:
    """Feed it with `receive`; ask `next_event` until it answers None ("need more").

    Raises BadSyntax where a line is longer than allowed: the stream cannot be cut any more.
    """

    __slots__ = (
        *("_buffer", "_ends", "_is_behind_cr", "_left", "_scanned", "_unstuffer", "max_line"),
    )
    is_behind = False  # what it looks through is bounded by a line

    def __init__(self, max_line: int) -> None:
        self.max_line = min(max_line, MAX_LINE_OCTETS)
        self._buffer = bytearray()
        self._scanned = 0
        self._unstuffer: Unstuffer | None = None
        self._ends: LineEnds | None = None
        self._is_behind_cr = False  # the chunk before ended between CR and LF, maybe
        self._left = 0

    def receive(self, data: bytes | memoryview) -> None:
        self._buffer += data

    @property
    def held(self) -> int:
        return len(self._buffer)

    @property
    def has_line(self) -> bool:
        """Whether a whole command is waiting."""
        return self._buffer.find(b"\n", self._scanned) >= 0

    def take_rest(self) -> bytes:
        """What came behind the present command, given up (before TLS) or to be passed on."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        return rest

    def expect_text(self) -> None:
        """Dotted text comes next (DATA)."""
        self._unstuffer = Unstuffer()

    def expect_octets(self, count: int, *, goes_on: bool = False) -> None:
        """So many octets come next (BDAT). `goes_on`: of the text that came before, which may be cut anywhere."""
        self._ends = LineEnds()
        self._is_behind_cr = self._is_behind_cr and goes_on
        self._left = count

    def next_event(self) -> Line | Text | None:
        if self._unstuffer is not None:
            return self._text(self._unstuffer)
        if self._ends is not None:
            return self._octets(self._ends)
        end = self._buffer.find(b"\n", self._scanned)
        if (end if end >= 0 else len(self._buffer)) > self.max_line:
            raise BadSyntax(f"a line may have {self.max_line} octets")
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        return Line(line.removesuffix(b"\r"))

    def _text(self, unstuffer: Unstuffer) -> Text | None:
        while self._buffer:
            text, rest = unstuffer.feed(self._take_piece())
            if rest is not None:
                self._unstuffer = None
                self._buffer[:0] = rest
                return Text(text, last=True)
            if text:
                return Text(text, last=False)
        return None

    def _take_piece(self) -> bytes:
        if len(self._buffer) <= PIECE_OCTETS:
            return self.take_rest()
        piece = bytes(self._buffer[:PIECE_OCTETS])
        del self._buffer[:PIECE_OCTETS]
        return piece

    def _octets(self, ends: LineEnds) -> Text | None:
        if not self._buffer and self._left:
            return None
        most = min(self._left, PIECE_OCTETS)
        octets = bytes(self._buffer[:most])
        del self._buffer[:most]
        self._left -= len(octets)
        is_last = self._left == 0
        if self._is_behind_cr and octets[:1] == b"\n":
            text = b"\n" + ends.feed(octets[1:], last=is_last)
        else:
            text = ends.feed(octets, last=is_last)
        if octets:
            self._is_behind_cr = is_last and octets[-1:] == b"\r"
        if is_last:
            self._ends = None
        return Text(text, last=is_last)
