"""Long messages on their way in: how much of them one process has in memory, of all its peers together.

A session bounds the message that it puts together; a thousand sessions with one each would fill the memory. What is more
than a small share of each counts here, from its first octets until the command that it was is done. Where there is no room
for all, whoever has most of it, in all of their connections, gives way by the largest that waits for its peer. Where all of
theirs are being carried out already, whoever comes now with little has as much room again, and with more waits for an end.
"""

from collections import Counter
from typing import Final, Protocol

SHARE_OCTETS: Final = 32 * 1024  # that each connection may hold, and nobody counts
# of all that have more; twice that in memory, where a command is being carried out
ROOM_OCTETS: Final = 8 * 1024 * 1024
LITTLE: Final = 32  # this part of the room, in all connections of somebody


class Holder(Protocol):
    """A connection's dialogue."""

    @property
    def account(self) -> str:
        """Whose it is."""
        ...

    @property
    def waits_for_peer(self) -> bool:
        """Whether nothing goes on before the peer sends more, or takes its answers."""
        ...

    def give_way(self) -> None:
        """Say that there is no room for so much, and end."""
        ...

    def wait_for_room(self) -> None:
        """Read no more."""
        ...

    def has_room(self) -> None:
        """Read on."""
        ...


class Inbound:
    """See the module. One for an event loop."""

    __slots__ = ("_held", "_room", "_waiting", "octets")

    def __init__(self, room: int = ROOM_OCTETS) -> None:
        self._room = room
        self._held: dict[Holder, int] = {}
        self._waiting: dict[Holder, None] = {}
        self.octets = 0  # of all

    def hold(self, holder: Holder, octets: int) -> None:
        """It has so many. What it had before counts until it lets go: the command of which it is may still run."""
        more = octets - self._held.get(holder, 0)
        if more <= 0:
            return
        self._held[holder] = octets
        self.octets += more
        while len(self._held) > 1 and self._is_over():  # one may have more than the room
            accounts = {each: each.account for each in self._held}
            totals: Counter[str] = Counter()
            for each, account in accounts.items():
                totals[account] += self._held[each]
            greediest = self._greediest(accounts, totals)
            if greediest is not None:
                self.let_go(greediest)
                greediest.give_way()
                if greediest is holder:
                    return
                continue
            has_little = totals[accounts[holder]] <= self._room // LITTLE
            if not has_little or self.octets > 2 * self._room:
                self._waiting[holder] = None
                holder.wait_for_room()
            return

    def let_go(self, holder: Holder) -> None:
        """Nothing of it is held any more."""
        self.octets -= self._held.pop(holder, 0)
        self._waiting.pop(holder, None)
        if self._waiting:
            self._wake()

    def lower(self, holder: Holder, octets: int) -> None:
        """No more than so many of it are held any more."""
        less = self._held.get(holder, 0) - octets
        if less > 0:
            self._held[holder] = octets
            self.octets -= less
            if self._waiting:
                self._wake()

    def _wake(self) -> None:
        going = self._going()
        # as many as there is room for; where nobody else goes on, one
        for other in list(self._waiting):
            octets = self._held[other]
            if going and going + octets > self._room:
                return
            going += octets
            del self._waiting[other]
            other.has_room()

    def _going(self) -> int:
        """Octets of all who do not wait."""
        return self.octets - sum(self._held[each] for each in self._waiting)

    def _is_over(self) -> bool:
        """Those who wait count as far as there is as much room again."""
        if self.octets <= self._room:
            return False
        return self.octets > 2 * self._room or self._going() > self._room

    def _greediest(self, accounts: dict[Holder, str], totals: Counter[str]) -> Holder | None:
        """The largest that waits for its peer, of whoever has most."""
        most = max(totals, key=totals.__getitem__)
        waits = [each for each, of in accounts.items() if of == most and each.waits_for_peer]
        return max(waits, key=self._held.__getitem__, default=None)


class _Here:
    """That of the process."""

    inbound = Inbound()


def inbound() -> Inbound:
    """Of this process."""
    return _Here.inbound
