"""Much, a piece at a time, so that a thread that goes over it can be interrupted: one call of C holds the interpreter to its
end, and to let go of a list of a million objects is one call, too."""

from collections.abc import Hashable, Iterable, Iterator, MutableMapping, MutableSet, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PIECE: Final = 5_000  # objects: made, looked up or freed in a millisecond or two
PARTS: Final = 256  # of what is much, by hash


def pieces(items: Iterable[T]) -> Iterator[list[T]]:
    """All of them, in order."""
    every = iter(items)
    while some := list(islice(every, PIECE)):
        yield some


def slices(items: Sequence[T], size: int = PIECE) -> Iterator[Sequence[T]]:
    """All of them, in order; of an array they are arrays."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def let_go(items: list[Any]) -> None:
    """Empty the list. What nobody else has is freed, a piece at a time."""
    while items:
        del items[-PIECE:]


class ManySet(MutableSet[K]):
    """A set in parts: one of half a million members is built anew in one call of C, which takes 20 ms, whenever it has
    grown too large for its table. It may be gone over while another thread changes it."""

    __slots__ = ("_parts",)

    def __init__(self, items: Iterable[K] = ()) -> None:
        self._parts: list[set[K]] = [set() for _ in range(PARTS)]
        for item in items:
            self.add(item)

    def __contains__(self, item: object) -> bool:
        return item in self._parts[hash(item) % PARTS]

    def __iter__(self) -> Iterator[K]:
        for part in self._parts:
            yield from tuple(part)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __bool__(self) -> bool:
        return any(self._parts)

    def add(self, value: K) -> None:
        self._parts[hash(value) % PARTS].add(value)

    def discard(self, value: K) -> None:
        self._parts[hash(value) % PARTS].discard(value)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> "MutableSet[Any]":
        """For `&` and its like."""
        return set_of(it)


class ManyDict(MutableMapping[K, V]):
    """As `ManySet`. In no order."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[dict[K, V]] = [{} for _ in range(PARTS)]

    def __getitem__(self, key: K) -> V:
        return self._parts[hash(key) % PARTS][key]

    def __setitem__(self, key: K, value: V) -> None:
        self._parts[hash(key) % PARTS][key] = value

    def setdefault(self, key: K, default: V) -> V:
        """As a dictionary's, in one look."""
        return self._parts[hash(key) % PARTS].setdefault(key, default)

    def __delitem__(self, key: K) -> None:
        del self._parts[hash(key) % PARTS][key]

    def __iter__(self) -> Iterator[K]:
        for part in self._parts:
            yield from tuple(part)

    def __len__(self) -> int:
        return sum(map(len, self._parts))


def set_of(items: Iterable[K]) -> MutableSet[K]:
    """As `set`; in parts, where they are many."""
    return put_into(set(), items)


def put_into(items: MutableSet[K], more: Iterable[K]) -> MutableSet[K]:
    """These with `more`, to be used in their place: they are changed, or have become too many for one set."""
    for some in pieces(more):
        if isinstance(items, set) and len(items) + len(some) > PIECE:
            items = ManySet(items)
        if isinstance(items, set):
            items.update(some)
        else:
            for item in some:
                items.add(item)
    return items


def take_off(items: MutableSet[K], gone: Iterable[K]) -> None:
    """As `set.difference_update`."""
    if items:
        for some in pieces(gone):
            if isinstance(items, set):
                items.difference_update(some)
            else:
                for item in some:
                    items.discard(item)


def empty(items: MutableSet[Any] | MutableMapping[Any, Any]) -> None:
    """Take off all, a piece at a time."""
    if isinstance(items, ManySet | ManyDict):
        for part in items._parts:
            part.clear()
    else:
        items.clear()


def dict_for(count: int) -> MutableMapping[Any, Any]:
    """An empty one, for about so many."""
    return {} if count <= PIECE else ManyDict()
