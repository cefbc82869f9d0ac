"""Long messages on their way in: how much of them one process has in memory, of all its peers together.

A session bounds the message that it puts together; a thousand sessions with one each would fill the memory. What is more
than a small share of each counts here, from its first octets until the command that it was is done. Where there is no room
for all, whoever has most of it, in all of their connections, gives way by the largest that is still coming in. Where all of
theirs are being carried out already, whoever comes now waits for an end.
"""

from collections import Counter
from typing import Final, Protocol

SHARE_OCTETS: Final = 32 * 1024  # that each connection may hold, and nobody counts
# of all that have more; twice that in memory, where a command is being carried out
ROOM_OCTETS: Final = 8 * 1024 * 1024


class Holder(Protocol):
    """A connection's dialogue."""

    @property
    def account(self) -> str:
        """Whose it is."""
        ...

    @property
    def is_busy(self) -> bool:
        """Whether a command runs, which has come whole."""
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
        while self.octets > self._room and len(self._held) > 1:  # one may have more than the room
            greediest = self._greediest()
            if greediest is None:
                self._waiting[holder] = None
                holder.wait_for_room()
                return
            self.let_go(greediest)
            greediest.give_way()

    def let_go(self, holder: Holder) -> None:
        """Nothing of it is held any more."""
        self.octets -= self._held.pop(holder, 0)
        self._waiting.pop(holder, None)
        if self._waiting and self.octets <= self._room:
            waiting = list(self._waiting)
            self._waiting.clear()
            for other in waiting:
                other.has_room()

    def _greediest(self) -> Holder | None:
        """The largest that is still coming in, of whoever has most."""
        owners = {holder: holder.account for holder in self._held}
        by_account: Counter[str] = Counter()
        for holder, octets in self._held.items():
            by_account[owners[holder]] += octets
        account = max(by_account, key=by_account.__getitem__)
        coming = [
            holder for holder, owner in owners.items() if owner == account and not holder.is_busy
        ]
        return max(coming, key=self._held.__getitem__, default=None)


class _Here:
    """That of the process."""

    inbound = Inbound()


def inbound() -> Inbound:
    """Of this process."""
    return _Here.inbound
