"""What orders and keeps the commits of a list, below the ledger: LMDB alone, or a log that several masters share.

With a shared log (`Ordered`) every master keeps the list in LMDB, as a cache that is never ahead of the log. Work is decided
in an LMDB transaction, put into the log guarded by the position that it was decided at, and only then committed here. Who
finds that another was faster takes up what that one did, and decides again. So all masters have one history: the same
rows, sequence numbers and marks, and a replica may go on at any of them.

All of it blocks, and is called from the ledger's writer thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from murder.errors import UpstreamFailure
from murder.mupdate.mboxlist import Committed, MailboxList
from murder.mupdate.transaction import LastCommit, ListTransaction, Position

T = TypeVar("T")


class Engine(Protocol):
    """What the ledger needs."""

    mailboxes: MailboxList

    @property
    def is_shared(self) -> bool:
        """Whether others commit, too: what is here may be older than what has been acknowledged elsewhere."""
        ...

    def write(self, work: Callable[[ListTransaction], T]) -> tuple[T, Sequence[Committed]]:
        """Do work durably. What it returned, and all that has been committed here meanwhile, others' included, in
        order. It may run more than once; if it raises, it has done nothing. Raises Refusal, UpstreamFailure."""
        ...

    def listen(self, on_news: Callable[[], None]) -> None:
        """Call this, from any thread, when others have committed something."""
        ...


class Embedded:
    """LMDB alone: this process is the only writer."""

    def __init__(self, mailboxes: MailboxList) -> None:
        self.mailboxes = mailboxes

    @property
    def is_shared(self) -> bool:
        return False

    def write(self, work: Callable[[ListTransaction], T]) -> tuple[T, Sequence[Committed]]:
        outcome, committed = self.mailboxes.write(work)
        return outcome, [committed]

    def listen(self, on_news: Callable[[], None]) -> None:
        """There are no others."""


@dataclass(frozen=True, slots=True)
class Record:
    """One commit as the log keeps it: rows (None: removed) by collation key, in order, and the position behind it."""

    changes: Sequence[tuple[bytes, bytes | None]]
    position: Position


class Log(Protocol):
    """The order of all masters' commits, kept by a consensus engine."""

    epoch: str  # names the history; another one after a restore from a backup

    def append(self, after: Position, record: Record) -> bool:
        """Make this the next commit if `after` is still the last one; whether it was. Durable when it returns. Raises
        UpstreamFailure where that cannot be told: it may be done, or be done a little later."""
        ...

    def since(self, after: Position) -> Sequence[Record]:
        """All commits behind a position, in order, to the present of all masters. Raises UpstreamFailure."""
        ...

    def listen(self, on_news: Callable[[], None]) -> None:
        """As `Engine.listen`."""
        ...


class _NotNext(Exception):
    """The log has not taken the record, or does not say: nothing is committed here."""


@dataclass(slots=True)
class _Attempt:
    """What was given to the log, and what it would mean."""

    mark: bytes
    outcome: object
    failure: UpstreamFailure | None = None


class Ordered:
    """One master of several on a shared log. See the module."""

    def __init__(self, mailboxes: MailboxList, log: Log) -> None:
        """Raises Refusal where the list is of another history."""
        mailboxes.adopt(log.epoch)
        self.mailboxes = mailboxes
        self._log = log

    @property
    def is_shared(self) -> bool:
        return True

    def listen(self, on_news: Callable[[], None]) -> None:
        self._log.listen(on_news)

    def write(self, work: Callable[[ListTransaction], T]) -> tuple[T, Sequence[Committed]]:
        commits: list[Committed] = []
        attempt: _Attempt | None = None
        while True:
            for record in self._log.since(self.mailboxes.position()):
                commits.append(self._take_up(record))
                if attempt is not None and record.position.mark == attempt.mark:
                    return cast(T, attempt.outcome), commits  # it had been taken all the same
            if attempt is not None and attempt.failure is not None:
                raise attempt.failure  # not taken so far; nobody may say that it will not be
            attempt = None

            def order(transaction: ListTransaction, last: LastCommit, outcome: object) -> None:
                nonlocal attempt
                changes = [(change.key, change.row) for change in transaction.changes]
                if not changes:
                    return
                attempt = _Attempt(last.mark, outcome)
                record = Record(changes, Position(last.seq, last.mark))
                try:
                    taken = self._log.append(transaction.began_at, record)
                except UpstreamFailure as failure:
                    attempt.failure = failure
                    taken = False
                if not taken:
                    raise _NotNext

            try:
                outcome, committed = self.mailboxes.write(work, order)
            except _NotNext:
                continue
            return outcome, [*commits, committed]

    def _take_up(self, record: Record) -> Committed:
        """A commit that the log has, ours or another's."""
        _, committed = self.mailboxes.write(
            lambda transaction: transaction.follow(record.changes, record.position)
        )
        return committed
