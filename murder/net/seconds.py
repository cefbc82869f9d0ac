"""When this process looks at what nobody tells it of: all that is looked at once a second, or so, at the same moments, so
that an idle process wakes once for all of it. Each process has moments of its own: those of one host don't wake together.
"""

import asyncio
import math
import os
from typing import Final

GOLDEN: Final = 0.618034  # processes that were started one after the other are spread evenly
# of a span: a timer may come a little early, and is not set for the same moment again
EARLY: Final = 0.1


def next_look(now: float, every_s: float) -> float:
    """The moment that is next, in the loop's time; 0.1 to 1.1 spans from now. Spans that are halves or multiples of a
    second share their moments."""
    began = os.getpid() * GOLDEN % 1.0
    return began + every_s * (math.floor((now - began) / every_s + EARLY) + 1)


def until_look(every_s: float) -> float:
    """How long it is until then, in seconds."""
    now = asyncio.get_running_loop().time()
    return next_look(now, every_s) - now


async def look_again(every_s: float) -> None:
    """Wait until then."""
    await asyncio.sleep(until_look(every_s))
