"""Powers of a mailbox (`murder.api.store`), found in few steps: each class of mailboxes is asked once. `isinstance` looks
through all that a Protocol has each time, for as long as a small command takes."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from murder.api.store import (
    FindsByFlag,
    Mailbox,
    Numbers,
    TellsAtOnce,
    TellsExpunged,
    TellsFlags,
    TellsKeywords,
    TellsSummaries,
)

P = TypeVar("P")


class Power(Generic[P]):
    """One of them, `P`."""

    __slots__ = ("_known", "_protocol")

    def __init__(self, protocol: type) -> None:
        self._protocol = protocol
        self._known: dict[type, bool] = {}  # stores have a class of mailboxes each

    def of(self, mailbox: Mailbox) -> P | None:
        """The mailbox, as one that has it; None where it has not."""
        kind = type(mailbox)
        has = self._known.get(kind)
        if has is None:
            has = self._known[kind] = issubclass(kind, self._protocol)
        return mailbox if has else None  # type: ignore[return-value] # has been asked


FINDS_BY_FLAG: Final[Power[FindsByFlag]] = Power(FindsByFlag)
TELLS_AT_ONCE: Final[Power[TellsAtOnce]] = Power(TellsAtOnce)
TELLS_EXPUNGED: Final[Power[TellsExpunged]] = Power(TellsExpunged)
TELLS_FLAGS: Final[Power[TellsFlags]] = Power(TellsFlags)
TELLS_KEYWORDS: Final[Power[TellsKeywords]] = Power(TellsKeywords)
TELLS_SUMMARIES: Final[Power[TellsSummaries]] = Power(TellsSummaries)


def at_once(mailbox: Mailbox) -> Callable[[], Numbers | None] | None:
    """A mailbox's power to tell its numbers, if it has it."""
    telling = TELLS_AT_ONCE.of(mailbox)
    return None if telling is None else telling.numbers
