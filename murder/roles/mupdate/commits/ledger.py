"""Group commit: the changes of all callers share durable commits, made in one writer thread.

This is what stands between the commands and the list: commit a batch, hear what was committed, follow. A proposal
is decided *inside* the transaction, where it sees everything before it; so two proposals of one batch cannot both
take one name. What orders and keeps the commits is an `engine`: LMDB alone, or a log that several masters share.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar, cast

from murder.api.list_log import TooLarge
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.roles.mupdate.commits.bounds import Bounds
from murder.roles.mupdate.commits.engine import Embedded, Engine
from murder.roles.mupdate.commits.owner import DONE, against_activation, decide
from murder.roles.mupdate.commits.proposal import (
    Activate,
    Deactivate,
    Delete,
    Force,
    Proposal,
    Reserve,
)
from murder.roles.mupdate.commits.waiting import ROW_COST, Batch, Waiting
from murder.roles.mupdate.database.change import Change, PutEntry
from murder.roles.mupdate.database.mboxlist import Committed, MailboxList
from murder.roles.mupdate.database.pages import MOST_PAGES
from murder.roles.mupdate.database.transaction import ListTransaction

T = TypeVar("T")

Work = Callable[[ListTransaction], object]
"""Looks, decides, then changes. Raises Refusal before its first change, or not at all; or returns one, having
written down why. May run more than once."""

Done = Callable[[Sequence[object]], None]
"""Called in the event loop when a batch is durable, with each proposal's outcome: what it returned or raised."""

INLINE_PROPOSALS: Final = 64  # at most so many, and
# only while the disk is so fast, are committed without the thread (see `inline`)
INLINE_COMMIT_S: Final = 0.002
# turns of the loop that a commit waits for those who were there for the last one
MOST_LOOKS: Final = 2
MOST_PATIENCE_S: Final = 0.002  # with those who were there for the last commit
# What comes in turn after turn, as a long announcement does, is one commit: a commit waits for more of it while there are
# fewer than so many, a hundredth of a second of taking them in. Few do not wait (`INLINE_PROPOSALS`), and nobody longer than
# some turns: of a loop that is busy each may last, and bring one proposal
MANY_TOGETHER: Final = 1000
MOST_LOOKS_AT_MANY: Final = 16
INLINE_COST: Final = 512  # as INLINE_PROPOSALS: two milliseconds of work
# more are written once, into LMDB: twice costs more than one flush in place of two saves
MANY_PROPOSALS: Final = 256


