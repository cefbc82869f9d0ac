"""Connections to servers that have said their last word, and end them themselves: who ends a connection first keeps its port
for a minute (TIME_WAIT), and a proxy has no more than 28,000 of them for a server. One that does not end it is cut off.
"""

from typing import Final, Protocol

from murder.net.connection import Connection
from murder.net.sweep import NOWHERE, here

GRACE_S: Final = 5.0


class Leaver(Protocol):
    """The receiver of such a connection: it takes itself out of `until` when that is lost."""

    connection: Connection


class Leaving:
    """Those of one event loop. `until`: when each is cut off, the first one first. Each session puts one there and takes it
    out: without a call, and with one place in the sweep for all."""

    def __init__(self) -> None:
        self.until: dict[Leaver, float] = {}
        self.sweep_slot = NOWHERE
        self._sweep = here()

    def begin(self, now: float) -> None:
        """One is here, and nobody looks after them yet."""
        self._sweep.watch(self, now + GRACE_S)

    def look(self, now: float) -> float | None:
        """For the sweep."""
        for leaver, ends_at in list(self.until.items()):
            if now < ends_at:
                return ends_at
            del self.until[leaver]
            leaver.connection.abort()
        return None
