"""What wrong passwords cost the address they come from: time, more with each, until a right one or a while of peace.

An address that has failed waits before its next attempt is looked at, so that hanging up early tells nothing. Each worker
counts by itself; the kernel spreads an address' connections over the workers.
"""

import asyncio
import ipaddress
import time
from typing import Final

from murder.config.value import Network, contains

FORGIVEN_S: Final = 60.0  # after the last failure
MAX_ADDRESSES: Final = 10_000  # remembered; the oldest are forgiven
IPV6_PREFIX: Final = 64  # one customer's


class Penalties:
    """See the module. The first failure costs `first_s`, each further one twice as much, up to `most_s`."""

    def __init__(
        self, first_s: float = 2.0, most_s: float = 15.0, trusted: tuple[Network, ...] = ()
    ) -> None:
        self._failures: dict[str, tuple[int, float]] = {}  # how many, the last one when
        self.configure(first_s, most_s, trusted)

    def configure(self, first_s: float, most_s: float, trusted: tuple[Network, ...]) -> None:
        self.first_s = first_s
        self.most_s = max(most_s, first_s)
        self.trusted = trusted

    def delay_s(self, address: str) -> float:
        """What an attempt from there has to wait before it is looked at."""
        if not self._failures:
            return 0.0
        count, last = self._failures.get(_key(address), (0, 0.0))
        if not count or time.monotonic() - last > FORGIVEN_S:
            return 0.0
        return float(min(self.most_s, self.first_s * 2 ** min(count, 30)))

    async def before(self, address: str) -> None:
        """An attempt begins."""
        delay_s = self.delay_s(address)
        if delay_s and not contains(self.trusted, address):
            await asyncio.sleep(delay_s)

    async def failed(self, address: str) -> None:
        """It was wrong: the reply may go out when this returns."""
        if contains(self.trusted, address):
            return
        first = not self.delay_s(address)
        key, now = _key(address), time.monotonic()
        count = 0 if first else self._failures.pop(key)[0]
        self._failures.pop(key, None)
        self._failures[key] = (count + 1, now)
        if len(self._failures) > MAX_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        if first:
            await asyncio.sleep(self.first_s)

    def succeeded(self, address: str) -> None:
        if self._failures:
            self._failures.pop(_key(address), None)


def _key(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))
