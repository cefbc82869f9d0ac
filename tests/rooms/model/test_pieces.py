"""Much is gone over, and freed, a piece at a time: nothing here gives one call of C more than that."""

import gc
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from murder.kit import rows
from murder.model import pieces
from murder.model.query import thread
from murder.model.query.thread import Threadable, by_ordered_subject, by_references
from murder.model.seqset import compress
from murder.wire.imap import seqset
from murder.wire.imap.mail import thread as told
from tests.kit.steps import garbage_kept

PIECE = 10


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pieces, thread, told):
        monkeypatch.setattr(module, "PIECE", PIECE)


class Thing:
    """Tells when it goes."""

    alive = 0

    def __init__(self) -> None:
        Thing.alive += 1

    def __del__(self) -> None:
        Thing.alive -= 1


class Many(list[Thing]):
    """Counts how many go at once."""

    most = 0

    def __delitem__(self, at: object) -> None:
        before = Thing.alive
        super().__delitem__(at)  # type: ignore[arg-type] # as it came
        self.most = max(self.most, before - Thing.alive)


@pytest.mark.parametrize("count", [0, 3, 95, 190])
def test_a_list_is_let_go_of_a_piece_at_a_time(count: int) -> None:
    many = Many([Thing() for _ in range(count)])
    pieces.let_go(many)
    assert not many
    assert many.most == min(count, PIECE)
    assert not Thing.alive


@pytest.mark.parametrize("count", [0, 7, 10, 95])
def test_sets_and_lists_are_what_they_would_be_at_once(count: int) -> None:
    numbers = list(range(count))
    assert [number for some in pieces.pieces(numbers) for number in some] == numbers
    assert all(0 < len(some) <= PIECE for some in pieces.pieces(numbers))
    assert pieces.set_of(numbers) == set(numbers)
    left = set(range(100))
    pieces.take_off(left, numbers)
    assert left == set(range(count, 100))


@pytest.mark.parametrize("count", [0, 1, 95, 190])
def test_numbers_become_text_a_piece_at_a_time(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    real = json.dumps

    def dumps(numbers: list[int]) -> str:
        given.append(len(numbers))
        return real(numbers)

    numbers = range(1, 2 * count, 2)
    monkeypatch.setattr(json, "dumps", dumps)
    text = rows.as_list(numbers)
    monkeypatch.undo()
    assert json.loads(text) == list(numbers)
    assert max(given, default=0) <= PIECE
    written = seqset.format_ranges([(number, number) for number in numbers])
    assert written == b",".join(b"%d" % number for number in numbers)


def test_a_number_that_comes_again_is_one() -> None:
    assert compress([1, 1, 2, 2, 5, 5, 7, 8, 8]) == ((1, 2), (5, 5), (7, 8))


WHEN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("algorithm", [by_ordered_subject, by_references])
@pytest.mark.parametrize("shape", ["flat", "deep", "alone"])
def test_threads_are_let_go_of_one_after_the_other_and_leave_nothing(
    algorithm: object, shape: str
) -> None:
    def message(number: int) -> Threadable:
        above = {"flat": ("m1",), "deep": (f"m{number - 1}",), "alone": ()}[shape]
        subject = f"s{number}" if shape == "alone" else "s"
        return Threadable(number, WHEN.timestamp(), subject, False, f"m{number}", above)

    with garbage_kept():
        gc.collect()
        threads = algorithm([message(number) for number in range(1, 96)])  # type: ignore[operator] # one of the two
        text = told.format_thread(threads)
        assert text.count(b"(") >= 1
        assert sorted(map(int, text.replace(b")", b" ").replace(b"(", b" ").split()[2:])) == [
            *range(1, 96)
        ]
        thread.let_go_of_threads(threads)
        assert not threads
        assert gc.collect() == 0  # no cycles are left for the collector, which looks once an hour


def test_a_large_set_is_in_parts_which_grow_alone() -> None:
    numbers = list(range(50 * PIECE))
    several: Any = pieces.set_of(numbers[: PIECE - 1])
    assert isinstance(several, set)
    several = pieces.put_into(several, numbers)
    assert isinstance(several, pieces.ManySet)
    assert max(map(len, several._parts)) <= 1 + len(numbers) // pieces.PARTS
    assert several and sorted(several) == numbers and len(several) == len(numbers)
    assert 3 in several and -1 not in several
    assert sorted(several & {1, 2, -1}) == sorted({1, 2, -1} & several) == [1, 2]
    assert several.isdisjoint([-1]) and not several.isdisjoint([7])
    for number in several:  # as another thread may
        several.discard(number)
    assert not several and len(several) == 0


def test_a_large_dictionary_likewise() -> None:
    assert isinstance(pieces.dict_for(PIECE), dict)
    many: Any = pieces.dict_for(PIECE + 1)
    for number in range(1000):
        many[number] = str(number)
    assert max(map(len, many._parts)) <= 4
    assert len(many) == 1000 and many[7] == "7" and many.get(-1) is None
    assert sorted(many) == list(range(1000))
    del many[7]
    assert 7 not in many
