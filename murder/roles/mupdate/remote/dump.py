"""A master's whole list on its way into ours: the writer thread's side of a replica's dump.

What waits between connection and thread is bounded, in batches and octets; so is what a master may tell altogether.
"""

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from murder.errors import Code, Refusal
from murder.log import logger
from murder.roles.mupdate.database.change import PutNote
from murder.roles.mupdate.database.difference import Difference
from murder.roles.mupdate.database.indexing import IndexLines
from murder.roles.mupdate.database.lacking import (
    LACKING,
    LOST,
    MAX_LOST,
    mark_lacking,
    mark_lost,
    parse_lacking,
    still_lost,
)
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.record import Block
from murder.roles.mupdate.database.transaction import ListTransaction
from murder.roles.mupdate.remote.link import Link

T = TypeVar("T")

FOLLOWED: Final = "followed"  # note: the master's mark up to which this list has followed
# note: so many rows of a first synchronisation are not yet in the index
UNINDEXED: Final = "unindexed"
FIRST_SYNC_ROWS: Final = 100_000  # rows of one commit while the list has never been complete,
FIRST_SYNC_OCTETS: Final = 32 * 1024 * 1024  # or so many octets of them
BATCH_ROWS: Final = 1000
BATCH_OCTETS: Final = 256 * 1024  # of one batch: whatever comes first
QUEUE_BATCHES: Final = 64  # between connection and writer thread, 16 MiB; the master waits beyond


