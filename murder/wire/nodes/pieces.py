"""JSON of many megabytes, read in pieces: sets of UIDs become two columns of numbers, and no step is long.

`json.loads` of such a text holds the interpreter for a second and makes an object of a hundred octets of each few
characters. Here a step reads a thousand ranges at most, so that a thread that reads can be interrupted, and what is no
set of UIDs is bounded in number. Knows nothing of what the words mean.
"""

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

from murder.errors import BadSyntax

MAX_RANGES: Final = 1_000_000  # of one set: every other UID of a mailbox of two million messages
MAX_VALUES: Final = 3_000_000  # all that is no range: tombstones of a million messages, one by one
MAX_DEPTH: Final = 8
MAX_STRING: Final = 64 * 1024
_STEP: Final = 1000
_PAIR: Final = rb"\[[0-9]{1,10},[0-9]{1,10}\]"
_PAIRS: Final = re.compile(rb"(?:%b,){0,%d}+%b" % (_PAIR, _STEP - 1, _PAIR))
_STRING: Final = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\.){0,%d}+"' % MAX_STRING)
_ATOM: Final = re.compile(rb"-?[0-9]{1,20}|true|false|null")
_BRACKETS: Final = b"[]"


class Pairs(Sequence[tuple[int, int]]):
    """Ranges in two columns, as they were told."""

    __slots__ = ("highs", "lows")

    def __init__(self) -> None:
        self.lows = array("I")
        self.highs = array("I")

    def extend(self, octets: bytes) -> None:
        """Of `[1,2],[3,4]`. Raises BadSyntax."""
        try:
            numbers = array("I", map(int, octets.translate(None, _BRACKETS).split(b",")))
        except OverflowError:
            raise BadSyntax("a UID has 32 bits") from None
        self.lows.extend(numbers[0::2])
        self.highs.extend(numbers[1::2])
        if len(self.lows) > MAX_RANGES:
            raise BadSyntax(f"a set of UIDs may have {MAX_RANGES} ranges")

    def __len__(self) -> int:
        return len(self.lows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.lows, self.highs, strict=True)

    @overload
    def __getitem__(self, at: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, at: slice) -> "Sequence[tuple[int, int]]": ...
    def __getitem__(self, at: int | slice) -> "tuple[int, int] | Sequence[tuple[int, int]]":
        if isinstance(at, slice):
            return list(zip(self.lows[at], self.highs[at], strict=True))
        return self.lows[at], self.highs[at]


def loads_in_pieces(octets: bytes) -> Any:
    """The value of a JSON text without blanks, as our nodes write it; arrays of pairs of numbers are `Pairs`. Raises
    BadSyntax. For a thread."""
    reader = _Reader(octets)
    value = reader.value(0)
    if reader.at != len(octets):
        raise reader.problem("the end")
    return value


class _Reader:
    """Where the reading stands."""

    __slots__ = ("at", "left", "octets")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.at = 0
        self.left = MAX_VALUES

    def problem(self, expected: str) -> BadSyntax:
        rest = self.octets[self.at : self.at + 20]
        return BadSyntax(
            f"not valid JSON at octet {self.at}: {expected} was expected, not {rest!r}"
        )

    def value(self, depth: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise BadSyntax(f"a text may have {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise BadSyntax(f"values may be {MAX_DEPTH} deep")
        match self.octets[self.at : self.at + 1]:
            case b"{":
                return self._object(depth)
            case b"[":
                return self._array(depth)
            case b'"':
                return self._string()
        match = _ATOM.match(self.octets, self.at)
        if match is None:
            raise self.problem("a value")
        self.at = match.end()
        return json.loads(match.group())

    def _string(self) -> str:
        match = _STRING.match(self.octets, self.at)
        if match is None:
            raise self.problem("a string")
        self.at = match.end()
        try:
            return str(json.loads(match.group()))
        except ValueError as error:
            raise BadSyntax(f"not valid JSON: {error}") from None

    def _take(self, octet: bytes) -> bool:
        if self.octets[self.at : self.at + 1] != octet:
            return False
        self.at += 1
        return True

    def _object(self, depth: int) -> dict[str, Any]:
        self.at += 1
        fields: dict[str, Any] = {}
        if self._take(b"}"):
            return fields
        while True:
            key = self._string()
            if not self._take(b":"):
                raise self.problem("':'")
            fields[key] = self.value(depth + 1)
            if self._take(b"}"):
                return fields
            if not self._take(b","):
                raise self.problem("',' or '}'")

    def _array(self, depth: int) -> "list[Any] | Pairs":
        self.at += 1
        if self._take(b"]"):
            return []
        pairs = _PAIRS.match(self.octets, self.at)
        if pairs is not None:
            return self._pairs(pairs)
        values = []
        while True:
            values.append(self.value(depth + 1))
            if self._take(b"]"):
                return values
            if not self._take(b","):
                raise self.problem("',' or ']'")

    def _pairs(self, first: re.Match[bytes]) -> Pairs:
        pairs = Pairs()
        match: re.Match[bytes] | None = first
        while match is not None:
            pairs.extend(match.group())
            self.at = match.end()
            if self._take(b"]"):
                return pairs
            if not self._take(b","):
                raise self.problem("',' or ']'")
            match = _PAIRS.match(self.octets, self.at)
        raise self.problem("a range")
