"""A mailbox list that goes from one engine to another while its master serves, and what a crash on the way leaves.

Which engine keeps a list stands in its own file: `embedded`, the name of another, or `FROM>TO TOKEN` while it goes over,
which is from just before the log is told until it has answered. Who finds that at a start, or has had no answer, changes
nothing before the log has said where the list is; an attempt that was given up is never done later. Rows are copied, and
compared one by one, while changes go on; only the last ones are copied while they wait, for seconds at most.

Numbers, marks and epoch stay, so that replicas go on where they are.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from murder.api.list_log import ListLog, Member, TakesLists
from murder.errors import Code, Refusal, UpstreamFailure
from murder.log import logger
from murder.model.name import display, name_of_key
from murder.roles.mupdate.commits.engine import Embedded, Engine, Ordered
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.mboxlist import Committed, MailboxList, mark_synchronised
from murder.roles.mupdate.database.transaction import ListTransaction

T = TypeVar("T")

EMBEDDED: Final = "embedded"
# changes wait so long at most for the last rows, and as long for the log's answer
STOP_S: Final = 5.0
FEW: Final = 200  # changes that are left for the stop
ROUNDS: Final = 20  # to come so near; a master with more changes than the log takes is not moved
MOST_DOUBTS: Final = 100_000  # rows that have changed while they were compared
END: Final = (b"", b"")


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a move is; `of` is about how much there is."""

    what: str
    done: int = 0
    of: int = 0


@dataclass(frozen=True, slots=True)
class Moved:
    """A move that is done: rows compared one by one, and how long changes have waited."""

    engine: str
    rows: int
    seq: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """A move of which it is not known whether it is done."""

    engine: str  # whose log it is
    token: str


