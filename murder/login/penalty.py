"""What wrong passwords cost the address they come from: time, more with each, until a right one or a while of peace.

An address that has failed waits before its next attempt is looked at, so that hanging up early tells nothing. All workers
count together.
"""

import asyncio
import ipaddress
import time
from typing import Final

from murder.config.value import Network, contains
from murder.net.tally import Board, Counts, Row

FORGIVEN_S: Final = 60.0  # after the last failure
IPV6_PREFIX: Final = 64  # one customer's


class Penalties:
    """See the module. The first failure costs `first_s`, each further one twice as much, up to `most_s`."""

    def __init__(
        self,
        first_s: float = 2.0,
        most_s: float = 15.0,
        trusted: tuple[Network, ...] = (),
        counts: Counts | None = None,
    ) -> None:
        self._counts = counts
        self._made: Board | None = None
        self.configure(first_s, most_s, trusted)

    def configure(self, first_s: float, most_s: float, trusted: tuple[Network, ...]) -> None:
        self.first_s = first_s
        self.most_s = max(most_s, first_s)
        self.trusted = trusted

    @property
    def _board(self) -> Board:
        """Made when somebody comes."""
        if self._made is None:
            self._made = (self._counts or Counts.alone()).failures(_is_forgiven)
        return self._made

    def delay_s(self, address: str) -> float:
        """What an attempt from there has to wait before it is looked at."""
        if self._is_peaceful():
            return 0.0
        count = self._failures(_key(address))
        return float(min(self.most_s, self.first_s * 2 ** min(count, 30))) if count else 0.0

    def _is_peaceful(self) -> bool:
        """Nobody has failed for long."""
        return time.monotonic() - self._board.newest() > FORGIVEN_S

    def _failures(self, key: str) -> int:
        """How many count, of all workers."""
        rows = list(self._board.rows(key))
        pardoned = max((row.pardoned for row in rows), default=0.0)
        counting = [row for row in rows if row.count and row.when >= pardoned]
        last = max((row.when for row in counting), default=0.0)
        if time.monotonic() - last > FORGIVEN_S:
            return 0
        return sum(row.count for row in counting)

    async def before(self, address: str) -> None:
        """An attempt begins."""
        delay_s = self.delay_s(address)
        if delay_s and not contains(self.trusted, address):
            await asyncio.sleep(delay_s)

    async def failed(self, address: str) -> None:
        """It was wrong: the reply may go out when this returns."""
        if contains(self.trusted, address):
            return
        key, now = _key(address), time.monotonic()
        first = not self._failures(key)
        own = self._board.own(key)
        row = Row(1, now, now) if first else Row(own.count + 1, now, own.pardoned)
        self._board.put(key, row)
        if first:
            await asyncio.sleep(self.first_s)

    def succeeded(self, address: str) -> None:
        if self._is_peaceful():
            return
        key = _key(address)
        if self._failures(key):
            self._board.put(key, Row(0, 0.0, time.monotonic()))


def _is_forgiven(row: Row) -> bool:
    return time.monotonic() - max(row.when, row.pardoned) > FORGIVEN_S


def _key(address: str) -> str:
    if ":" not in address:
        return address
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))