class Ledger:
    """The writing side of one list in this process. Belongs to one event loop.

    Whoever listens (`on_commit`) hears of every commit, in order, before the callers of that commit do.

    `inline`: this process is the list's only writer, so a small commit may be made in the event loop, while commits
    take less than two milliseconds. Handing it to the thread and back would take a third as long again.
    """

    def __init__(
        self,
        mailboxes: MailboxList,
        on_commit: Callable[[Committed], None] | None = None,
        *,
        inline: bool = False,
        engine: Engine | None = None,
    ) -> None:
        self.mailboxes = mailboxes
        self._engine = engine or Embedded(mailboxes)
        self.on_commit = on_commit
        self.waiting = 0  # proposals not yet durable
        self._heard_seq = mailboxes.last_seq()
        self._queue: Waiting[Work] = Waiting()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._inline = inline
        self._held = 0  # acts that have the writer thread to themselves
        self._commit_s = 1.0  # how long commits take lately
        self._scheduled = False
        self._looks = 0  # turns that the commit to come has waited
        self._seen = 0  # proposals that were waiting in the last of them
        self._timer: asyncio.TimerHandle | None = None
        self._callers = 1  # of the last commit, and those who came while it was made
        self._committing = False
        self._is_closed = False
        self._idle: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        if self._engine.is_shared:
            self.listen()

    def listen(self) -> None:
        """Take up what others commit, as soon as the engine hears of it: from when it is shared."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._engine.listen(self._others_have_committed)

    async def between_commits(self, act: Callable[[], T]) -> T:
        """Run this in the writer thread; what is proposed meanwhile waits for it, also where the caller does not. Raises
        what it raises."""
        self._held += 1
        done = asyncio.get_running_loop().run_in_executor(self._thread, act)
        done.add_done_callback(self._let_go)
        return await asyncio.shield(done)

    def _let_go(self, _: object) -> None:
        self._held -= 1

    @property
    def is_shared(self) -> bool:
        """Whether other masters commit, too."""
        return self._engine.is_shared

    async def catch_up(self) -> None:
        """Until all is here that has been acknowledged anywhere by now. Raises UpstreamFailure, Refusal."""
        if self._engine.is_shared:
            await self.submit(lambda _: None)

    def forget_conflicts(self) -> None:
        """Soon, behind the commit that is being made: they are this list's own, and in no history."""
        self._thread.submit(
            self.mailboxes.write, lambda transaction: transaction.forget_conflicts()
        )

    @property
    def is_ready(self) -> bool:
        """Whether the list has ever been complete here, and is still kept here: else it is told to nobody."""
        return self._engine.is_ready

    @property
    def why_not_ready(self) -> str:
        """In words."""
        never = "the list has never been complete here; it comes when its engine answers"
        return self._engine.problem or never

    def check_ready(self) -> None:
        """Raise UpstreamFailure where it is not."""
        if not self.is_ready:
            raise UpstreamFailure(
                UpstreamKind.UNSYNCHRONISED, "the list's engine", self.why_not_ready
            )

    def _others_have_committed(self) -> None:
        """Called from any thread."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take_up)

    def _take_up(self) -> None:
        if not self._queue.count and not self._is_closed:
            self.propose([_NOTHING], lambda _: None)

    def propose(
        self,
        proposals: Sequence[Work],
        done: Done,
        cost: int = ROW_COST,
        peer: str = "",
        caller: object = None,
    ) -> None:
        """Queue proposals, to be decided in this order, and behind those of the same caller; `done` gets an outcome for
        each. `cost`: of all together (`waiting.cost_of`); `peer`: for whom, each has its turn. Never blocks."""
        self._queue.add(Batch(proposals, done, cost, peer, caller))
        self.waiting += len(proposals)
        if not self._committing and (not self._scheduled or self._timer is not None):
            self._schedule()

    async def submit(self, proposal: Callable[[ListTransaction], T]) -> T:
        """One proposal; its outcome, once durable. Raises what the proposal raised."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(outcomes: Sequence[object]) -> None:
            if future.cancelled():
                return
            if isinstance(outcomes[0], Exception):
                future.set_exception(outcomes[0])
            else:
                future.set_result(cast(T, outcomes[0]))

        self.propose([proposal], done)
        return await future

    async def commit(self, changes: Iterable[Change]) -> int:
        """Do all of these changes, or none; the list's number after them. Raises Refusal."""
        steps = list(changes)

        def work(transaction: ListTransaction) -> int:
            transaction.check(steps)
            for step in steps:
                transaction.apply(step)
            return transaction.seq

        return await self.submit(work)

    async def close(self) -> None:
        """Wait until all that was proposed is durable; propose nothing after."""
        while self._queue.count or self._committing:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        self._is_closed = True
        self._thread.shutdown()
        await asyncio.to_thread(self._engine.close)

    def _schedule(self) -> None:
        """Commit in the next turn of the loop; or, where the disk is slow, as soon as those have come who were there for the
        last one: waiting a little for them spares them waiting for the commit after this one."""
        loop = asyncio.get_running_loop()
        if self._queue.count >= self._callers or self._is_fast():
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._scheduled = False
            if not self._scheduled:
                self._scheduled = True
                loop.call_soon(self._start)
        elif not self._scheduled:
            self._scheduled = True
            self._timer = loop.call_later(min(self._commit_s / 4, MOST_PATIENCE_S), self._start)

    def _is_fast(self) -> bool:
        may = self._inline and not self._held and not self._engine.is_shared
        return may and self._commit_s < INLINE_COMMIT_S

    def _start(self) -> None:
        """Give the writer thread what is waiting now: everything of this turn of the loop, or of a few, where some are
        missing who were there for the last commit: their next words may just be coming in; or where much is, and more
        comes in each turn."""
        self._timer = None
        is_missed = self._queue.count < self._callers and self._looks < MOST_LOOKS
        is_many = self._looks < MOST_LOOKS_AT_MANY and (
            INLINE_PROPOSALS < self.waiting < MANY_TOGETHER
        )
        if is_missed or (is_many and self._has_grown()):
            self._looks += 1
            asyncio.get_running_loop().call_soon(self._start)
            return
        self._looks = self._seen = 0
        self._scheduled = False
        batches = self._queue.take()
        self._committing = True
        loop = asyncio.get_running_loop()
        flat = [proposal for batch in batches for proposal in batch.works]
        cost = sum([batch.cost for batch in batches])
        is_small = len(flat) <= INLINE_PROPOSALS and cost <= INLINE_COST
        if is_small and self._is_fast() and self._engine.is_prompt:
            self._finish(batches, *self._timed(flat))
            return

        def work() -> None:
            loop.call_soon_threadsafe(self._finish, batches, *self._timed(flat))

        self._thread.submit(work)

    def _has_grown(self) -> bool:
        """Whether more is waiting than in the turn before."""
        seen, self._seen = self._seen, self.waiting
        return self.waiting > seen

    def _timed(self, proposals: Sequence[Work]) -> tuple[Sequence[object], list[Committed]]:
        began = time.perf_counter()
        decided = self._decide(proposals)
        elapsed_s = time.perf_counter() - began
        if len(proposals) <= INLINE_PROPOSALS:
            self._commit_s += (elapsed_s - self._commit_s) / 8
        return decided

    def _decide(self, proposals: Sequence[Work]) -> tuple[Sequence[object], list[Committed]]:
        """In the writer thread."""
        if proposals.count(_NOTHING) == len(proposals):
            return self._take_up_others(proposals)
        most = self._engine.most_changes
        if len(proposals) <= most:
            return self._decide_together(proposals)
        parts = [proposals[at : at + most] for at in range(0, len(proposals), most)]
        return self._decide_parts(parts, [])

    def _take_up_others(
        self, proposals: Sequence[Work]
    ) -> tuple[Sequence[object], list[Committed]]:
        """Nobody asks for anything; what fails here will be told to who does."""
        try:
            return [None] * len(proposals), list(self._engine.take_up())
        except Exception as error:  # noqa: BLE001 - as below: else nobody would be answered again
            return [error] * len(proposals), list(self._engine.told())

    def _decide_together(
        self, proposals: Sequence[Work]
    ) -> tuple[Sequence[object], list[Committed]]:
        """A proposal that fails unexpectedly fails alone: the others are done again. Fewer outcomes than proposals where one
        commit holds no more; at least one."""
        try:
            outcomes, commits = self._engine.write(
                partial(_outcomes, proposals), is_large=len(proposals) > MANY_PROPOSALS
            )
            return outcomes, list(commits)
        except TooLarge as large:
            if len(proposals) == 1:
                return [Refusal(Code.LIMIT, f"The list's engine: {large}")], []
            middle = len(proposals) // 2
            parts = [proposals[:middle], proposals[middle:]]
        except Exception as error:  # noqa: BLE001 - the end of a task: each caller is given the error
            if len(proposals) == 1 or isinstance(error, Refusal | UpstreamFailure):
                return [error] * len(proposals), list(self._engine.told())
            parts = [[proposal] for proposal in proposals]
        return self._decide_parts(parts, list(self._engine.told()))

    def _decide_parts(
        self, parts: Sequence[Sequence[Work]], commits: list[Committed]
    ) -> tuple[Sequence[object], list[Committed]]:
        """Each in a commit of its own, as far as they come."""
        outcomes: list[object] = []
        for part in parts:
            some, committed = self._decide_together(part)
            outcomes += some
            commits += committed
            if len(some) < len(part):
                break
        return outcomes, commits

    def _finish(
        self,
        batches: Sequence[Batch[Work]],
        outcomes: Sequence[object],
        commits: Sequence[Committed],
    ) -> None:
        self._committing = False
        self.waiting -= len(outcomes)
        done: list[tuple[Done, Sequence[object]]] = []
        left: list[Batch[Work]] = []
        at = 0
        for batch in batches:
            end = at + len(batch.works)
            if end <= len(outcomes):
                done.append((batch.done, outcomes[at:end]))
            else:
                left.append(batch.rest(outcomes[at:]))
            at = end
        if left:
            self._queue.put_back(left)
        self._callers = len(batches) + self._queue.count
        if self._queue.count:  # whoever else has something ready joins in
            self._schedule()
        if self.on_commit is not None:
            for committed in commits:
                if committed.seq > self._heard_seq or committed.is_anew:
                    self._heard_seq = committed.seq
                    self.on_commit(committed)
        for tell, some in done:
            tell(some)
        if self._idle is not None and not self._queue.count and not self._committing:
            self._idle.set_result(None)
            self._idle = None


