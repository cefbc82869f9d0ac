"""Who waits for the next commit of a list, and who comes first.

Fair between peers: each commit takes a batch of one, then of the next, however many connections a peer has and however
much it has sent; and the commit after it begins with the peer behind the last. Within a peer small batches and large ones
take turns, so that a CREATE does not stand behind a thousand long access lists. What one caller (a connection) gives stays
in its order. Knows no transactions.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

W = TypeVar("W")

ROW_COST: Final = 4  # lines: the row's, the journal's, and those of the index for server and owner
# Lines of one commit, each some microseconds: a tenth of a second. How many pages they are on is known only when they are
# put there: the ledger ends a commit where they become too many (`database.pages`), and gives back what it has not done.
MAX_COMMIT_COST: Final = 32_768
MAX_COMMIT_WORKS: Final = 20_000
SMALL_COST: Final = 256  # about a millisecond
FEW_COST: Final = 1024  # and works: so few are in one commit in any order of their peers


def cost_of(raw_acl: bytes) -> int:
    """Of a row with this access list, as lines in LMDB."""
    return ROW_COST + raw_acl.count(b"\t") // 2


class Batch(NamedTuple, Generic[W]):
    """What one caller wants done in one commit, or in few, in order. `done` gets an outcome for each."""

    works: Sequence[W]
    done: Callable[[Sequence[object]], None]
    cost: int
    peer: str
    caller: object

    def rest(self, outcomes: Sequence[object]) -> "Batch[W]":
        """What is left when the first ones have these."""
        left, done = self.works[len(outcomes) :], self.done

        def all_done(others: Sequence[object]) -> None:
            done([*outcomes, *others])

        cost = max(self.cost * len(left) // len(self.works), 1)
        return Batch(left, all_done, cost, self.peer, self.caller)


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
            (self.small if batch.cost <= SMALL_COST else self.large).append(batch.caller)
        queue.append(batch)

    def put_back(self, batch: Batch[W]) -> None:
        """Before all others of its caller."""
        queue = self.batches.get(batch.caller)
        if queue is None:
            self.add(batch)
        else:
            queue.appendleft(batch)

    @property
    def lane(self) -> deque[object]:
        """The callers whose turn it is, the first of them first. Somebody has something."""
        if self.small and self.large:
            return self.large if self.large_is_next else self.small
        return self.small or self.large

    def take_from(self, lane: deque[object]) -> None:
        """The first batch of its first caller."""
        caller = lane.popleft()
        self.large_is_next = lane is self.small
        queue = self.batches[caller]
        queue.popleft()
        if queue:
            (self.small if queue[0].cost <= SMALL_COST else self.large).append(caller)
        else:
            del self.batches[caller]


class Waiting(Generic[W]):
    """See the module."""

    def __init__(self) -> None:
        self._few: list[Batch[W]] = []  # all there are, as they came, while one commit takes them
        self._of_few = 0  # lines and works of them
        self._peers: dict[str, _Peer[W]] = {}  # else
        self._turns: deque[str] = deque()  # of the peers that have something here
        self.count = 0  # batches

    def add(self, batch: Batch[W]) -> None:
        self.count += 1
        more = self._of_few + batch.cost + len(batch.works)
        if more <= FEW_COST and not self._peers:
            self._few.append(batch)
            self._of_few = more
            return
        self._sort()
        (self._peers.get(batch.peer) or self._peer(batch.peer)).add(batch)

    def _sort(self) -> None:
        """By peers, all that came before."""
        few, self._few, self._of_few = self._few, [], 0
        for batch in few:
            self._peer(batch.peer).add(batch)

    def put_back(self, batches: Sequence[Batch[W]]) -> None:
        """What was taken and has not been done, in order: each before all that its caller has said since. The first has had
        its turn, in part."""
        for batch in reversed(batches):
            self._peer(batch.peer).put_back(batch)
        self._sort()  # what came meanwhile, behind it
        self.count += len(batches)
        self._turns.remove(batches[0].peer)
        self._turns.append(batches[0].peer)

    def _peer(self, name: str) -> _Peer[W]:
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = _Peer()
            self._turns.append(name)
        return peer

    def take(self) -> list[Batch[W]]:
        """One commit's worth, at least one batch where there is any."""
        if self._few:
            few, self._few, self._of_few = self._few, [], 0
            self.count = 0
            return few
        taken: list[Batch[W]] = []
        cost = works = 0
        while self._turns:
            name = self._turns[0]
            peer = self._peers[name]
            lane = peer.lane
            batch = peer.batches[lane[0]][0]
            cost += batch.cost
            works += len(batch.works)
            if taken and (cost > MAX_COMMIT_COST or works > MAX_COMMIT_WORKS):
                break
            peer.take_from(lane)
            taken.append(batch)
            self._turns.popleft()
            if peer.batches:
                self._turns.append(name)
            else:
                del self._peers[name]
        self.count -= len(taken)
        return taken
