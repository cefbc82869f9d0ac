"""Whether this process has stood still: it was stopped, swapped out, or its machine was suspended.

A client of several masters gives a command to another one when this one is silent. What this one was told before must not
happen afterwards, when it wakes: the mailbox may have been made and deleted elsewhere meanwhile. So whatever a command waits
for, it is decided only if the process has been awake ever since the command came; and who spoke before is cut off, because
the kernel may hold octets of theirs that nobody stands by any more. That clients are more patient than this (`failover_s`
twice: silence, then a banner that does not come) is what makes it safe.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

MOST_STILL_S: Final = 0.9
BEAT_S: Final = 0.25
ALONE_S: Final = 0.5  # of a master without others: it may get some, and has not stood still then


# Also counts while the machine is suspended
_now: Final = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class Pulse:
    """See the module. `beats` is called by the loop, every `BEAT_S` or so; `is_since` from any thread."""

    def __init__(self, clock: Callable[[], float] = _now) -> None:
        self._clock = clock
        self._last = clock()
        self.number = 0  # of the time awake

    def beats(self) -> bool:
        """False where it has stood still before this."""
        now = self._clock()
        was_still = now - self._last > MOST_STILL_S
        self._last = now
        if was_still:
            self.number += 1
        return not was_still

    def is_since(self, number: int) -> bool:
        """Whether it has been awake since that number was read, and is."""
        return self.number == number and self._clock() - self._last <= MOST_STILL_S
