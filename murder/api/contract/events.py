"""Event listeners: whatever happens, they raise nothing and take hardly any time."""

import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from murder.api.contract.check import Check, hold
from murder.api.events import Event, EventListener

Make = Callable[[], EventListener]

TIMES: Final = 1000
SLOW_S: Final = 0.001  # each; a frontend has some thousand a second
ODD: Final = (
    Event("login.succeeded", "info", MappingProxyType({"user": "anna", "protocol": "imap"})),
    Event("login.failed", "info", MappingProxyType({"user": "\x1b[2Jä\ud800" * 50, "peer": "::1"})),
    Event("command.crashed", "error", MappingProxyType({"exc_info": ValueError("x")})),
    Event("no.such_event", "warning", MappingProxyType({"octets": b"\xff", "nothing": None})),
    Event("server.ready", "info", MappingProxyType({})),
)


async def raises_nothing(make: Make) -> None:
    """It takes every event, also one that it does not know, whose facts are odd, or that has none."""
    listener = make()
    for event in ODD:
        listener.happened(event)


async def holds_nothing_up(make: Make) -> None:
    """An event takes it less than a millisecond of the processor: what is long in the telling is put into a queue."""
    listener = make()
    begun = time.thread_time()
    for _ in range(TIMES):
        listener.happened(ODD[0])
    took_s = (time.thread_time() - begun) / TIMES
    hold(took_s < SLOW_S, f"an event took {took_s * 1000:.1f} ms")


EVENTS_CHECKS: Final[tuple[Check, ...]] = (raises_nothing, holds_nothing_up)
