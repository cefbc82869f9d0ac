"""Who waits for the next commit of a list, and who comes first.

Fair between peers: each commit takes a batch of one, then of the next, however many connections a peer has and however
much it has sent; and the commit after it begins with the peer behind the last. Within a peer small batches and large ones
take turns, so that a CREATE does not stand behind a thousand long access lists. What one caller (a connection) gives stays
in its order. Knows no transactions.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

W = TypeVar("W")

ROW_COST: Final = 4  # pages: the row's, the journal's, and those of the index for server and owner
# Pages of one commit: each row and each identifier of its access list is on a page of its own, at worst. 16 MiB; LMDB keeps
# the pages of its largest commit in memory for ever, and others wait for all of them to be written.
MAX_COMMIT_COST: Final = 4096
MAX_COMMIT_WORKS: Final = 20_000
SMALL_COST: Final = 256  # about a millisecond


def cost_of(raw_acl: bytes) -> int:
    """Of a row with this access list, as pages that it may touch."""
    return ROW_COST + raw_acl.count(b"\t") // 2


@dataclass(frozen=True, slots=True)
class Batch(Generic[W]):
    """What one caller wants done in one commit, in order. `done` gets an outcome for each."""

    works: Sequence[W]
    done: Callable[[Sequence[object]], None]
    cost: int
    peer: str
    caller: object


@dataclass(slots=True)
class _Peer(Generic[W]):
    """Its callers that have something here, by whether the next of it is small."""

    small: deque[object] = field(default_factory=deque)
    large: deque[object] = field(default_factory=deque)
    batches: dict[object, deque[Batch[W]]] = field(default_factory=dict)
    large_is_next: bool = False

    def add(self, batch: Batch[W]) -> None:
        queue = self.batches.get(batch.caller)
        if queue is None:
            queue = self.batches[batch.caller] = deque()
            self._line_up(batch)
        queue.append(batch)

    def _line_up(self, batch: Batch[W]) -> None:
        (self.small if batch.cost <= SMALL_COST else self.large).append(batch.caller)

    def _lane(self) -> deque[object]:
        if self.small and self.large:
            return self.large if self.large_is_next else self.small
        return self.small or self.large

    def next(self) -> Batch[W]:
        """The one that `take` will take. Somebody has one."""
        return self.batches[self._lane()[0]][0]

    def take(self) -> None:
        lane = self._lane()
        caller = lane.popleft()
        self.large_is_next = lane is self.small
        queue = self.batches[caller]
        queue.popleft()
        if queue:
            self._line_up(queue[0])
        else:
            del self.batches[caller]


class Waiting(Generic[W]):
    """See the module."""

    def __init__(self) -> None:
        self._peers: dict[str, _Peer[W]] = {}
        self._turns: deque[str] = deque()  # of the peers that have something here
        self._count = 0

    def __len__(self) -> int:
        """Batches."""
        return self._count

    def add(self, batch: Batch[W]) -> None:
        peer = self._peers.get(batch.peer)
        if peer is None:
            peer = self._peers[batch.peer] = _Peer()
            self._turns.append(batch.peer)
        peer.add(batch)
        self._count += 1

    def take(self) -> list[Batch[W]]:
        """One commit's worth, at least one batch where there is any."""
        taken: list[Batch[W]] = []
        cost = works = 0
        while self._turns:
            name = self._turns[0]
            peer = self._peers[name]
            batch = peer.next()
            cost += batch.cost
            works += len(batch.works)
            if taken and (cost > MAX_COMMIT_COST or works > MAX_COMMIT_WORKS):
                break
            peer.take()
            taken.append(batch)
            self._turns.popleft()
            if peer.batches:
                self._turns.append(name)
            else:
                del self._peers[name]
        self._count -= len(taken)
        return taken
