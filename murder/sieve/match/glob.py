"""`:matches`: `*` for any characters, `?` for one, `\\` before either for itself (RFC 5228 §2.7.1).

Each wildcard has a value, as short as can be (RFC 5229 §3.2). Linear in the text, however many wildcards there are.
"""

import re
from dataclasses import dataclass
from typing import Final

from murder.sieve.match.regex import Pattern, compile_literal

ONE: Final = None
_TOKEN: Final = re.compile(r"\\(.?)|(\*)|(\?)|([^\\*?]+)", re.DOTALL)
WINDOW: Final = 64 * 1024  # characters looked at in one piece
COPYING: Final = 4  # weight of each `*` before a `?`: the rest of the text is copied for it
SEGMENTS: Final = 8  # that are as much work as to compare each character once more
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Segment:
    """What is between two `*`. `ones` are the places of its `?`."""

    size: int
    text: str  # where there is no `?`
    ones: tuple[int, ...]
    pattern: Pattern | None

    def find(self, text: str, start: int, end: int) -> int:
        """The first place in `[start, end)` at which it stands, else -1."""
        if self.pattern is None and self.ones:
            return start if start + self.size <= end else -1
        if self.pattern is not None:
            span = self.pattern.search(text, start, end)
            return -1 if span is None else span
        while end - start > WINDOW:
            position = text.find(self.text, start, min(end, start + WINDOW + self.size))
            if position >= 0:
                return position
            start += WINDOW
        return text.find(self.text, start, end)

    def stands(self, text: str, at: int) -> bool:
        """Whether it is at that place of the text."""
        if at < 0 or at + self.size > len(text):
            return False
        if not self.ones:
            return text.startswith(self.text, at)
        return self.pattern is None or self.pattern.stands(text, at, at + self.size)


class Glob:
    """A pattern, already folded."""

    __slots__ = ("_is_whole", "_segments", "patterns", "pieces", "weight")

    def __init__(self, pattern: str) -> None:
        """Raises ValueError where it is too large."""
        segments: list[Segment] = []
        tokens: list[str | None] = []
        for escaped, many, single, text in _TOKEN.findall(pattern):
            if many:
                segments.append(_segment(tokens))
                tokens = []
            else:
                tokens.append(ONE if single else escaped or text)
        self._is_whole = not segments
        segments.append(_segment(tokens))
        self._segments = tuple(segments)
        compiled = [segment.pattern for segment in segments if segment.pattern is not None]
        self.patterns = len(compiled)
        self.pieces = sum(1 + len(segment.ones) for segment in segments)
        widest = max((piece.weight for piece in compiled), default=0)
        self.weight = 1 + 4 * widest + COPYING * self.patterns + len(segments) // SEGMENTS

    def spans(self, text: str) -> list[Span] | None:
        """Where the text is that each wildcard stands for; None where it does not match."""
        first, last = self._segments[0], self._segments[-1]
        if self._is_whole and len(text) != first.size:
            return None
        if not first.stands(text, 0):
            return None
        spans = [(at, at + 1) for at in first.ones]
        if self._is_whole:
            return spans
        at = first.size
        for segment in self._segments[1:-1]:
            position = segment.find(text, at, len(text))
            if position < 0:
                return None
            spans.append((at, position))
            spans += [(position + single, position + single + 1) for single in segment.ones]
            at = position + segment.size
        end = len(text) - last.size
        if end < at or not last.stands(text, end):
            return None
        spans.append((at, end))
        spans += [(end + single, end + single + 1) for single in last.ones]
        return spans


def _segment(tokens: list[str | None]) -> Segment:
    size = sum(1 if token is ONE else len(token) for token in tokens)
    ones = []
    at = 0
    for token in tokens:
        if token is ONE:
            ones.append(at)
        at += 1 if token is ONE else len(token)
    text = "".join(token for token in tokens if token is not ONE)
    pattern = compile_literal(tokens) if ones and text else None
    return Segment(size, text, tuple(ones), pattern)
