"""The checker finds what it is there to find."""

import pytest

from tests.ha.linear import Operation, Outcome, State, Verb, is_linear

A, D, R = Verb.ACTIVATE, Verb.DELETE, Verb.READ
OK, NO, LOST = Outcome.OK, Outcome.FAIL, Outcome.UNKNOWN

Row = tuple[Verb, State, Outcome, int, int]


@pytest.mark.parametrize(
    ("rows", "holds"),
    [
        ([(A, "x", OK, 0, 1), (R, "x", OK, 2, 3)], True),
        ([(A, "x", OK, 0, 1), (R, None, OK, 2, 3)], False),  # a stale read
        ([(A, "x", OK, 0, 5), (R, None, OK, 1, 2)], True),  # at the same time
        ([(A, "x", OK, 0, 1), (A, "y", OK, 2, 3)], False),  # at two places
        ([(A, "x", OK, 0, 1), (D, "x", OK, 2, 3), (A, "y", OK, 4, 5)], True),
        ([(A, "x", LOST, 0, 1), (R, None, OK, 2, 3), (R, "x", OK, 4, 5)], True),  # done late
        ([(A, "x", LOST, 0, 1), (R, "x", OK, 2, 3), (R, None, OK, 4, 5)], False),  # and undone
        ([(A, "x", NO, 0, 1)], False),  # refused for nothing
        ([(A, "x", OK, 0, 1), (A, "y", NO, 2, 3)], True),
        ([(D, "x", LOST, 2, 3), (A, "x", OK, 0, 1), (A, "y", OK, 9, 10)], True),
        ([(A, "x", OK, 0, 9), (A, "y", OK, 0, 9)], False),
    ],
)
def test_histories(rows: list[Row], holds: bool) -> None:
    operations = [
        Operation(verb, "n", server, outcome, begin, end)
        for verb, server, outcome, begin, end in rows
    ]
    assert is_linear(operations) is holds
