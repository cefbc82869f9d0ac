"""What strangers can make happen ten thousand times a second is logged a few times, and then counted."""

import time
from collections.abc import Callable
from typing import Final

PERIOD_S: Final = 10.0
MOST: Final = 50  # of a period: what a site sees on a bad day


class Seldom:
    """Asked before each line of a kind."""

    def __init__(
        self,
        most: int = MOST,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._period_s = period_s
        self._clock = clock
        self._ends = 0.0
        self._said = 0
        self._unsaid = 0

    def facts(self) -> dict[str, int] | None:
        """None where this one is not to be said; else what the line tells beside its own: how many before it were not."""
        now = self._clock()
        if now >= self._ends:
            self._ends, self._said = now + self._period_s, 0
        if self._said >= self._most:
            self._unsaid += 1
            return None
        self._said += 1
        unsaid, self._unsaid = self._unsaid, 0
        return {"unsaid": unsaid} if unsaid else {}


TLS_FAILURES: Final = Seldom()  # of this process


def why_no_tls(error: OSError) -> str:
    """What a handshake has failed of. Who only hangs up says nothing, and that has one cause more often than others."""
    return (
        str(error)
        or "the other side has ended the connection: it does not trust our certificate, or went away"
    )
