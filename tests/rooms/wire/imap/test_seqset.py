"""Sequence sets as octets: long ones are read in pieces."""

import tracemalloc
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.model.seqset import SeqSet
from murder.wire.imap import seqset
from murder.wire.imap.seqset import format_seqset, parse_seqset, read_ranges
from murder.wire.token import Scanner

WRONG = [
    b"",
    b",",
    b"1,",
    b",1",
    b"1,,2",
    b"1:",
    b":1",
    b"0",
    b"1,0",
    b"1:2:3",
    b"*:",
    b"1:0",
    b"4294967296",
]


@pytest.mark.parametrize("count", [20_000, 40_000])
def test_a_long_set_is_read_in_pieces(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = seqset._read

    def noting(parts: Collection[bytes], octets: bytes, offset: int) -> Any:
        sizes.append(len(octets))
        return real(parts, octets, offset)

    monkeypatch.setattr(seqset, "_read", noting)
    octets = b",".join(b"%d:%d" % (at, at + 1) for at in range(1, 3 * count, 3))
    assert format_seqset(parse_seqset(Scanner(octets))) == octets
    assert max(sizes) <= seqset._PIECE_OCTETS + 22  # to the next comma
    assert sum(sizes) + len(sizes) - 1 == len(octets)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_what_is_no_set_is_none_in_pieces_either(
    wrong: bytes, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seqset, "_PIECE_OCTETS", piece)
    with pytest.raises(BadSyntax):
        parse_seqset(Scanner(wrong))
    with pytest.raises(BadSyntax):
        read_ranges(b"1,2,3," + wrong)


@given(st.lists(st.tuples(st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1)), min_size=1))
def test_pieces_are_the_whole(ranges: list[tuple[int, int]]) -> None:
    octets = b",".join(b"%d:%d" % ends for ends in ranges)
    whole = read_ranges(octets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seqset, "_PIECE_OCTETS", 7)
        assert read_ranges(octets) == whole == tuple(ranges)


def test_a_long_set_is_kept_in_little_more_than_it_was_written_in() -> None:
    """As tuples it took twenty times that, for each of the commands that ran."""
    octets = b",".join(b"%d" % uid for uid in range(100_000, 300_000, 2))
    tracemalloc.start()
    try:
        sequence = parse_seqset(Scanner(octets))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 3 * len(octets)
    ranges = tuple((uid, uid) for uid in range(100_000, 300_000, 2))
    assert sequence == SeqSet(ranges) and hash(sequence) == hash(SeqSet(ranges))
    assert sequence.ranges[-1] == ranges[-1] and tuple(sequence.ranges[5:9]) == ranges[5:9]
    assert sequence.resolved(9) == ranges and not sequence.has_star


def test_the_last_message_in_a_long_set_is_known() -> None:
    octets = b",".join(b"%d" % uid for uid in range(100_000, 300_000, 2)) + b",*"
    sequence = parse_seqset(Scanner(octets))
    assert sequence.has_star and sequence.resolved(7)[0] == (7, 7)
    assert format_seqset(sequence) == octets
