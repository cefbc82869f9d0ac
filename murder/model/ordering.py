"""Putting much in order so that a thread that does it can be interrupted: `list.sort` holds the interpreter to its end."""

import heapq
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T")

RUN: Final = 10_000  # sorted at once: some milliseconds


def in_order(items: Sequence[T], key: Callable[[T], Any], *, reverse: bool = False) -> list[T]:
    """As `sorted`, stable; runs of the items are sorted and then merged one by one."""
    runs = [
        sorted(items[at : at + RUN], key=key, reverse=reverse) for at in range(0, len(items), RUN)
    ]
    if len(runs) < 2:
        return runs[0] if runs else []
    return list(heapq.merge(*runs, key=key, reverse=reverse))
