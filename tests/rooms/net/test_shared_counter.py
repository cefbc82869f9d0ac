"""What workers count together: each its own part, all of them read; whoever comes after one that died begins anew."""

import math
import mmap
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.net.shared_counter import (
    PART_OCTETS,
    PROBES,
    SLOTS,
    TABLES,
    Counts,
    Row,
    SharedCounter,
    SharedTable,
)


def parts(count: int) -> list[Counts]:
    """Those of so many workers."""
    memory = mmap.mmap(-1, TABLES * count * PART_OCTETS)
    return [Counts(memory, count, own) for own in range(count)]


def test_a_limit_holds_over_all_workers() -> None:
    one, two = (SharedCounter(counts.users()) for counts in parts(2))
    assert [counter.enter("ana", 3) for counter in (one, two, one, two, one)] == [
        *(True, True, True),
        *(False, False),
    ]
    assert two.enter("bob", 3)
    one.leave("ana")
    assert two.enter("ana", 3)
    assert not one.enter("ana", 3)


def test_a_limit_that_comes_later_counts_who_is_there() -> None:
    one, two = (SharedCounter(counts.addresses()) for counts in parts(2))
    for _ in range(4):
        assert one.enter("192.0.2.1", 0)
    one.publish()
    assert not two.enter("192.0.2.1", 4)
    one.leave("192.0.2.1")
    assert two.enter("192.0.2.1", 4)


def test_what_a_worker_counted_goes_with_it() -> None:
    memory = mmap.mmap(-1, TABLES * 2 * PART_OCTETS)
    gone, other = (SharedCounter(Counts(memory, 2, own).users()) for own in range(2))
    assert gone.enter("ana", 2)
    assert gone.enter("ana", 2)
    assert not other.enter("ana", 2)
    successor = SharedCounter(Counts(memory, 2, 0).users())
    assert other.enter("ana", 2)
    assert successor.enter("ana", 2)
    assert not successor.enter("ana", 2)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.booleans())))
def test_as_one_counter_would(steps: list[tuple[int, int, bool]]) -> None:
    tallies = [SharedCounter(counts.users()) for counts in parts(3)]
    there: list[Counter[int]] = [Counter() for _ in tallies]
    for worker, user, comes in steps:
        if comes:
            has_room = sum(counter[user] for counter in there) < 4
            assert tallies[worker].enter(str(user), 4) is has_room
            there[worker][user] += has_room
        elif there[worker][user]:
            there[worker][user] -= 1
            tallies[worker].leave(str(user))


def test_the_oldest_makes_room_where_all_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_dead(row: Row) -> bool:
        return False

    def same_place(key: str) -> int:
        return int(key) * SLOTS

    monkeypatch.setattr("murder.net.shared_counter._digest", same_place)
    board: SharedTable = parts(1)[0].failures(is_dead)
    for number in range(1, PROBES + 11):
        board.put(str(number), Row(1, float(number)))
    known = [number for number in range(1, PROBES + 11) if any(board.rows(str(number)))]
    assert known == list(range(11, PROBES + 11))


def test_the_newest_of_all_workers_is_known() -> None:
    one, two = (counts.failures(lambda row: not row.count) for counts in parts(2))
    assert one.newest() == -math.inf
    two.put("192.0.2.1", Row(1, 7.5))
    assert one.newest() == two.newest() == 7.5
    one.put("192.0.2.1", Row(0, 0.0, 9.0))
    assert one.newest() == 7.5


def test_what_workers_count_is_found_also_behind_keys_of_the_same_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def same_place(key: str) -> int:
        return int(key) * SLOTS

    monkeypatch.setattr("murder.net.shared_counter._digest", same_place)
    boards = [counts.users() for counts in parts(2)]
    one, two = (SharedCounter(board) for board in boards)
    for key, of_one, of_two in (("1", 3, 5), ("2", 1, 2), ("3", 4, 1)):
        most = of_one + of_two
        assert all(one.enter(key, most) for _ in range(of_one))
        assert all(two.enter(key, most) for _ in range(of_two))
        assert not one.enter(key, most)
        assert not two.enter(key, most)
        one.leave(key)
        assert two.enter(key, most)
        two.leave(key)
        assert one.enter(key, most)
    assert [row.count for row in boards[0].rows("2")] == [1, 2]
    assert two.enter("4", 1)
