"""What orders and keeps the commits of a list, below the ledger: LMDB alone, or a log that several masters share.

With a shared log (`Ordered`) every master keeps the list in LMDB, as a cache that is never ahead of the log. Work is decided
in an LMDB transaction, put into the log guarded by the position that it was decided at, and only then committed here. Who
finds that another was faster takes up what that one did, and decides again. So all masters have one history: the same
rows, sequence numbers and marks, and a replica may go on at any of them.

All of it blocks, and is called from the ledger's writer thread.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar, cast

from murder.api.list_log import HasLeft, ListLog, Member, Position, Record, Whole
from murder.errors import Code, Misuse, Refusal, UpstreamFailure, UpstreamKind
from murder.log import logger
from murder.roles.mupdate.commits.foreign import checked_record, checked_whole
from murder.roles.mupdate.database.mboxlist import Committed, MailboxList, mark_synchronised
from murder.roles.mupdate.database.transaction import LastCommit, ListTransaction

T = TypeVar("T")

MOST_RECORDS: Final = 200  # that are taken up in one commit here,
MOST_ROWS: Final = 2000  # or about so many rows


class Engine(Protocol):
    """What the ledger needs."""

    mailboxes: MailboxList

    @property
    def is_shared(self) -> bool:
        """Whether others commit, too: what is here may be older than what has been acknowledged elsewhere."""
        ...

    def write(
        self, work: Callable[[ListTransaction], T], *, is_large: bool = False
    ) -> tuple[T, Sequence[Committed]]:
        """Do work durably. What it returned, and all that has been committed here meanwhile, others' included, in
        order. It may run more than once; if it raises, it has done nothing. Raises Refusal; TooLarge, where fewer
        proposals may help; UpstreamFailure, where it cannot be told whether it is done. `is_large`: of many changes."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether the list has ever been complete here."""
        ...

    @property
    def most_changes(self) -> int:
        """So many proposals may be in one commit."""
        ...

    @property
    def is_prompt(self) -> bool:
        """Whether a small commit waits for nothing but the disk, once."""
        ...

    def take_up(self) -> Sequence[Committed]:
        """What others have committed; as `write`."""
        ...

    def told(self) -> Sequence[Committed]:
        """What has been committed here, and not been returned by a call that raised. Waits for nothing."""
        ...

    @property
    def problem(self) -> str:
        """Why nothing could be changed when it was last tried; empty where it could."""
        ...

    def members(self) -> Sequence[Member]:
        """The servers that keep it together with others' lists, as they answer now. Blocks; called from any thread. Raises
        UpstreamFailure, Refusal."""
        ...

    def listen(self, on_news: Callable[[], None]) -> None:
        """Call this, from any thread, when others have committed something."""
        ...

    def close(self) -> None:
        """Let go what is not the list's."""
        ...


class Embedded:
    """LMDB alone: this process is the only writer."""

    is_shared: Final = False  # asked for each change

    def __init__(self, mailboxes: MailboxList) -> None:
        self.mailboxes = mailboxes

    def write(
        self, work: Callable[[ListTransaction], T], *, is_large: bool = False
    ) -> tuple[T, Sequence[Committed]]:
        outcome, committed = self.mailboxes.write(work, ahead=not is_large)
        return outcome, [committed]

    @property
    def is_ready(self) -> bool:
        """From the beginning: there is nobody to wait for."""
        return True

    @property
    def most_changes(self) -> int:
        """As many as come: LMDB's transaction has no bound but the map's."""
        return sys.maxsize

    @property
    def is_prompt(self) -> bool:
        """Where the journal has room."""
        return self.mailboxes.is_prompt

    def take_up(self) -> Sequence[Committed]:
        """Nothing: nobody else commits."""
        return ()

    def told(self) -> Sequence[Committed]:
        """Nothing: what raises here has committed nothing."""
        return ()

    @property
    def problem(self) -> str:
        """None that it would know before it writes."""
        return ""

    def members(self) -> Sequence[Member]:
        """None but this one."""
        return ()

    def listen(self, on_news: Callable[[], None]) -> None:
        """There are no others."""

    def close(self) -> None:
        pass


class _NotNext(Exception):
    """The log has not taken the record, or does not say: nothing is committed here."""


@dataclass(slots=True)
class _Attempt:
    """What was given to the log last, and whether it has taken it; None where it does not say."""

    was_taken: bool | None = None
    failure: UpstreamFailure | None = None


