"""When Python looks for cyclic garbage: in what has just been made, and at the rest once an hour, or when the process has
grown, in a quiet moment.

Reference counts free nearly everything, what a session held too: it leaves no cycles. A look takes about a microsecond
for each object, and holds the loop: at 10,000 sessions that is 0.1 s for all, which Python would do whenever a quarter has
come to them, and 20 ms for 20,000 new ones. So new ones are looked at by the thousand, and what has stood that is not
looked at again before the hour is over, unless there is so much more in memory that it may be garbage (of a plugin, or
whatever a peer has found to make some).
"""

import asyncio
import gc
import resource
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

NEW_AT_A_TIME: Final = 1_000  # objects: 1 ms
NEVER: Final = 1_000_000_000
EVERY_S: Final = 3600.0
LOOK_S: Final = 10.0  # at how much memory there is
GROWN_OCTETS: Final = 32 * 1024 * 1024  # and a quarter of what there was: then all is looked at
QUIET_S: Final = 0.02  # of processor time in a second
MOST_LOOKS: Final = 600  # for a quiet second, within the hour; then it must be
MOST_LOOKS_GROWN: Final = 20

Sleep = Callable[[float], Awaitable[object]]


def settle() -> None:
    """What stands now stays, and is never looked at."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_AT_A_TIME, NEVER, NEVER)


def octets_in_memory() -> int:
    """Of this process alone, without files that it has mapped; where the system does not tell, the most that it has had."""
    try:
        _, resident, shared = Path("/proc/self/statm").read_bytes().split()[:3]
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return (int(resident) - int(shared)) * resource.getpagesize()


async def reclaim(
    sleep: Sleep = asyncio.sleep,
    worked_s: Callable[[], float] = time.process_time,
    octets: Callable[[], int] = octets_in_memory,
) -> None:
    """Look at everything that has come since, each hour and when that is much; until cancelled."""
    while True:
        await sleep(LOOK_S)
        most = octets() * 5 // 4 + GROWN_OCTETS
        looks = MOST_LOOKS
        for _ in range(int(EVERY_S / LOOK_S) - 1):
            await sleep(LOOK_S)
            if octets() > most:
                looks = MOST_LOOKS_GROWN
                break
        for _ in range(looks):
            began_s = worked_s()
            await sleep(1.0)
            if worked_s() - began_s < QUIET_S:
                break
        gc.collect()
