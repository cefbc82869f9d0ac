"""Whether others work here while mail comes: then it is taken in a batch at a time, and leaves them more of the processors.

A batch that comes, one that is written and one that is compared keep two processors busy, and whoever else was there waited
for a turn of them: the 99th of 100 commands 13 ms, and 8 ms where the batches come one by one, which takes a sixth longer.
"""

import time
from collections.abc import Callable
from typing import Final

from murder.trail.figures import Figures

WORKED_S: Final = 1.0  # so long ago, and they are taken to be at work still
COMMANDS, LOGINS, MESSAGES = "commands", "logins", "messages"


class Others:
    """Looked for between two batches, in what is counted anyhow: no command takes a step more."""

    def __init__(self, figures: Figures, clock: Callable[[], float] = time.monotonic) -> None:
        self._figures = figures
        self._clock = clock
        self._seen = self._done()
        self._until = 0.0

    def are_at_work(self) -> bool:
        """Whether a command, a login or a delivery has ended here lately."""
        now, done = self._clock(), self._done()
        if done != self._seen:
            self._seen, self._until = done, now + WORKED_S
        return now < self._until

    def _done(self) -> int:
        figures = self._figures
        timed = (*figures.times[COMMANDS].values(), *figures.times[LOGINS].values())
        return sum(sum(durations.classes) for durations in timed) + sum(
            figures.numbers[MESSAGES].values()
        )
