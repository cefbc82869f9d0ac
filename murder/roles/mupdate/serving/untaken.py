"""What all peers of a MUPDATE server together have not taken: answers and streams that wait in memory for who does not read.

Within the bound each may have as much as any connection. Beyond it nobody is given more before what there was is taken; and
beyond twice as much whoever has taken nothing for longest is cut off: a node comes again, and goes on where it stood.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from murder.log import logger

COUNTED_AGAIN_S: Final = 0.05
PATIENCE_S: Final = 5.0  # nobody is cut off who has taken something within it


class Peer(Protocol):
    """One connection."""

    def untaken_octets(self) -> int:
        """That wait for it now."""
        ...

    def cut(self, reason: str) -> None:
        """End it at once."""
        ...


class _Share(NamedTuple):
    octets: int
    since: float  # when it last took something, or had nothing to take


class Untaken:
    """See the module. `most`: octets. Belongs to one event loop."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.total = 0
        self._clock = clock
        self._shares: dict[Peer, _Share] = {}  # who has waited longest comes first
        self._counted_at = 0.0
        self._is_told = False
        self._log = logger(role="mupdate")

    @property
    def is_spent(self) -> bool:
        return self.total > self.most

    def note(self, peer: Peer) -> None:
        """Something was written to it, or taken by it."""
        now = self._clock()
        self._note(peer, now)
        if self.total <= self.most:
            if self.total <= self.most // 2:
                self._is_told = False
            return
        if now - self._counted_at >= COUNTED_AGAIN_S:
            self._counted_at = now
            for held in list(self._shares):
                self._note(held, now)
        if self.total > self.most and not self._is_told:
            self._is_told = True
            self._log.warning("subscribers.slow", octets=self.total, connections=len(self._shares))
        while self.total > 2 * self.most:
            last, share = next(iter(self._shares.items()))
            if now - share.since < PATIENCE_S:
                return
            self.forget(last)
            last.cut("has taken nothing for long, and others need the memory")

    def _note(self, peer: Peer, now: float) -> None:
        before, octets = self._shares.get(peer), peer.untaken_octets()
        if before is None:
            if octets:
                self._shares[peer] = _Share(octets, now)
                self.total += octets
            return
        self.total += octets - before.octets
        if octets >= before.octets:
            self._shares[peer] = _Share(octets, before.since)
            return
        del self._shares[peer]
        if octets:
            self._shares[peer] = _Share(octets, now)

    def forget(self, peer: Peer) -> None:
        """It has ended."""
        share = self._shares.pop(peer, None)
        if share is not None:
            self.total -= share.octets
