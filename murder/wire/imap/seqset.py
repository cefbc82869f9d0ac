"""Sequence sets on the wire (RFC 3501 §9, RFC 5182 `$`)."""

import re
from collections.abc import Iterable
from typing import Final

from murder.errors import BadSyntax
from murder.model.message import MAX_UID
from murder.model.seqset import SAVED, STAR, SeqSet
from murder.wire.token import Scanner

# sequence-set = (seq-number / seq-range) *("," sequence-set)
# seq-range = seq-number ":" seq-number; seq-number = nz-number / "*"
_SET: Final = re.compile(rb"[0-9*:,]+")
_RANGE: Final = re.compile(rb"([1-9][0-9]{0,9}|\*)(?::([1-9][0-9]{0,9}|\*))?\Z")


def parse_seqset(scanner: Scanner) -> SeqSet:
    """A sequence set or `$`. Raises BadSyntax; numbers are 1 … 2**32 - 1."""
    if scanner.accept(b"$"):
        return SAVED
    match = _SET.match(scanner.octets, scanner.at)
    if match is None:
        raise scanner.bad("a sequence set")
    ranges = read_ranges(match.group(), scanner.at)
    scanner.at = match.end()
    return SeqSet(ranges)


def read_ranges(octets: bytes, offset: int = 0) -> tuple[tuple[int, int], ...]:
    """The ranges of a sequence set without `$`, as written."""
    ranges = []
    for part in octets.split(b","):
        match = _RANGE.match(part)
        if match is None:
            raise BadSyntax("a sequence set is numbers from 1, `*`, `:` and `,`", offset)
        first = _number(match.group(1))
        last = first if match.group(2) is None else _number(match.group(2))
        if first > MAX_UID or last > MAX_UID:
            raise BadSyntax(f"a sequence set has numbers up to {MAX_UID}", offset)
        ranges.append((first, last))
    return tuple(ranges)


def _number(octets: bytes) -> int:
    return STAR if octets == b"*" else int(octets)


def format_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """`1:4,7`: the ranges as they are; `compress` makes the shortest ones."""
    return b",".join(b"%d" % low if low == high else b"%d:%d" % (low, high) for low, high in ranges)


def format_seqset(sequence: SeqSet) -> bytes:
    """As it was written."""
    if sequence.is_saved:
        return b"$"
    return b",".join(
        _text(first) if first == last else _text(first) + b":" + _text(last)
        for first, last in sequence.ranges
    )


def _text(number: int) -> bytes:
    return b"*" if number == STAR else b"%d" % number
