"""When Python looks for cyclic garbage: in what has just been made, and at the rest once an hour, in a quiet moment.

Reference counts free nearly everything, what a session held too: it leaves no cycles. A look takes about a microsecond
for each object, and holds the loop: at 10,000 sessions that is 0.1 s for all, which Python would do whenever a quarter has
come to them, and 20 ms for 20,000 new ones. So new ones are looked at by the thousand, and what has stood that is not
looked at again before the hour is over.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from typing import Final

NEW_AT_A_TIME: Final = 1_000  # objects: 1 ms
NEVER: Final = 1_000_000_000
EVERY_S: Final = 3600.0
QUIET_S: Final = 0.02  # of processor time in a second
MOST_LOOKS: Final = 600  # for a quiet second; then it must be

Sleep = Callable[[float], Awaitable[object]]


def settle() -> None:
    """What stands now stays, and is never looked at."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_AT_A_TIME, NEVER, NEVER)


async def reclaim(
    sleep: Sleep = asyncio.sleep, worked_s: Callable[[], float] = time.process_time
) -> None:
    """Look at everything that has come since, each hour; until cancelled."""
    while True:
        await sleep(EVERY_S)
        for _ in range(MOST_LOOKS):
            began_s = worked_s()
            await sleep(1.0)
            if worked_s() - began_s < QUIET_S:
                break
        gc.collect()
