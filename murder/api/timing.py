"""How long a store's disk takes: what it tells, of every commit, and of one session's where somebody traces that."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

Step = Callable[[str, float], None]
"""Told the name of what has just ended, and the seconds that it took. Called in the event loop."""

STEP: Final[ContextVar[Step | None]] = ContextVar("murder_store_step", default=None)
"""Who traces what is done now. A store asks it when it is asked to write, and tells when that is durable."""


class _Committed:
    how: Callable[[float, bool], None] = staticmethod(lambda _seconds, _flushed: None)


def committed(seconds: float, flushed: bool) -> None:
    """A store has committed, and it took so long; `flushed` to the disk (fsync). For the event loop."""
    _Committed.how(seconds, flushed)


def set_committed(how: Callable[[float, bool], None]) -> None:
    """What `committed` does from now on, in this process."""
    _Committed.how = staticmethod(how)
