"""A replica: follows a master, keeps its list in step, says how far behind it is (RFC 3656 §4.11).

With our own master it goes on from where it stood (FOLLOW, announced in the banner, where §3.8 makes others ignore it); with
a Cyrus master it takes the whole list and applies the difference in one transaction, while the old list serves. The list's
own numbers and marks are its own, so replicas may follow replicas.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.log import logger
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, collation_key, display
from murder.roles.mupdate.commits.ledger import Ledger, Work
from murder.roles.mupdate.database.change import Change, PutEntry, PutNote, RemoveEntry
from murder.roles.mupdate.database.environment import MAP_BYTES
from murder.roles.mupdate.database.lacking import LACKING, told_lacking
from murder.roles.mupdate.database.mboxlist import MailboxList, mark_synchronised
from murder.roles.mupdate.database.record import Block, is_listable, pack_plain_rows, pack_row
from murder.roles.mupdate.database.transaction import ListTransaction, check_octets, check_row
from murder.roles.mupdate.remote.dump import FOLLOWED, Again, Dump
from murder.roles.mupdate.remote.link import Link, Target
from murder.roles.mupdate.remote.mark import seq_of
from murder.roles.mupdate.remote.masters import Masters
from murder.roles.mupdate.remote.parts import Part, parts_of
from murder.session.mupdate_client import Event, Rows, is_answer
from murder.wire.mupdate import FORGOTTEN, UNAVAILABLE, Kind, Response, Verb

T = TypeVar("T")

# changes of the stream that wait for the disk; the master waits beyond twice that
MAX_UNCOMMITTED: Final = 20_000
MAX_UNCOMMITTED_OCTETS: Final = 16 * 1024 * 1024  # of their access lists, likewise
MOST_SKIPPED_TOLD: Final = 50  # of one connection, in the log
LOOK_S: Final = 1.0  # with several masters: how often it is looked whether the one followed is well
CHANGE_S: Final = 3.0  # and how long who asks for the present waits while another is taken
PINGS_IN_FLIGHT: Final = 8  # NOOPs at once; who asks beyond shares the next one


@dataclass(frozen=True, slots=True)
class Timing:
    """The replica's patience; seconds."""

    ping_interval_s: float = 20.0
    retry_min_s: float = 0.2
    retry_max_s: float = 15.0


class Phase(Enum):
    """What a replica is doing."""

    DISCONNECTED = "disconnected"
    SYNCHRONISING = "synchronising"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """How a replica stands. `lag_entries` is None where the master does not tell; `lag_s` counts from the last
    moment at which the list was known to be the master's, None: never."""

    phase: Phase
    master: str
    synchronised: bool
    lag_entries: int | None
    lag_s: float | None
    problem: str


