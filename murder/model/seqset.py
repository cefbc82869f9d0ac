"""Sets of sequence numbers or UIDs as a client names them, and the messages they mean.

RFC 3501 §9 `sequence-set`, RFC 5182 `$`. A set is kept as it was written, since `*` has a value only where a
mailbox is known. Cost goes with the number of ranges, not with the size of the mailbox. Knows no octets.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, overload

from murder.errors import BadSyntax
from murder.model.message import Uid
from murder.model.ordering import RUN, in_order

STAR: Final = 0  # `*` in a range; no message has this number

_MANY: Final = 2**64
_MANY_RANGES: Final = 1000  # so many are looked for in another way

Ranges = tuple[tuple[int, int], ...]  # ascending, apart from each other, both ends included


class Packed(Sequence[tuple[int, int]]):
    """The ranges of a long set in eight octets each, made of an array of "I". As tuples they are twenty
    times what was written, for as long as their command runs."""

    __slots__ = ("_ends",)

    def __init__(self, ends: "array[int]") -> None:
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) // 2

    def __iter__(self) -> Iterator[tuple[int, int]]:
        ends = iter(self._ends)
        return zip(ends, ends, strict=True)

    @overload
    def __getitem__(self, at: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, at: slice) -> "Packed": ...
    def __getitem__(self, at: "int | slice") -> "tuple[int, int] | Packed":
        if isinstance(at, slice):
            return Packed(array("I", chain.from_iterable(list(self)[at])))
        at = range(len(self))[at]
        return self._ends[2 * at], self._ends[2 * at + 1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed | tuple) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


@dataclass(frozen=True, slots=True)
class SeqSet:
    """Ranges as written: in any order, either end first, `STAR` for `*`. `is_saved`: it is `$`, the result of
    the last SEARCH RETURN (SAVE); the session then gives its ranges."""

    ranges: Sequence[tuple[int, int]] = ()
    is_saved: bool = False

    @property
    def has_star(self) -> bool:
        """Whether what it means depends on the last message."""
        return any(STAR in ends for ends in self.ranges)

    def resolved(self, largest: int) -> Ranges:
        """The ranges in order and merged, with `largest` for `*` (0: the mailbox is empty, then `*` is nothing).

        RFC 3501: `559:*` contains the last message even where its number is below 559.
        """
        if len(self.ranges) == 1 and largest:  # mostly
            first, last = self.ranges[0]
            first, last = first or largest, last or largest
            return ((first, last) if first <= last else (last, first),)
        if not largest:
            return merge(_ordered(ends for ends in self.ranges if STAR not in ends))
        known = ((first or largest, last or largest) for first, last in self.ranges)
        return merge(_ordered(known))


def _ordered(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return [ends if ends[0] <= ends[1] else ends[::-1] for ends in ranges]


SAVED: Final = SeqSet(is_saved=True)
EVERYTHING: Final = SeqSet(((1, STAR),))


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Put ranges in order, and together where they touch. A thread that does this for many can be interrupted."""
    ordered = list(ranges)
    if len(ordered) > RUN:
        ordered = in_order(ordered)
    else:
        ordered.sort()
    if not ordered:
        return ()
    merged: list[tuple[int, int]] = []
    begin, end = ordered[0]
    for low, high in ordered:
        if low > end + 1:
            merged.append((begin, end))
            begin, end = low, high
        elif high > end:
            end = high
    merged.append((begin, end))
    return tuple(merged)


def intersect(sets: Iterable[Ranges]) -> Ranges:
    """What is in all of the sets; all numbers if there is none. As the rest of the rests put together, so that many sets
    cost what their ranges are together."""
    return _rest(merge(chain.from_iterable(map(_rest, sets))))


def _rest(ranges: Ranges) -> Ranges:
    """All numbers that are not in these ranges."""
    starts = (1, *(high + 1 for _, high in ranges))
    ends = (*(low - 1 for low, _ in ranges), _MANY)
    return tuple((low, high) for low, high in zip(starts, ends, strict=True) if low <= high)


def compress(numbers: Iterable[int]) -> Ranges:
    """Ascending numbers as ranges (the shortest form a set can have); one may come again."""
    ranges: list[tuple[int, int]] = []
    low = high = -1
    for number in numbers:
        if number == high + 1 and ranges:
            high = number
            continue
        if number == high:
            continue
        if low >= 0:
            ranges[-1] = (low, high)
        ranges.append((number, number))
        low = high = number
    if ranges:
        ranges[-1] = (low, high)
    return tuple(ranges)


def compress_in_order(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Numbers in any order as ranges that keep that order (COPYUID pairs two sets by position)."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)


def expand(ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Every number of the ranges, in order."""
    for low, high in ranges:
        yield from range(low, high + 1)


def size_of(ranges: Ranges) -> int:
    """How many numbers the ranges hold."""
    return sum([high - low for low, high in ranges]) + len(ranges)


def holds(ranges: Ranges, number: int) -> bool:
    """Whether `number` is in one of the ranges."""
    at = bisect_right(ranges, (number, 2**64)) - 1
    return at >= 0 and ranges[at][0] <= number <= ranges[at][1]


def indexes_of_uids(sequence: SeqSet, uids: Sequence[Uid]) -> list[range]:
    """Where in the ascending array `uids` the messages of a UID set are, as index ranges (0-based), ascending.

    UIDs that do not exist are no error (RFC 3501 §6.4.8). Add 1 to an index for its sequence number.
    """
    if not uids:
        return []
    if len(sequence.ranges) > _MANY_RANGES:
        return _indexes_of_many(sequence, uids)
    return _indexes_of_ranges(sequence.resolved(uids[-1]), uids)


def _indexes_of_ranges(ranges: Ranges, uids: Sequence[Uid]) -> list[range]:
    spans = []
    begin = 0
    for low, high in ranges:
        begin = bisect_left(uids, low, begin)
        end = bisect_right(uids, high, begin)
        if begin < end:
            spans.append(range(begin, end))
            begin = end
    return spans


def _indexes_of_many(sequence: SeqSet, uids: Sequence[Uid]) -> list[range]:
    """Nearly all parts of a very long set are single UIDs: those are looked for in one walk over the mailbox."""
    single = {low for low, high in sequence.ranges if low == high}
    others = SeqSet(tuple([ends for ends in sequence.ranges if ends[0] != ends[1]]))
    if STAR in single:
        single.add(uids[-1])
    pairs = [(at, at) for at, uid in enumerate(uids) if uid in single]
    spans = _indexes_of_ranges(others.resolved(uids[-1]), uids)
    pairs += [(span.start, span.stop - 1) for span in spans]
    return [range(first, last + 1) for first, last in merge(pairs)]


def indexes_of_seqnums(sequence: SeqSet, exists: int) -> list[range]:
    """Where the messages of a sequence number set are, as index ranges (0-based), ascending.

    Raises BadSyntax for a number above `exists` (RFC 3501 §6.4.5 and §9 `seq-number`); only a `*` in an empty
    mailbox is forgiven, because many clients ask `FETCH 1:*` of any mailbox.
    """
    ranges = sequence.resolved(exists)
    if ranges and ranges[-1][1] > exists:
        raise BadSyntax(f"there is no message {ranges[-1][1]}: the mailbox has {exists}")
    return [range(low - 1, high) for low, high in ranges]
