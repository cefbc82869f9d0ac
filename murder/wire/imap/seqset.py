"""Sequence sets on the wire (RFC 3501 §9, RFC 5182 `$`)."""

import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from murder.errors import BadSyntax
from murder.model.message import MAX_UID
from murder.model.pieces import pieces
from murder.model.seqset import SAVED, STAR, Packed, SeqSet
from murder.wire.token import Scanner

# sequence-set = (seq-number / seq-range) *("," sequence-set)
# seq-range = seq-number ":" seq-number; seq-number = nz-number / "*"
_CHARACTERS: Final = re.compile(rb"[0-9*:,]+")
_NUMBER_OCTETS: Final = 10  # digits of the largest number
_PIECE_OCTETS: Final = 16 * 1024  # read at once: about a millisecond


def parse_seqset(scanner: Scanner) -> SeqSet:
    """A sequence set or `$`. Raises BadSyntax; numbers are 1 … 2**32 - 1. What is named again is left out, and costs next to
    nothing. A long one is read piece by piece, so that a thread that does it can be interrupted."""
    if scanner.accept(b"$"):
        return SAVED
    match = _CHARACTERS.match(scanner.octets, scanner.at)
    if match is None:
        raise scanner.bad("a sequence set")
    octets = match.group()
    if octets.isdigit() and len(octets) < _NUMBER_OCTETS and octets[0] != 0x30:  # one message
        scanner.at = match.end()
        number = int(octets)
        return SeqSet(((number, number),))
    if len(octets) <= _PIECE_OCTETS:
        whole = tuple(_read(dict.fromkeys(octets.split(b",")), octets, scanner.at))
        scanner.at = match.end()
        return SeqSet(whole)
    ends = array("I")
    for piece in _pieces(octets):
        read = _read(dict.fromkeys(piece.split(b",")), piece, scanner.at)
        ends.extend(chain.from_iterable(read))
    scanner.at = match.end()
    return SeqSet(Packed(ends))


def _pieces(octets: bytes) -> Iterator[bytes]:
    """A long set in pieces between its commas."""
    at = 0
    while len(octets) - at > _PIECE_OCTETS:
        end = octets.find(b",", at + _PIECE_OCTETS)
        if end < 0:
            break
        yield octets[at:end]
        at = end + 1
    yield octets[at:]


def read_ranges(octets: bytes, offset: int = 0) -> tuple[tuple[int, int], ...]:
    """The ranges of a sequence set without `$`, as written."""
    ranges: list[tuple[int, int]] = []
    for piece in _pieces(octets):
        ranges += _read(piece.split(b","), piece, offset)
    return tuple(ranges)


def _read(parts: Collection[bytes], octets: bytes, offset: int) -> Sequence[tuple[int, int]]:
    """A set may have a hundred thousand parts, so what can be looked at for many of them at once is."""
    if octets.startswith(b"0") or b",0" in octets or b":0" in octets:
        raise _wrong(offset)  # it would be read as a number, but is none
    if max(map(len, parts)) > 2 * _NUMBER_OCTETS + 1 or not _CHARACTERS.fullmatch(octets):
        raise _wrong(offset)
    try:
        if b":" not in octets and b"*" not in octets:
            numbers = list(map(int, parts))
            largest = max(numbers)
            ranges = list(zip(numbers, numbers, strict=True))
        else:
            ranges = [
                ((number := int(part)), number) if part.isdigit() else _range(part)
                for part in parts
            ]
            largest = max(map(max, ranges))
    except ValueError:
        raise _wrong(offset) from None
    if largest > MAX_UID:
        raise BadSyntax(f"a sequence set has numbers up to {MAX_UID}", offset)
    return ranges


def _wrong(offset: int) -> BadSyntax:
    return BadSyntax("a sequence set is numbers from 1, `*`, `:` and `,`", offset)


def _range(part: bytes) -> tuple[int, int]:
    """Raises ValueError."""
    first, mark, last = part.partition(b":")
    low = STAR if first == b"*" else int(first)
    if not mark:
        return low, low
    return low, STAR if last == b"*" else int(last)


def format_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """`1:4,7`: the ranges as they are; `compress` makes the shortest ones."""
    each = (b"%d" % low if low == high else b"%d:%d" % (low, high) for low, high in ranges)
    return b",".join([b",".join(some) for some in pieces(each)])


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