class Replica:
    """Follows one master into one list, of which this process must be the only writer."""

    def __init__(
        self,
        target: Target,
        ledger: Ledger,
        timing: Timing | None = None,
        max_list_octets: int = MAP_BYTES,
    ) -> None:
        """`max_list_octets`: a master whose list needs more is not followed."""
        self._masters = Masters(target)
        self.mailboxes: MailboxList = ledger.mailboxes
        self.phase = Phase.DISCONNECTED
        self._ledger = ledger
        self._timing = timing or Timing()
        self._most_octets = max_list_octets
        self._log = logger(role="replica", master=target.name)
        self._problem = "not yet connected"
        self._current_at: float | None = None
        self._stream: _Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed: asyncio.Event = asyncio.Event()

    @property
    def target(self) -> Target:
        """Whom it follows; of several masters, as the configuration has them."""
        return self._masters.target

    @target.setter
    def target(self, target: Target) -> None:
        self._masters = Masters(target)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def status(self) -> ReplicaStatus:
        stream = self._stream
        streaming = self.phase is Phase.STREAMING and stream is not None
        waiting = self._ledger.waiting
        lag_s: float | None = None
        if streaming and not waiting:
            lag_s = 0.0
        elif self._current_at is not None:
            lag_s = time.time() - self._current_at
        elif (at := self.mailboxes.synchronised_at) is not None:
            lag_s = time.time() - at
        return ReplicaStatus(
            self.phase,
            self.target.name,
            self.mailboxes.synchronised,
            waiting if streaming else (stream.entries_behind() if stream else None),
            lag_s,
            self._problem,
        )

    async def until_synchronised(self, timeout_s: float) -> None:
        """Wait until this run has brought the list up to the master's. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while self.phase is not Phase.STREAMING:
                self._changed.clear()
                await self._changed.wait()

    async def ping(self, timeout_s: float) -> None:
        """Reach the master's present: what it had confirmed before this call is in the list when this returns.

        Raises UpstreamFailure where the master cannot be asked now.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._is_at_present():
                    pass
        except TimeoutError:
            raise UpstreamFailure(
                UpstreamKind.TIMEOUT, self.target.name, f"no answer in {timeout_s:g} s"
            ) from None
        self._current_at = time.time()

    async def _is_at_present(self) -> bool:
        """Ask the master that is followed now; False where it went, and another is followed since. Raises
        UpstreamFailure."""
        stream = self._stream
        try:
            if stream is None or self.phase is not Phase.STREAMING:
                raise UpstreamFailure(UpstreamKind.LOST, self.target.name, self._problem)
            await asyncio.shield(stream.noop())
        except UpstreamFailure as failure:
            if failure.kind is not UpstreamKind.LOST or not self._masters.are_several:
                raise
            try:
                async with asyncio.timeout(CHANGE_S):
                    while self._stream in (None, stream) or self.phase is not Phase.STREAMING:
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                raise failure from None
            return False
        return True

    # The life of a replica

    async def _run(self) -> None:
        pause_s = self._timing.retry_min_s
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._follow()
            except UpstreamFailure as failure:
                self._note_down(failure.text, failure.kind.value)
            except Refusal as refusal:  # our own disk
                self._note_down(refusal.text, "list")
            except Exception:  # noqa: BLE001 - the end of a task: a replica never gives up
                self._log.error("replica.crashed", exc_info=True)
                self._note_down("internal error; the log has it", "crashed")
            if asyncio.get_running_loop().time() - began > self._timing.retry_max_s:
                pause_s = self._timing.retry_min_s
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, self._timing.retry_max_s)

    def _note_down(self, text: str, kind: str) -> None:
        if self.phase is not Phase.DISCONNECTED or self._problem != text:
            self._log.warning("replica.disconnected", kind=kind, problem=text)
        self._problem = text
        self._set_phase(Phase.DISCONNECTED)

    def _set_phase(self, phase: Phase) -> None:
        self.phase = phase
        self._changed.set()

    async def _follow(self) -> None:
        masters = self._masters
        link = await masters.open()
        stream = _Stream(link, self._ledger, self._most_octets)
        self._stream = stream
        self._problem = ""
        self._set_phase(Phase.SYNCHRONISING)
        try:
            began = time.monotonic()
            try:
                how = await stream.begin()
            except UpstreamFailure:
                if masters.are_several:
                    masters.leave(link)
                raise
            self._current_at = time.time()
            self._set_phase(Phase.STREAMING)
            self._log.info(
                "replica.synchronised",
                how=how,
                master=link.target.name,
                mailboxes=self.mailboxes.count(),
                elapsed_ms=round(1000 * (time.monotonic() - began)),
            )
            await (
                self._watch_one(stream)
                if not masters.are_several
                else self._watch(masters, link, stream)
            )
        finally:
            self._stream = None
            if not link.is_lost:
                link.abort()
            await stream.end()

    async def _watch_one(self, stream: "_Stream") -> None:
        """Until the stream ends; a silent master is asked whether it is there (RFC 3656 §4.8)."""
        while not await stream.ends_within(self._timing.ping_interval_s):
            await self.ping(self.target.command_timeout_s)

    async def _watch(self, masters: Masters, link: Link, stream: "_Stream") -> None:
        """The same with several masters: one that says nothing to anybody, or is cut off from the others, is left; and a
        better one is gone back to."""
        every_s = min(self._timing.ping_interval_s, LOOK_S)
        while not await stream.ends_within(every_s):
            if await masters.is_better_back(link):
                return
            heard, noop = link.heard, stream.noop()
            began = time.monotonic()
            while not noop.done():
                await asyncio.wait([noop], timeout=masters.patience_s)
                is_silent = not noop.done() and link.heard == heard
                if is_silent and not await masters.is_there(link):
                    masters.leave(link)
                    raise link.failure(UpstreamKind.TIMEOUT, "the master is silent, to others too")
                if time.monotonic() - began > self.target.command_timeout_s:
                    masters.leave(link)
                    raise link.failure(UpstreamKind.TIMEOUT, "no answer to a NOOP")
                heard = link.heard
            try:
                noop.result()
            except UpstreamFailure:
                if link.is_lost or masters.is_worth_leaving(link):
                    masters.leave(link)
                    raise
            else:
                self._current_at = time.time()


