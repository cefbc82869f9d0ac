"""Putting much in order so that a thread that does it can be interrupted: `list.sort` holds the interpreter to its end."""

import heapq
from array import array
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, TypeVar

T = TypeVar("T")

RUN: Final = 10_000  # sorted at once: some milliseconds


def in_order(
    items: Sequence[T], key: Callable[[T], Any] | None = None, *, reverse: bool = False
) -> list[T]:
    """As `sorted`, stable; runs of the items are sorted and then merged one by one."""
    if len(items) <= RUN:
        return sorted(items, key=key, reverse=reverse)  # type: ignore[type-var, arg-type] # as `sorted` has it
    runs: list[list[T]] = [
        sorted(items[at : at + RUN], key=key, reverse=reverse)  # type: ignore[type-var, arg-type] # as `sorted` has it
        for at in range(0, len(items), RUN)
    ]
    if all(_follows(former, other, key, reverse) for former, other in pairwise(runs)):
        return [item for run in runs for item in run]
    return list(heapq.merge(*runs, key=key, reverse=reverse))  # type: ignore[arg-type] # as `sorted` has it


def each_once(numbers: Sequence[int]) -> "array[int]":
    """In order; of four octets each."""
    ordered = array("I")
    last = -1
    for number in in_order(numbers):
        if number != last:
            ordered.append(number)
            last = number
    return ordered


def _follows(
    run: Sequence[T], other: Sequence[T], key: Callable[[T], Any] | None, reverse: bool
) -> bool:
    """Whether all of `other` comes behind all of `one`: so it is with what has been in order before."""
    last: Any = key(run[-1]) if key else run[-1]
    first: Any = key(other[0]) if key else other[0]
    return bool(last >= first if reverse else last <= first)
