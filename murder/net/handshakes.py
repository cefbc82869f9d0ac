"""TLS handshakes under way: so many from one address at once, the others wait in line.

Half a handshake costs some 50 KiB, most of it in OpenSSL, and a peer can leave it at that for `TLS_HANDSHAKE_S`. One that
waits is a socket: its octets stay with the kernel. Nobody is refused here (that is the listener's): a thousand clients of
one NAT come in one after another, at some milliseconds each.
"""

import asyncio
from collections import deque
from typing import Final

from murder.net.shared_counter import place_of
from murder.net.turns import line_up

MOST_FROM_ADDRESS: Final = 200  # 10 MiB
WAIT_S: Final = 15.0  # as long as a handshake may take


class Handshakes:
    """Of one process. `most` from one address (of IPv6: one /64)."""

    def __init__(self, most: int = MOST_FROM_ADDRESS) -> None:
        self._most = most
        self._under_way: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def one(self, peer: str) -> "_Handshake":
        """Around a handshake. Raises TimeoutError where its turn does not come."""
        return _Handshake(self, place_of(peer))

    async def begun(self, place: str) -> None:
        under_way = self._under_way.get(place, 0)
        if under_way >= self._most:
            await self._wait(place)  # whose turn comes is counted already
        else:
            self._under_way[place] = under_way + 1
        try:
            # one begins in each turn of the loop: a handshake is a millisecond of arithmetic
            await line_up()
        except BaseException:
            self.ended(place)
            raise

    async def _wait(self, place: str) -> None:
        line = self._waiting.setdefault(place, deque())
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            async with asyncio.timeout(WAIT_S):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # it came, too late
                self.ended(place)
            raise

    def ended(self, place: str) -> None:
        """The next one has its turn, in the place of this."""
        line = self._waiting.get(place)
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._waiting.pop(place, None)
        self._under_way[place] -= 1
        if self._under_way[place] <= 0:
            del self._under_way[place]


class _Handshake:
    """One of them, as a context: every TLS session has one, and `asynccontextmanager` takes half a dozen calls more."""

    __slots__ = ("_handshakes", "_place")

    def __init__(self, handshakes: Handshakes, place: str) -> None:
        self._handshakes, self._place = handshakes, place

    async def __aenter__(self) -> None:
        await self._handshakes.begun(self._place)

    async def __aexit__(self, *_: object) -> None:
        self._handshakes.ended(self._place)


HANDSHAKES: Final = Handshakes()