class _Stream:
    """One connection's UPDATE or FOLLOW, and what it does to the list."""

    def __init__(self, link: Link, ledger: Ledger, most_octets: int) -> None:
        self._link = link
        self._most_octets = most_octets
        self._ledger = ledger
        self._mailboxes = ledger.mailboxes
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._begun: asyncio.Future[str] = loop.create_future()
        self._tag = b""
        self._dump: Dump | None = None  # while the whole list comes
        self._writer: Dump | None = None  # its thread, which may outlast that
        self._changes: list[Change] = []
        self._mark: str | None = None
        self._flush_scheduled = False
        self._given = 0  # pieces, to the ledger,
        self._applied = 0  # and the last of them that was done, in a commit that may have failed
        self._has_failed = False
        self._uncommitted = 0
        self._uncommitted_octets = 0
        self._skipped = 0
        self._noops: dict[bytes, asyncio.Future[None]] = {}
        self._next_noop: asyncio.Future[None] | None = None
        self._resuming_from: int | None = None
        self._is_late = False  # the master's list is ours, and our mark too old

    async def begin(self) -> str:
        """Ask for the stream; returns when the list is the master's: "resumed" or "whole list"."""
        link = self._link
        mark = link.banner.mark
        followed = self._mailboxes.note(FOLLOWED)
        if mark is None:
            self._ask(Verb.UPDATE)
        elif followed and self._mailboxes.synchronised:
            self._resuming_from = seq_of(followed.decode())
            self._ask(Verb.FOLLOW, followed)
        else:
            self._ask(Verb.FOLLOW)
        link.take_over(self._event, self._lost)
        return await self._begun

    def _ask(self, verb: Verb, *args: bytes) -> None:
        self._tag = self._link.send(verb, *args)
        self._link.session.streaming(self._tag)
        if not args:
            words = self._mailboxes, self._link, self._dump_failed, self._most_octets
            self._dump = self._writer = Dump(*words, is_late=self._is_late)

    async def ends_within(self, seconds: float) -> bool:
        """Whether the stream has ended in that time. Raises UpstreamFailure: why."""
        await asyncio.wait([self.ended], timeout=seconds)
        if not self.ended.done():
            return False
        self.ended.result()
        return True

    def entries_behind(self) -> int | None:
        """While resuming: how many changes the master had made beyond ours when it greeted us."""
        if self._resuming_from is None or self._link.banner.mark is None:
            return None
        return max(0, seq_of(self._link.banner.mark) - self._resuming_from)

    async def end(self) -> None:
        """The connection is over; whoever waits for it hears so, and no thread writes any more."""
        failure = self._link.failure(UpstreamKind.LOST, "the connection was lost")
        self._fail(failure)
        if self._writer is not None:
            await self._writer.cancel()

    def _fail(self, failure: UpstreamFailure) -> None:
        waiting: list[asyncio.Future[Any]] = [*self._noops.values(), self._begun, self.ended]
        if self._next_noop is not None:
            waiting.append(self._next_noop)
        for future in waiting:
            if not future.done():
                future.set_exception(failure)
                future.exception()
        self._noops.clear()

    def _lost(self, failure: UpstreamFailure) -> None:
        self._fail(failure)

    def _dump_failed(self, error: Exception) -> None:
        if isinstance(error, Refusal | Again):
            failure = self._link.failure(UpstreamKind.LOST, str(error))
        else:
            logger(role="replica").error("replica.crashed", exc_info=error)
            failure = self._link.failure(UpstreamKind.LOST, "the list could not be written")
        self._fail(failure)

    # What the master says

    def _event(self, event: Event) -> None:
        if isinstance(event, Rows):
            self._rows(event)
        elif isinstance(event, Response):
            self._response(event)

    def _rows(self, rows: Rows) -> None:
        if self._dump is not None:
            self._dump.add(pack_plain_rows(rows.names, rows.locations, rows.acls))
            return
        for name, raw_location, raw_acl in rows:
            self._put(EntryState.ACTIVE, name, raw_location, raw_acl)

    def _response(self, response: Response) -> None:
        match response.kind:
            case Kind.MAILBOX:
                name, raw_location, raw_acl = response.args[:3]
                self._row(EntryState.ACTIVE, name, raw_location, raw_acl)
            case Kind.RESERVE:
                name, raw_location = response.args[:2]
                self._row(EntryState.RESERVED, name, raw_location, b"")
            case Kind.DELETE:
                name = response.args[0]
                if is_listable(name):
                    self._changes.append(RemoveEntry(MailboxName(name)))
                    self._schedule()
            case Kind.POSITION:
                self._position(response.args[0].decode("ascii", "replace"))
            case Kind.LACKING:
                known = self._mailboxes.note(LACKING)
                if (noted := told_lacking(known, *response.args[:2])) is not None:
                    self._changes.append(noted)
                    self._schedule()
            case Kind.BYE:
                self._fail(self._link.failure(UpstreamKind.LOST, f"BYE: {response.text}"))
            case _ if is_answer(response, self._tag):
                self._answered(response)
            case Kind.OK if response.tag in self._noops:
                self._noop_answered(self._noops.pop(response.tag))
            case Kind.NO if response.tag in self._noops:  # it cannot reach the others' list
                self._noop_refused(self._noops.pop(response.tag), response.text)
            case _:
                pass

    def _row(self, state: EntryState, name: bytes, raw_location: bytes, raw_acl: bytes) -> None:
        if self._dump is not None:
            try:
                check_octets(MailboxName(name), raw_location, raw_acl)
            except Refusal as refusal:
                self._skip(name, refusal)
                return
            row = pack_row(name, state, raw_location, raw_acl)
            self._dump.add(Block([collation_key(name)], [row]))
        else:
            self._put(state, name, raw_location, raw_acl)

    def _put(self, state: EntryState, name: bytes, raw_location: bytes, raw_acl: bytes) -> None:
        entry = MailboxEntry(MailboxName(name), state, raw_location, raw_acl)
        try:
            check_row(entry)
        except Refusal as refusal:
            self._skip(name, refusal)
            return
        self._changes.append(PutEntry(entry))
        self._schedule()

    def _skip(self, name: bytes, refusal: Refusal) -> None:
        """What our list cannot hold, a real Cyrus may. Who has many such rows is told of some."""
        self._skipped += 1
        if self._skipped <= MOST_SKIPPED_TOLD:
            logger(role="replica").warning(
                "replica.skipped", mailbox=display(name), problem=refusal.text
            )

    def _position(self, mark: str) -> None:
        if mark:
            self._mark = mark
            self._schedule()
        elif self._dump is not None:  # the whole list has come, changes follow
            self._finish_dump(None)

    def _finish_dump(self, then: Callable[[], None] | None) -> None:
        dump, self._dump = self._dump, None
        assert dump is not None
        self._link.pause()

        def finished() -> None:
            if then is not None:
                then()
            if not self._link.is_lost:
                self._link.resume()

        dump.finish(finished)

    def _answered(self, response: Response) -> None:
        """OK: the list is complete, live changes follow. NO: our mark is not in the master's history, or not yet."""
        if response.kind is not Kind.OK:
            if response.text.startswith(UNAVAILABLE):
                self._fail(self._link.failure(UpstreamKind.UNAVAILABLE, f"NO: {response.text}"))
                return
            if self._resuming_from is None:
                self._fail(self._link.failure(UpstreamKind.PROTOCOL, f"NO: {response.text}"))
                return
            self._resuming_from, self._is_late = None, response.text.startswith(FORGOTTEN)
            self._link.session.authenticated()
            self._ask(Verb.FOLLOW)
            return
        how = "whole list" if self._resuming_from is None else "resumed"
        if self._dump is not None:  # a master without FOLLOW
            self._finish_dump(lambda: self._complete(how))
        else:
            self._complete(how)

    def _complete(self, how: str) -> None:
        """Commit what has come, and with it that the list is complete."""
        self._changes.append(mark_synchronised())
        self._commit(lambda: None if self._begun.done() else self._begun.set_result(how))

    # Into the list

    def _schedule(self) -> None:
        """Commit at the end of this turn of the loop: one commit for all that one read brought."""
        if not self._flush_scheduled and (self._dump is None):
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._changes or self._mark is not None:
            self._commit(None)

    def _commit(self, then: Callable[[], None] | None) -> None:
        changes, self._changes = self._changes, []
        if self._mark is not None:
            changes.append(PutNote(FOLLOWED, self._mark.encode()))
            self._mark = None
        if self._mailboxes.used_bytes() > self._most_octets:
            text = "The list has become longer than mupdate.max_list_bytes allows"
            self._dump_failed(Refusal(Code.LIMIT, text))
            return
        *parts, last = parts_of(changes)
        for part in parts:
            self._commit_part(part, None)
        self._commit_part(last, then)

    def _commit_part(self, part: Part, then: Callable[[], None] | None) -> None:
        def work_of(changes: Sequence[Change]) -> Work:
            self._given += 1
            number = self._given

            def work(transaction: ListTransaction) -> None:
                if self._has_failed or number > self._applied + 1:
                    raise Refusal(Code.UNAVAILABLE, "A change before this one was not written")
                for change in changes:
                    transaction.apply(change)
                self._applied = number

            return work

        def done(outcomes: Sequence[object]) -> None:
            self._uncommitted -= part.changes
            self._uncommitted_octets -= part.octets
            failed = next((outcome for outcome in outcomes if isinstance(outcome, Exception)), None)
            if failed is not None:
                self._has_failed = True
                self._dump_failed(failed)
            elif then is not None:
                then()
            is_low = (
                self._uncommitted < MAX_UNCOMMITTED
                and self._uncommitted_octets < MAX_UNCOMMITTED_OCTETS
            )
            if is_low and not self.ended.done():
                self._link.resume()

        self._uncommitted += part.changes
        self._uncommitted_octets += part.octets
        if (
            self._uncommitted > 2 * MAX_UNCOMMITTED
            or self._uncommitted_octets > 2 * MAX_UNCOMMITTED_OCTETS
        ):
            self._link.pause()
        self._ledger.propose(list(map(work_of, part.pieces)), done, part.cost)

    # NOOP

    def noop(self) -> "asyncio.Future[None]":
        """A NOOP on the channel, shared by all who ask before it is sent; done when what came before it is durable."""
        if self._next_noop is None:
            self._next_noop = asyncio.get_running_loop().create_future()
            if len(self._noops) < PINGS_IN_FLIGHT:
                asyncio.get_running_loop().call_soon(self._send_noop)
        return self._next_noop

    def _send_noop(self) -> None:
        future, self._next_noop = self._next_noop, None
        if future is None or future.done():
            return
        if self._link.is_lost or self.ended.done():
            future.set_exception(self._link.failure(UpstreamKind.LOST, "the connection was lost"))
            future.exception()
            return
        self._noops[self._link.send(Verb.NOOP)] = future

    def _noop_answered(self, future: "asyncio.Future[None]") -> None:
        if self._next_noop is not None:
            self._send_noop()

        def done() -> None:
            if not future.done():
                future.set_result(None)

        if self._changes or self._mark is not None or self._uncommitted:
            self._commit(done)
        else:
            done()

    def _noop_refused(self, future: "asyncio.Future[None]", text: str) -> None:
        if self._next_noop is not None:
            self._send_noop()
        if not future.done():
            future.set_exception(self._link.failure(UpstreamKind.UNAVAILABLE, f"NO: {text}"))
            future.exception()
