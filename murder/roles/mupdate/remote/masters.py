"""Which of several masters is asked: one's own, or the nearest; the next one where that does not answer; and back again.

Several masters share one list (`mupdate.master = [...]`), so that any of them will do, and a command that may have been lost
can be given to another: each may happen twice without harm, and a master that has stood still does nothing that it was told
before (`pulse`). A master that is slow is not left: whether it lives, its banner tells, which it says to everybody at once.
"""

import asyncio
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from murder.errors import UpstreamFailure, UpstreamKind
from murder.roles.mupdate.remote.link import Link, Target, greets, open_link

AVOIDED_S: Final = 10.0  # a master that failed is the last to be asked again
RETURN_S: Final = 30.0  # how often it is looked whether the preferred one is back


class Masters:
    """See the module. Belongs to one event loop, and remembers which of them failed lately."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._places = _places(target)
        self._failed_at: dict[str, float] = {}
        self._looks: dict[str, asyncio.Task[bool]] = {}
        self._looked_at = time.monotonic()

    @property
    def are_several(self) -> bool:
        return len(self._places) > 1

    @property
    def patience_s(self) -> float:
        """Silence after which it is asked whether the master is there."""
        return self.target.failover_s if self.are_several else self.target.command_timeout_s

    @property
    def tries(self) -> int:
        """How often a command may be given to a master: it may go on being lost while several die."""
        return 2 * len(self._places)

    async def open(self) -> Link:
        """To the first of them that lets us in. The next one is called when one fails, or is silent for `failover_s`.
        Raises UpstreamFailure: why the last one did not."""
        if not self.are_several:
            return await open_link(self.target)
        waiting = self._in_order()
        calls: set[asyncio.Task[Link]] = set()
        last = UpstreamFailure(UpstreamKind.CONNECT, self.target.name, "no master answers")
        try:
            while waiting or calls:
                if waiting:
                    calls.add(asyncio.get_running_loop().create_task(open_link(waiting.pop(0))))
                ended, calls = await asyncio.wait(
                    calls,
                    timeout=self.target.failover_s if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                opened = [call.result() for call in ended if call.exception() is None]
                for link in opened[1:]:
                    link.abort()
                if opened:
                    self._failed_at.pop(opened[0].target.name, None)
                    return opened[0]
                for call in ended:
                    error = call.exception()
                    if not isinstance(error, UpstreamFailure):
                        raise error or last
                    last = error
                    self._failed_at[error.server] = time.monotonic()
            raise last
        finally:
            for call in calls:
                if not call.cancel() and not call.cancelled() and call.exception() is None:
                    call.result().abort()  # it came too late, or we were cancelled just then

    def _in_order(self) -> list[Target]:
        """Those that failed lately behind the others; each as preferred."""
        past = time.monotonic() - AVOIDED_S
        return sorted(self._places, key=lambda place: self._failed_at.get(place.name, 0.0) > past)

    async def is_there(self, link: Link) -> bool:
        """Whether the master behind this link says its banner to somebody who comes now; asked by many, looked at once."""
        target = link.target
        look = self._looks.get(target.name)
        if look is None:
            look = asyncio.get_running_loop().create_task(greets(target, target.failover_s))
            self._looks[target.name] = look
            look.add_done_callback(lambda _: self._looks.pop(target.name, None))
        return await asyncio.shield(look)

    def leave(self, link: Link) -> None:
        """It has failed: others are asked first for a while. Its kernel is told that what was sent is void."""
        self._failed_at[link.target.name] = time.monotonic()
        link.drop()

    def is_worth_leaving(self, link: Link) -> bool:
        """Whether there is another that has not failed lately."""
        past = time.monotonic() - AVOIDED_S
        return any(
            place.name != link.target.name and self._failed_at.get(place.name, 0.0) <= past
            for place in self._places
        )

    def is_look_due(self, link: Link) -> bool:
        """Whether this link is not to the preferred master, and that one has not been looked for since `RETURN_S`."""
        is_elsewhere = link.target.name != self._places[0].name
        return is_elsewhere and time.monotonic() >= self._looked_at + RETURN_S

    async def is_better_back(self, link: Link) -> bool:
        """Whether a look is due, and the preferred master is there again."""
        if not self.is_look_due(link):
            return False
        preferred = self._places[0]
        self._looked_at = time.monotonic()
        if not await greets(preferred, preferred.failover_s):
            self._failed_at[preferred.name] = time.monotonic()
            return False
        self._failed_at.pop(preferred.name, None)
        return True


def _places(target: Target) -> Sequence[Target]:
    """All of them, the preferred one first: this node's own, else by the node's name, so that nodes spread themselves."""
    every = [(target.host, target.port), *target.others]
    places = [replace(target, host=host, port=port, others=()) for host, port in every]
    own = [place for place in places if place.host == target.caller]
    at = zlib.crc32(target.caller.encode()) % len(places)
    return [*own, *(named for named in places[at:] + places[:at] if named not in own)]