class Movable:
    """The engine of a list that may go to another one. See the module; as `engine.Engine`."""

    def __init__(
        self, mailboxes: MailboxList, configured: str, make_log: Callable[[str], ListLog]
    ) -> None:
        """`configured`: what keeps a list that does not say so itself. Raises what `make_log` does."""
        self.mailboxes = mailboxes
        self._make_log = make_log
        self._unsettled: _Unsettled | None = None
        self._records: ListLog | None = None
        self._log = logger(role="mupdate")
        self._on_news: Callable[[], None] | None = None
        self._is_moving = False
        self._trouble = ""
        self._commits: list[Committed] = []  # of others, taken up by a move, and not told yet
        way, _, token = (mailboxes.kept_by or configured).partition(" ")
        kind, _, to = way.partition(">")
        if to:
            self._unsettled = _Unsettled(to if kind == EMBEDDED else kind, token)
        self.kind = kind
        if kind != EMBEDDED or to:
            self._records = make_log(kind if kind != EMBEDDED else to)
        self._inner: Engine = Embedded(mailboxes)
        if kind != EMBEDDED and self._records is not None:
            self._inner = Ordered(mailboxes, self._records)
        self._note()

    # As an engine

    def _note(self) -> None:
        """Whether it is shared (asked for each change): also while it is not settled whether the list has gone to a log:
        nothing is acknowledged by one alone then."""
        self.is_shared = self._unsettled is not None or self._inner.is_shared

    @property
    def is_ready(self) -> bool:
        """Of the engine that keeps it now."""
        return self._inner.is_ready

    @property
    def most_changes(self) -> int:
        return self._inner.most_changes

    @property
    def is_prompt(self) -> bool:
        """Not before it is settled which engine keeps it."""
        return self._unsettled is None and self._inner.is_prompt

    @property
    def problem(self) -> str:
        """What keeps it from being settled, before what its engine says."""
        return self._trouble or self._inner.problem

    def members(self) -> Sequence[Member]:
        return self._records.members() if self._records is not None else ()

    def write(
        self, work: Callable[[ListTransaction], T], *, is_large: bool = False
    ) -> tuple[T, Sequence[Committed]]:
        outcome, committed = self._settled().write(work, is_large=is_large)
        return outcome, [*self._untold(), *committed]

    def take_up(self) -> Sequence[Committed]:
        """What was committed while it was settled comes first."""
        committed = self._settled().take_up()
        return [*self._untold(), *committed]

    def told(self) -> Sequence[Committed]:
        """As `take_up`."""
        return [*self._untold(), *self._inner.told()]

    def _untold(self) -> Sequence[Committed]:
        commits, self._commits = self._commits, []
        return commits

    def listen(self, on_news: Callable[[], None]) -> None:
        """To the log that there is now, and to the one that it moves to."""
        self._on_news = on_news
        if self._records is not None:
            self._records.listen(on_news)

    def close(self) -> None:
        if self._records is not None:
            self._records.close()

    def joined(self) -> None:
        """The list is this log's, and that is written down: it is not taken for a lone master's any more."""
        if self.kind != EMBEDDED and self._unsettled is None and not self.mailboxes.kept_by:
            self.mailboxes.keep_by(self.kind)

    def _settled(self) -> Engine:
        """In the writer thread. Raises UpstreamFailure, Refusal while the log does not say."""
        move, log = self._unsettled, self._records
        if move is None:
            return self._inner
        assert log is not None
        try:
            is_there = _taking(log).settle(move.token)
        except (UpstreamFailure, Refusal) as error:
            self._trouble = error.text
            raise
        self._become(move.engine if is_there else EMBEDDED)
        self._log.info("engine.settled", engine=self.kind, seq=self.mailboxes.last_seq())
        return self._inner

    def _use(self, log: ListLog) -> None:
        self._records = log
        if self._on_news is not None:
            log.listen(self._on_news)

    def _become(self, kind: str) -> None:
        """In the writer thread."""
        log = self._records
        assert log is not None
        self.mailboxes.keep_by(kind)
        self._unsettled, self._trouble, self.kind = None, "", kind
        if kind == EMBEDDED:
            self._inner, self._records = Embedded(self.mailboxes), None
        elif not self._inner.is_shared:
            self._inner = Ordered(self.mailboxes, log)
        self._note()
        if kind == EMBEDDED:
            try:  # changes do not wait for it
                threading.Thread(target=_close, args=(log,), daemon=True).start()
            except RuntimeError:  # no thread is left: they do, rather than fail
                _close(log)

    # Going over

    async def move(self, to: str, ledger: Ledger) -> AsyncGenerator[Stage | Moved, None]:
        """Bring the list to another engine; the last thing said is that it is there. Raises Refusal: nothing has changed;
        UpstreamFailure: nothing, or it is not known, and settled as soon as the log answers. Who stops listening gives it
        up, where it has not come to its last step."""
        if self._is_moving:
            raise Refusal(Code.IN_USE, "The list is being moved to another engine")
        if self._unsettled is not None:
            raise Refusal(Code.IN_USE, f"It is not known yet where the list is: {self._trouble}")
        if to == self.kind:
            raise Refusal(Code.ALREADY_EXISTS, f"The list is kept by {to} already")
        if to != EMBEDDED and self.kind != EMBEDDED:
            raise Refusal(Code.CANNOT, "From one log to another it goes by way of embedded")
        self._is_moving = True
        stages: asyncio.Queue[Stage] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(stage: Stage) -> None:
            loop.call_soon_threadsafe(stages.put_nowait, stage)

        log = self._make_log(to if to != EMBEDDED else self.kind)
        steps = (
            self._leave(log, ledger, tell) if to == EMBEDDED else self._enter(to, log, ledger, tell)
        )
        moving = asyncio.ensure_future(steps)
        try:
            while not moving.done():
                hearing = asyncio.ensure_future(stages.get())
                await asyncio.wait([moving, hearing], return_when=asyncio.FIRST_COMPLETED)
                if hearing.done():
                    yield hearing.result()
                else:
                    hearing.cancel()
            yield moving.result()
        finally:
            moving.cancel()
            await asyncio.wait([moving])
            await asyncio.shield(ledger.between_commits(lambda: None))  # its last step has ended
            if self._records is not log:
                await asyncio.to_thread(log.close)
            if self.is_shared:
                ledger.listen()
            self._is_moving = False

    async def _enter(
        self, to: str, log: ListLog, ledger: Ledger, tell: Callable[[Stage], None]
    ) -> Moved:
        token = secrets.token_hex(8)
        try:
            await asyncio.to_thread(_taking(log).prepare, token)
            seq = await asyncio.to_thread(self._copy, log, token, tell)
            rows, doubtful = await asyncio.to_thread(self._compare, log, tell)
            await asyncio.to_thread(self._check_doubts, doubtful, seq)
            seq = await asyncio.to_thread(
                self._copy_changes, log, token, seq, time.monotonic() + 60
            )
            tell(Stage("changes wait"))
            waited_s = await ledger.between_commits(lambda: self._take_over(to, log, token, seq))
        except BaseException:
            if self.kind == EMBEDDED and self._unsettled is None:
                await asyncio.to_thread(_give_up, log, token)
            raise
        return Moved(to, rows, self.mailboxes.last_seq(), waited_s)

    def _copy(self, log: ListLog, token: str, tell: Callable[[Stage], None]) -> int:
        """All rows; the number behind which changes are still to be copied."""
        began_at, of = self.mailboxes.last_seq(), self.mailboxes.count()
        done = 0
        last: bytes | None = b""
        while last is not None:
            rows, last = self.mailboxes.rows(last)
            _taking(log).put(token, rows)
            done += len(rows)
            tell(Stage("copied", done, of))
        for _ in range(ROUNDS):
            seq = self._copy_changes(log, token, began_at, time.monotonic() + 60)
            if seq - began_at < FEW:
                return seq
            began_at = seq
        raise Refusal(
            Code.LIMIT, "More is changed than the log takes: try it when there is less to do"
        )

    def _copy_changes(self, log: ListLog, token: str, seq: int, until: float) -> int:
        """What has changed since; where that leads to."""
        while True:
            following = self.mailboxes.follow(seq)
            if following.is_lost:
                raise Refusal(
                    Code.LIMIT, "The list has forgotten what was deleted meanwhile: begin again"
                )
            _taking(log).put(token, [(key, row) for _, key, row in following.changes])
            seq = following.seq
            if following.mark is not None:
                return seq
            if time.monotonic() > until:
                raise Refusal(Code.LIMIT, "The log takes too long: nothing was changed, try again")

    def _compare(self, log: ListLog, tell: Callable[[Stage], None]) -> tuple[int, set[bytes]]:
        """Row by row what the log has and what is here: how many rows, and the keys at which they differ, which may have
        been changed meanwhile."""
        mine = _rows_of(self.mailboxes)
        here = next(mine, END)
        doubtful: set[bytes] = set()
        done, of = 0, self.mailboxes.count()
        for page in _taking(log).stored():
            for key, row in page:
                while here[0] < key and here != END:
                    doubtful.add(here[0])
                    here = next(mine, END)
                if here != (key, row):
                    doubtful.add(key)
                if here[0] == key:
                    here = next(mine, END)
            done += len(page)
            if len(doubtful) > MOST_DOUBTS:
                break
            tell(Stage("compared", done, of))
        while here != END and len(doubtful) <= MOST_DOUBTS:
            doubtful.add(here[0])
            here = next(mine, END)
        return done, doubtful

    def _check_doubts(self, doubtful: set[bytes], seq: int) -> None:
        """Raise Refusal where rows differ that have not changed since."""
        if len(doubtful) > MOST_DOUBTS:
            raise Refusal(
                Code.CANNOT, "The log's rows are not the list's: nothing was changed, try again"
            )
        at: int | None = seq
        while doubtful and at is not None:
            following = self.mailboxes.follow(at)
            doubtful -= {key for _, key, _ in following.changes}
            at = following.seq if following.mark is None else None
        if doubtful:
            first_name = display(name_of_key(min(doubtful)))
            text = f"The log and the list differ in {len(doubtful)} rows ({first_name} is one): nothing was changed"
            raise Refusal(Code.CANNOT, text)

    def _take_over(self, to: str, log: ListLog, token: str, seq: int) -> float:
        """In the writer thread, while changes wait; for how long."""
        began = time.monotonic()
        mailboxes = self.mailboxes
        self._copy_changes(log, token, seq, began + STOP_S)
        if not mailboxes.synchronised:
            mailboxes.commit([mark_synchronised()])
        mailboxes.keep_by(f"{EMBEDDED}>{to} {token}")
        self._unsettled = _Unsettled(to, token)
        self._note()
        self._use(log)
        try:
            _taking(log).take_over(token, mailboxes.epoch, mailboxes.position(), mailboxes.notes())
        except Refusal:
            self._settled()
            raise
        self._become(to)
        self._commits += self._inner.take_up()
        return time.monotonic() - began

    async def _leave(self, log: ListLog, ledger: Ledger, tell: Callable[[Stage], None]) -> Moved:
        await ledger.catch_up()
        seq = self.mailboxes.last_seq()
        rows, doubtful = await asyncio.to_thread(self._compare, log, tell)
        await ledger.catch_up()
        await asyncio.to_thread(self._check_doubts, doubtful, seq)
        tell(Stage("changes wait"))
        waited_s = await ledger.between_commits(self._take_home)
        await ledger.submit(lambda _: None)  # tells what others have changed last
        return Moved(EMBEDDED, rows, self.mailboxes.last_seq(), waited_s)

    def _take_home(self) -> float:
        """As `_take_over`. Changes of other masters may still come in between; then it is tried again."""
        began = time.monotonic()
        log, mailboxes = self._records, self.mailboxes
        assert log is not None
        token = secrets.token_hex(8)
        while True:
            self._commits += self._inner.take_up()
            position = mailboxes.position()
            mailboxes.keep_by(f"{self.kind}>{EMBEDDED} {token}")
            self._unsettled = _Unsettled(self.kind, token)
            self._note()
            if _taking(log).hand_over(token, mailboxes.epoch, position):
                self._become(EMBEDDED)
                return time.monotonic() - began
            self._settled()
            if time.monotonic() > began + STOP_S:
                text = "Other masters change too much: stop them first, then try again"
                raise Refusal(Code.LIMIT, text)


def _taking(log: ListLog) -> TakesLists:
    if not isinstance(log, TakesLists):
        raise Refusal(Code.CANNOT, "This engine's plugin brings no lists over")
    return log


def _close(log: ListLog) -> None:
    """A log that keeps the list no more: what its plugin raises concerns nobody's change, and is said."""
    try:
        log.close()
    except Exception as error:  # noqa: BLE001 - of a plugin, whatever it is
        logger(role="mupdate").error("plugin.failed", hook="close", exc_info=error)


def _give_up(log: ListLog, token: str) -> None:
    """Best effort: whoever begins another move does it, too."""
    try:
        _taking(log).settle(token)
    except (Refusal, UpstreamFailure):
        pass


def _rows_of(mailboxes: MailboxList) -> Iterator[tuple[bytes, bytes]]:
    last: bytes | None = b""
    while last is not None:
        rows, last = mailboxes.rows(last)
        yield from rows