class Dump:
    """The writer thread's side of a whole list. Before the list has ever been complete, it commits as it goes (nobody
    is served from it yet); afterwards all is one transaction, and the old list serves until it ends."""

    def __init__(
        self,
        mailboxes: MailboxList,
        link: Link,
        on_failure: Callable[[Exception], None],
        most_octets: int,
        *,
        is_late: bool = False,
    ) -> None:
        """`is_late`: the list is the one that was followed, which no longer remembers what it has removed since."""
        self._mailboxes = mailboxes
        self._link = link
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
        self._finished: Callable[[], None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dump")
        self._cancelled = False
        self._ran = False
        self._is_late = is_late
        self._lacking = 0  # mailboxes that a master with another history has not
        self._pending = Block([], [])
        self._pending_octets = 0
        self._octets_left = most_octets  # of all that the master may tell
        self._job = self._thread.submit(self._work)

    def add(self, block: Block) -> None:
        self._pending.keys.extend(block.keys)
        self._pending.rows.extend(block.rows)
        self._pending_octets += sum(map(len, block.rows)) + sum(map(len, block.keys))
        if len(self._pending.keys) >= BATCH_ROWS or self._pending_octets >= BATCH_OCTETS:
            self._octets_left -= self._pending_octets
            if self._octets_left < 0:
                self._give_up()
                return
            self._queue.put(self._pending)
            self._pending, self._pending_octets = Block([], []), 0
            if self._queue.qsize() > QUEUE_BATCHES:
                self._link.pause()

    def _give_up(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._link.pause()
            self._queue.put(None)
            text = "The master's list is longer than mupdate.max_list_bytes allows: it is not taken"
            self._on_failure(Refusal(Code.LIMIT, text))

    def finish(self, then: Callable[[], None]) -> None:
        self._finished = then
        self._queue.put(self._pending)
        self._queue.put(None)

    async def cancel(self) -> None:
        """Give up what is not finished; returns when the thread has ended (its transaction must not outlive the list)."""
        self._cancelled = True
        self._queue.put(None)
        await asyncio.wait([asyncio.wrap_future(self._job)])

    def _work(self) -> None:
        """In the thread."""
        try:
            if self._mailboxes.synchronised:
                self._mailboxes.write(
                    lambda transaction: self._once(lambda: self._all_at_once(transaction))
                )
            else:
                difference, more = Difference(IndexLines()), True
                while more:
                    more, _ = self._mailboxes.write(
                        lambda transaction: self._once(
                            lambda: self._some(transaction, difference, FIRST_SYNC_ROWS)
                        )
                    )
                    self._ran = False
        except Exception as error:  # noqa: BLE001 - the end of a task: the stream is told
            self._tell(self._on_failure, error)
            return
        finally:
            self._thread.shutdown(wait=False)
        if self._lacking:
            dump_log = logger(role="replica")
            dump_log.warning(
                "replica.lacking",
                master=self._link.target.name,
                count=self._lacking,
                problem="the master has another history, and not all mailboxes that it had",
                cure="start the backends, which announce theirs: `murder help trouble`",
            )
        if not self._cancelled and self._finished is not None:
            self._tell(self._finished)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        if not self._cancelled:
            self._loop.call_soon_threadsafe(callback, *args)

    def _all_at_once(self, transaction: ListTransaction) -> None:
        """In the same transaction it is written down what the master may have lost, so that nobody who reads the list takes
        that for deleted (`MailboxList.lacks`). Whose mark it refused, or who followed another kind of master, knows that its
        history is another one; a master without marks has none, and deletes while nobody is looking (as one whose history we
        have waited too long to hear): but not the most."""
        followed, before, difference = transaction.note(FOLLOWED), transaction.count(), Difference()
        while self._some(transaction, difference, FIRST_SYNC_ROWS):
            pass
        gone = difference.gone
        if gone and ((followed and not self._is_late) or 2 * gone > before):
            self._lacking = _note_lost(transaction, difference)

    def _once(self, work: Callable[[], T]) -> T:
        """A transaction that ran into the end of the map is run again: with rows that are used up."""
        if self._ran:
            raise Again("the list's file had to grow; the whole list is asked for again")
        self._ran = True
        return work()

    def _some(self, transaction: ListTransaction, difference: Difference, rows: int) -> bool:
        """Apply up to about so many rows; False after the last."""
        stop, octets = difference.rows + rows, 0
        transaction.apply(PutNote(FOLLOWED, b""))  # until the dump is whole, no mark is ours
        if difference.lines is not None and not difference.rows and transaction.note(UNINDEXED):
            transaction.index_again()
            transaction.apply(PutNote(UNINDEXED, b""))
        while difference.rows < stop and octets < FIRST_SYNC_OCTETS:
            batch = self._queue.get()
            if self._cancelled:
                raise Again("the connection was lost")
            if batch is None:
                difference.finish(transaction)
                transaction.apply(PutNote(UNINDEXED, b""))
                return False
            difference.apply(transaction, batch)
            octets += sum(map(len, batch.rows))
            if self._queue.qsize() == QUEUE_BATCHES // 2:
                self._loop.call_soon_threadsafe(self._go_on)
        if difference.lines is not None:
            transaction.apply(PutNote(UNINDEXED, b"%d" % difference.lines.rows))
        return True

    def _go_on(self) -> None:
        if not self._link.is_lost and self._finished is None:
            self._link.resume()


class Again(Exception):
    """This attempt is over; the replica makes another."""


def _note_lost(transaction: ListTransaction, difference: Difference) -> int:
    """Beside what was lost before and is not back; how many."""
    noted = transaction.note(LACKING), transaction.note(LOST)
    former = still_lost(noted, lambda key: transaction.row(key) is not None)
    gone, keys = difference.gone, difference.keys
    # of more than these it is not known which are back
    known = gone <= len(keys) <= MAX_LOST and former is not None
    if former is None:
        gone += parse_lacking(noted[0])[1]
    elif known:
        new = set(keys)
        keys = [*keys, *(key for key in former if key not in new)]
        gone += len(keys) - len(new)
        known = len(keys) <= MAX_LOST
    else:
        gone += len(former)
    mark = mark_lacking(gone)
    transaction.apply(mark)
    transaction.apply(mark_lost(keys, mark) if known else PutNote(LOST, b""))
    return gone
