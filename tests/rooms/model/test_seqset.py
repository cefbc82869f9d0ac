"""Sequence sets: what they mean in a mailbox, and their shortest form."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.model import ordering
from murder.model.message import Uid
from murder.model.seqset import (
    EVERYTHING,
    STAR,
    SeqSet,
    compress,
    compress_in_order,
    expand,
    holds,
    indexes_of_seqnums,
    indexes_of_uids,
    merge,
    size_of,
)

UIDS = [Uid(uid) for uid in (2, 3, 5, 8, 13, 21)]

MEANT_UIDS = [
    (((5, 5),), [5]),
    (((1, 4),), [2, 3]),
    (((4, 1),), [2, 3]),
    (((8, STAR),), [8, 13, 21]),
    (((STAR, 8),), [8, 13, 21]),
    (((559, STAR),), [21]),
    (((STAR, STAR),), [21]),
    (((6, 7),), []),
    (((13, 13), (2, 3), (3, 5)), [2, 3, 5, 13]),
    (((1, 4294967295),), UIDS),
]


@pytest.mark.parametrize(("ranges", "meant"), MEANT_UIDS)
def test_a_uid_set_means_the_messages_that_exist(
    ranges: tuple[tuple[int, int], ...], meant: list[int]
) -> None:
    picked = [
        uid
        for span in indexes_of_uids(SeqSet(ranges), UIDS)
        for uid in UIDS[span.start : span.stop]
    ]
    assert picked == meant


MEANT_SEQNUMS = [
    (((1, 1),), 3, [range(1)]),
    (((3, 2), (1, 1)), 3, [range(3)]),
    (((2, STAR),), 3, [range(1, 3)]),
    (((STAR, STAR),), 3, [range(2, 3)]),
    (((1, STAR),), 0, []),
]


@pytest.mark.parametrize(("ranges", "exists", "indexes"), MEANT_SEQNUMS)
def test_a_sequence_number_set_means_these_messages(
    ranges: tuple[tuple[int, int], ...], exists: int, indexes: list[range]
) -> None:
    assert indexes_of_seqnums(SeqSet(ranges), exists) == indexes


@pytest.mark.parametrize(("ranges", "exists"), [(((4, 4),), 3), (((1, 1),), 0), (((5, STAR),), 3)])
def test_a_number_above_exists_is_bad(ranges: tuple[tuple[int, int], ...], exists: int) -> None:
    with pytest.raises(BadSyntax):
        indexes_of_seqnums(SeqSet(ranges), exists)


def test_a_star_in_an_empty_mailbox_means_nothing() -> None:
    assert indexes_of_uids(EVERYTHING, []) == []
    assert EVERYTHING.resolved(0) == ()


def test_a_million_messages_are_one_range() -> None:
    uids = [Uid(uid) for uid in range(1, 1_000_001)]
    assert compress(uids) == ((1, 1_000_000),)
    assert indexes_of_uids(SeqSet(((500_000, STAR),)), uids) == [range(499_999, 1_000_000)]


def test_copyuid_keeps_its_order() -> None:
    assert compress_in_order([304, 319, 320]) == ((304, 304), (319, 320))
    assert compress_in_order([7, 8, 3]) == ((7, 8), (3, 3))


@given(st.sets(st.integers(1, 200)))
def test_compressed_and_expanded_is_the_same(numbers: set[int]) -> None:
    ranges = compress(sorted(numbers))
    assert list(expand(ranges)) == sorted(numbers)
    assert size_of(ranges) == len(numbers)
    assert all(holds(ranges, number) == (number in numbers) for number in range(202))
    assert all(low > before[1] + 1 for before, (low, _) in itertools.pairwise(ranges))


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60))))
def test_merged_ranges_hold_what_they_held(ranges: list[tuple[int, int]]) -> None:
    ordered = [(min(ends), max(ends)) for ends in ranges]
    expected = {number for low, high in ordered for number in range(low, high + 1)}
    assert list(expand(merge(ordered))) == sorted(expected)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30),
    st.sets(st.integers(1, 40), min_size=1),
)
def test_a_very_long_set_finds_what_a_short_one_does(
    ranges: list[tuple[int, int]], present: set[int]
) -> None:
    uids = [Uid(uid) for uid in sorted(present)]
    short = indexes_of_uids(SeqSet(tuple(ranges)), uids)
    long = indexes_of_uids(SeqSet(tuple(ranges) * 1001), uids)
    assert [at for span in long for at in span] == [at for span in short for at in span]


@pytest.mark.parametrize("count", [30_000, 60_000])
def test_no_more_than_a_run_is_sorted_at_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def noting(items: Sequence[Any], **named: Any) -> list[Any]:
        lengths.append(len(items))
        return sorted(items, **named)

    monkeypatch.setattr(ordering, "sorted", noting, raising=False)
    backwards = [(at, at) for at in range(2 * count, 0, -2)]
    assert merge(backwards) == tuple(reversed(backwards))
    assert lengths == [ordering.RUN] * (count // ordering.RUN)


def test_what_is_in_order_is_not_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heapq.merge", None)
    ranges = [(at, at) for at in range(1, 60_000, 2)]
    assert merge(ranges) == tuple(ranges)
    assert ordering.in_order(range(30_000, 0, -1), reverse=True) == list(range(30_000, 0, -1))