class Ordered:
    """One master of several on a shared log. See the module."""

    is_shared: Final = True

    def __init__(self, mailboxes: MailboxList, log: ListLog) -> None:
        """Asks nothing of the log, which may be away."""
        self.mailboxes = mailboxes
        self._records = log
        self._epoch = mailboxes.epoch if mailboxes.synchronised or mailboxes.last_seq() else ""
        self._is_joined = mailboxes.synchronised
        self._commits: list[Committed] = []  # done here and not told yet
        self._trouble = ""  # what the log last said in place of an answer,
        self._problem = ""  # and in words
        self._log = logger(role="mupdate")

    @property
    def is_ready(self) -> bool:
        """Once the log has answered, or a list is here that it answered for."""
        return self._is_joined

    @property
    def most_changes(self) -> int:
        """What the log's server takes in one transaction."""
        return self._records.most_changes

    @property
    def problem(self) -> str:
        return self._problem

    def members(self) -> Sequence[Member]:
        return self._records.members()

    @property
    def is_prompt(self) -> bool:
        """Never: each commit asks the log's server."""
        return False

    def listen(self, on_news: Callable[[], None]) -> None:
        self._records.listen(on_news)

    def close(self) -> None:
        self._records.close()

    def told(self) -> Sequence[Committed]:
        """Each commit once: what is given out here is forgotten."""
        commits, self._commits = self._commits, []
        return commits

    def take_up(self) -> Sequence[Committed]:
        """What the log has said of itself; where there may be a gap before it, what it is asked for."""
        return self._noting_trouble(self._take_up)[1]

    def _take_up(self) -> None:
        """What was heard; where nothing was that goes on from here, there may be a gap before it."""
        records = self._records.heard(self._epoch, self.mailboxes.position())
        if records and self._is_joined:
            self._take(records, {})
        else:
            self._catch_up({})

    def write(
        self, work: Callable[[ListTransaction], T], *, is_large: bool = False
    ) -> tuple[T, Sequence[Committed]]:
        return self._noting_trouble(lambda: self._write(work))

    def _noting_trouble(self, act: Callable[[], T]) -> tuple[T, Sequence[Committed]]:
        """Trouble is told once, until it works again or the reason is another."""
        try:
            outcome = act()
        except (UpstreamFailure, Refusal) as error:
            kind = error.kind.value if isinstance(error, UpstreamFailure) else "refused"
            if isinstance(error, HasLeft):
                self._is_joined = False
            self._problem = error.text
            if self._trouble != kind:
                self._trouble = kind
                self._log.warning("engine.unavailable", kind=kind, problem=error.text)
            raise
        if self._trouble:
            self._trouble = self._problem = ""
            self._log.info("engine.available", mark=self.mailboxes.mark())
        return outcome, self.told()

    def _write(self, work: Callable[[ListTransaction], T]) -> T:
        self._take(self._records.heard(self._epoch, self.mailboxes.position()), {})
        given: dict[
            bytes, object
        ] = {}  # marks of all that was given to the log, with what it would mean
        attempt = _Attempt()

        def numbered(transaction: ListTransaction) -> T:
            outcome = work(transaction)
            transaction.number_notes()
            return outcome

        def order(transaction: ListTransaction, last: LastCommit, outcome: object) -> None:
            nonlocal attempt
            attempt = _Attempt()
            if last.seq == transaction.began_at.seq:
                if not self._records.is_last(self._epoch, transaction.began_at):
                    raise _NotNext
                return
            changes = [(change.key, change.row) for change in transaction.changes]
            position = Position(last.seq, last.mark)
            record = Record(transaction.began_at, changes, position, transaction.noted)
            given[last.mark] = outcome
            try:
                attempt.was_taken = self._records.append(self._epoch, record)
            except UpstreamFailure as failure:
                attempt.failure = failure
            if not attempt.was_taken:
                raise _NotNext

        while True:
            try:
                if not self._is_joined:
                    raise _NotNext
                outcome, committed = self.mailboxes.write(numbered, order, ahead=True, flush=False)
            except _NotNext:
                pass
            except Refusal as refusal:
                if attempt.was_taken:  # and this disk has not: it is there for all others
                    raise UpstreamFailure(
                        UpstreamKind.LOST, "the list's engine", refusal.text
                    ) from refusal
                raise
            else:
                self._commits.append(committed)
                return outcome
            done = self._catch_up(given)
            if done is not None:
                return cast(T, given[done])  # it had been taken all the same
            if attempt.failure is not None:
                raise attempt.failure  # not taken so far; nobody may say that it will not be

    def _catch_up(self, given: Mapping[bytes, object]) -> bytes | None:
        """Take up all that the log has; the mark of that which was `given`, if it was among it."""
        records = self._records.since(self._epoch, self.mailboxes.position())
        if not isinstance(records, Whole):
            done = self._take(records, given)
            if not self._is_joined:
                self.mailboxes.commit([mark_synchronised()])
                self._is_joined = True
            return done
        records = checked_whole(records)
        if records.is_put_back:
            self._put_aside(records)
        self._commits = [self.mailboxes.take_whole(records)]
        self._epoch = records.epoch
        self._is_joined = True
        self._log.info(
            "engine.list_taken", mailboxes=self.mailboxes.count(), mark=self.mailboxes.mark()
        )
        return None

    def _take(self, records: Iterable[Record], given: Mapping[bytes, object]) -> bytes | None:
        done = None
        some: list[Record] = []
        rows = 0
        for record in map(checked_record, records):
            some.append(record)
            rows += len(record.changes)
            if record.position.mark in given:
                done = record.position.mark
            if len(some) >= MOST_RECORDS or rows >= MOST_ROWS:
                self._take_some(some)
                some, rows = [], 0
        self._take_some(some)
        return done

    def _take_some(self, records: Sequence[Record]) -> None:
        try:
            self._commits += self.mailboxes.take_up(records) if records else []
        except Misuse as misuse:  # by whoever has written them
            raise Refusal(
                Code.CANNOT, f"The shared log does not go on from this list: {misuse}"
            ) from misuse

    def _put_aside(self, whole: Whole) -> None:
        """What this master was told and the log does not know any more is kept for the operator."""
        path = self.mailboxes.path
        aside = path.with_name(f"{path.name}.{self.mailboxes.mark().replace(':', '-')}")
        if not aside.exists():
            self.mailboxes.compact_to(aside)
        self._log.warning(
            "engine.put_back",
            had=self.mailboxes.last_seq(),
            found=whole.position.seq,
            aside=str(aside),
        )
