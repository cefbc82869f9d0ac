"""The event loop of nodes: uvloop, which waits for sockets in C."""

import asyncio
import operator
import weakref
from typing import Any


class _Unnoted(dict[int, Any]):
    """In which uvloop notes each connection by its number, weakly, which takes ten calls of Python in every session. It
    looks there only when somebody else wants to wait for the same descriptor; nobody here does. So nothing is noted."""

    __setitem__ = staticmethod(operator.is_)  # type: ignore[assignment]  # in C, and without effect


def _import() -> Any:
    """With this in place of the dictionary that uvloop takes from `weakref` while it is imported; here and not above, as it
    takes longer than most commands."""
    usual = weakref.WeakValueDictionary
    weakref.WeakValueDictionary = _Unnoted  # type: ignore[assignment, misc]  # for a moment
    try:
        import uvloop
    finally:
        weakref.WeakValueDictionary = usual  # type: ignore[misc]  # as it was
    return uvloop


def new_event_loop() -> asyncio.AbstractEventLoop:
    """For a process that serves."""
    loop: asyncio.AbstractEventLoop = _import().new_event_loop()
    return loop
