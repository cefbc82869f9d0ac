"""Sets of UIDs and tombstones of a large mailbox, as columns of numbers: what a million of them would be as objects
takes a hundred megabytes. They look like the sequences that they stand for."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import overload

from murder.model.message import ModSeq, Uid


class UidSet(Sequence[Uid]):
    """Ascending UIDs, kept as ranges that ascend and lie apart."""

    __slots__ = ("_ends", "ranges")

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self.ranges = ranges
        # so many numbers stand up to the end of each range
        self._ends = array("Q", accumulate(high - low + 1 for low, high in ranges))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Uid]:
        for low, high in self.ranges:
            yield from map(Uid, range(low, high + 1))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # as a list has none

    @overload
    def __getitem__(self, at: int) -> Uid: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Uid]: ...
    def __getitem__(self, at: int | slice) -> Uid | Sequence[Uid]:
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        if at < 0:
            at += len(self)
        if not 0 <= at < len(self):
            raise IndexError(at)
        which = bisect_right(self._ends, at)
        return Uid(self.ranges[which][1] - (self._ends[which] - 1 - at))


class Tombstones(Sequence[tuple[ModSeq, Uid]]):
    """What was expunged: mod-sequence and UID of each, in the order told."""

    __slots__ = ("_modseqs", "_uids")

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._modseqs = array("Q")
        self._uids = array("I")
        for modseq, uid in pairs:
            self._modseqs.append(modseq)
            self._uids.append(uid)

    def __len__(self) -> int:
        return len(self._uids)

    def __iter__(self) -> Iterator[tuple[ModSeq, Uid]]:
        return zip(map(ModSeq, self._modseqs), map(Uid, self._uids), strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # as a list has none

    @overload
    def __getitem__(self, at: int) -> tuple[ModSeq, Uid]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[tuple[ModSeq, Uid]]: ...
    def __getitem__(self, at: int | slice) -> tuple[ModSeq, Uid] | Sequence[tuple[ModSeq, Uid]]:
        if isinstance(at, slice):
            some = zip(map(ModSeq, self._modseqs[at]), map(Uid, self._uids[at]), strict=True)
            return list(some)
        return ModSeq(self._modseqs[at]), Uid(self._uids[at])
