"""The log that several masters share: an order of commits of the mailbox list, kept by a consensus engine.

A log knows nothing of mailboxes. It keeps commits, each behind the one before, and the rows that they lead to. A master
keeps the list beside it as a cache that is never ahead. Every method blocks, and is called from one thread, which is not
the event loop's, but for `listen`, `members` and `close`. No call may take longer than the operator has set.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from murder.errors import Code, Refusal


class Position(NamedTuple):
    """A place in a list's history: the number of the last change, and its commit's mark (b"": nothing yet)."""

    seq: int
    mark: bytes


BEGINNING = Position(0, b"")


@dataclass(frozen=True, slots=True)
class Record:
    """One commit: rows (None: removed) by key, in order, each with the next number; small notes by key; and the position
    behind it. `after` is the position in front of it. Where a commit has no row it has a number all the same."""

    after: Position
    changes: Sequence[tuple[bytes, bytes | None]]
    position: Position
    notes: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Whole:
    """The whole list at one moment, for a master whose own does not lead there. `rows` are pages of keys and rows in order
    of the keys, fetched as they are taken; the commits that the log still has come before the position, in order.

    `is_put_back`: the log does not know what the master had: it was put back from an older copy.
    """

    epoch: str
    position: Position
    rows: Iterator[Sequence[tuple[bytes, bytes]]]
    records: Iterator[Record]
    notes: Mapping[str, bytes]
    is_put_back: bool = False


class Member(NamedTuple):
    """A server of the engine, as it answers now. `problem` is empty where it is well."""

    name: str
    address: str
    is_leader: bool
    used_bytes: int
    problem: str


class TooLarge(Exception):
    """The log takes no record of that size: nothing was done. Fewer proposals in one commit help."""


class HasLeft(Refusal):
    """The log keeps the list no more, another master does, alone: what is here gets older, and is told to nobody."""

    def __init__(self, text: str) -> None:
        super().__init__(Code.UNAVAILABLE, text)


class ListLog(Protocol):
    """What the plugin of `[mupdate] engine` makes.

    All may raise UpstreamFailure (it cannot be told now; of `append`: it may be done, or be done a little later) and
    Refusal, with a sentence for an operator (it was not done, and waiting alone does not help).
    """

    @property
    def most_changes(self) -> int:
        """So many of one record it takes at present."""
        ...

    def append(self, epoch: str, record: Record) -> bool:
        """Make this the next commit if `record.after` is still the last one of this history; whether it is. Durable when it
        returns. Where the answer was lost and the record is there all the same, that counts. Raises TooLarge."""
        ...

    def is_last(self, epoch: str, position: Position) -> bool:
        """Whether nothing has been committed behind a position, by anybody, at some moment of this call."""
        ...

    def heard(self, epoch: str, after: Position) -> Sequence[Record]:
        """What the log has told by itself of the commits behind a position, in order, without asking; perhaps not all."""
        ...

    def since(self, epoch: str, after: Position) -> Iterable[Record] | Whole:
        """All commits behind a position, in order, to the present of all masters; or the whole list, where the log does not
        know them any more, or never did. Raises Refusal where the two are of different histories."""
        ...

    def listen(self, on_news: Callable[[], None]) -> None:
        """Call this, from any thread, when `heard` has something, or when the log can be reached again."""
        ...

    def members(self) -> Sequence[Member]:
        """The engine's servers, as they answer now; one that does not is told with its problem. Called from any thread."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class TakesLists(Protocol):
    """What a log needs besides, so that a list can be brought to it and away from it while its master serves. `token` names
    one move, whose steps fail once it has been given up (`settle`) or another one has begun. Raises as `ListLog`."""

    def prepare(self, token: str) -> None:
        """Begin to take a list in: what an earlier attempt has left goes, and nobody begins an empty one. Raises Refusal
        where there is a list."""
        ...

    def put(self, token: str, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Rows of the list that comes in, or goes on changing; None: removed. The last one of each key counts."""
        ...

    def stored(self) -> Iterator[Sequence[tuple[bytes, bytes]]]:
        """The rows that are here at one moment, in the order of their keys, in pages."""
        ...

    def take_over(
        self, token: str, epoch: str, position: Position, notes: Mapping[str, bytes]
    ) -> None:
        """From here on the list is kept here, where its own history goes on. Raises Refusal where it is not, and will not
        be."""
        ...

    def hand_over(self, token: str, epoch: str, position: Position) -> bool:
        """From here on one master keeps the list alone: whoever asks is told so by HasLeft. False, and nothing done, where
        this position is not the last one."""
        ...

    def settle(self, token: str) -> bool:
        """Give a move up, if it is not done: whatever of it is still under way will not be. Whether a list is kept here."""
        ...