def _outcomes(proposals: Sequence[Work], transaction: ListTransaction) -> list[object]:
    """Of as many as one commit holds."""
    outcomes: list[object] = []
    for proposal in proposals:
        try:
            outcomes.append(proposal(transaction))
        except Refusal as refusal:
            outcomes.append(refusal)
        if transaction.pages.count >= MOST_PAGES:
            break
    return outcomes


def _nothing(_: ListTransaction) -> None:
    """Work that only takes up what others have done."""


_NOTHING: Final[Work] = _nothing


def carry_out(proposal: Proposal, bounds: Bounds, transaction: ListTransaction) -> object:
    """A peer's proposal, decided by what the transaction shows, and done in it: `Work`, with the first two given."""
    if type(proposal) is Activate and against_activation(transaction, proposal) is None:
        if proposal.server in transaction.ample:  # as `_put`, in one place less
            transaction.put(proposal.wanted, is_checked=True)
        else:
            _put(proposal, proposal.wanted, bounds, transaction)
        return DONE
    outcome, change, conflict = decide(transaction, proposal)
    if type(change) is PutEntry and not isinstance(proposal, Delete):
        _put(proposal, change.entry, bounds, transaction)
    elif change is not None:
        transaction.apply(change)
    if conflict is not None:
        transaction.put_conflict(conflict.name, conflict.octets(time.time()))
    return outcome


def _put(
    proposal: Reserve | Activate | Deactivate | Force,
    entry: MailboxEntry,
    bounds: Bounds,
    transaction: ListTransaction,
) -> None:
    """Raises Refusal(LIMIT) where the row is too much for its server."""
    server, ample = proposal.server, transaction.ample
    if server not in ample and not proposal.peer.is_admin and bounds.check_room(transaction, entry):
        ample.add(server)  # and is not looked at again in this commit
    transaction.put(entry, is_checked=True)  # when the proposal was made
