"""What was worked out of octets that others choose, remembered up to so many octets: a cache that nobody can fill.

A cache that counts its entries holds whatever they weigh: ten thousand access lists of 256 KiB are 2.5 GiB.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

ENTRY_OCTETS: Final = 300  # of an entry beside what it weighs: its place in a dict, and its objects


class Remembered(Generic[K, V]):
    """`work_out` with a memory of two generations: what has not been asked for while a whole one grew up is forgotten.
    `weigh` says how many octets a key and its value take. May be asked in any thread."""

    def __init__(
        self, work_out: Callable[[K], V], weigh: Callable[[K, V], int], max_octets: int
    ) -> None:
        self._work_out = work_out
        self._weigh = weigh
        self._most = max_octets // 2
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self.octets = 0  # of the young

    def __call__(self, key: K) -> V:
        young = self._young
        if key in young:
            return young[key]
        old = self._old
        value = old[key] if key in old else self._work_out(key)
        weight = self._weigh(key, value) + ENTRY_OCTETS
        if weight > self._most:
            return value
        if self.octets + weight > self._most:
            self._old, self._young, self.octets = young, {}, 0
        self._young[key] = value
        self.octets += weight
        return value
