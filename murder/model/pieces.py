"""Much, a piece at a time, so that a thread that goes over it can be interrupted: one call of C holds the interpreter to its
end, and to let go of a list of a million objects is one call, too."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

T = TypeVar("T")

PIECE: Final = 5_000  # objects: made, looked up or freed in a millisecond or two


def pieces(items: Iterable[T]) -> Iterator[list[T]]:
    """All of them, in order."""
    every = iter(items)
    while some := list(islice(every, PIECE)):
        yield some


def let_go(items: list[Any]) -> None:
    """Empty the list. What nobody else has is freed, a piece at a time."""
    while items:
        del items[-PIECE:]


def set_of(items: Iterable[T]) -> set[T]:
    """As `set`."""
    made: set[T] = set()
    for some in pieces(items):
        made.update(some)
    return made


def take_off(items: set[T], gone: Sequence[T]) -> None:
    """As `set.difference_update`."""
    if items:
        for some in pieces(gone):
            items.difference_update(some)
