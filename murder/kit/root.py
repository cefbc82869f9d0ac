"""One open root: a read connection for the event loop, a write connection for its writer, files beside them.

Writers of different roots run in parallel in a small pool of threads (fsync and SQLite let go of the interpreter). All
changes that wait for one root when its turn comes share one commit; each is undone alone (by a savepoint) if refused.
"""

import asyncio
import contextlib
import os
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Self, TypeVar

from murder.api.disk import disk_error
from murder.api.timing import STEP, Step, committed
from murder.durable import sync_folder
from murder.errors import Refusal
from murder.kit.schema import connect, open_reader
from murder.model.name import (
    MailboxName,
    before_deletion,
    inbox_of,
    is_deleted,
    owner_of,
    split_domain,
)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

MAX_KEPT: Final = 3
MAX_HINTS: Final = 1000  # summaries that may wait for a commit; beyond it they are dropped


@dataclass(slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    future: "asyncio.Future[Any] | None"
    settle: Callable[[BaseException | None], None] | None = None
    durable: bool = True
    step: Step | None = None  # who traces it
    outcome: Any = None
    error: BaseException | None = None


class Root:
    """See the module. `folder` exists. `key` is what its store finds it by."""

    def __init__(
        self, folder: Path, pool: ThreadPoolExecutor, file: str = "mail.db", key: str = ""
    ) -> None:
        self.folder = folder
        self.key = key or folder.name
        self._pool = pool
        self.file = folder / file
        try:
            self._writer = connect(self.file, for_writing=True)
            self.reader = open_reader(self.file)
        except (sqlite3.Error, OSError) as error:
            raise disk_error(error, self.file) from error
        self._jobs: list[_Job] = []
        self._hints = 0
        self.prune_at = 0.0  # of the monotonic clock: when old marks of deliveries go (`once`)
        self.kept_uids: dict[int, tuple[int, array[int]]] = {}  # of large mailboxes, as of a modseq
        self._flushes = True  # as `connect` has set it
        self._running = False
        self._lock = threading.Lock()
        self.users = 0  # open mailboxes: a root in use is not closed
        self.is_closed = False

    @classmethod
    def in_folder(cls, folder: Path, pool: ThreadPoolExecutor) -> Self:
        """As the constructor; the folder is made where it is not. Raises what `disk_error` makes of it."""
        try:
            make_folder(folder)
        except OSError as error:
            raise disk_error(error, folder) from error
        return cls(folder, pool)

    @property
    def is_idle(self) -> bool:
        """Whether it may be closed: nobody uses it, nothing waits to be written."""
        return not self.users and not self._running and not self._jobs

    @property
    def journal_octets(self) -> int:
        """Of what is committed and not yet in the database itself, or was (SQLite's WAL keeps its size)."""
        try:
            return os.stat(f"{self.file}-wal").st_size
        except OSError:
            return 0

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Not closed meanwhile."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    def close(self) -> None:
        self.is_closed = True
        self.reader.close()
        self._writer.close()

    def file_of(self, name: str) -> Path:
        """Where a message's file stands: spread over 256 folders."""
        return self.folder / "files" / name[:2] / name

    def keep_uids(self, box_id: int, modseq: int, uids: "array[int]") -> None:
        """For the next session; of few mailboxes. `uids` may know of what came after `modseq`."""
        if box_id not in self.kept_uids and len(self.kept_uids) >= MAX_KEPT:
            self.kept_uids.clear()
        self.kept_uids[box_id] = (modseq, uids)

    async def write(
        self,
        work: Work[T],
        settle: Callable[[BaseException | None], None] | None = None,
        *,
        durable: bool = True,
    ) -> T:
        """Do it in a transaction that is durable on return; raises what `work` raises, which is then undone. What need not
        be `durable` may be undone by a power cut, as a whole, but not by a crash.

        `settle` is called with the error, or None, once it is decided: also where the caller has been cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._submit(_Job(work, future, settle, durable, STEP.get()), loop)
        # a caller that is cancelled does not undo a commit: `_tell` passes over it
        return await future

    def write_now(self, work: Work[object]) -> None:
        """In a durable transaction, waiting for it: of a root that nobody else uses yet. Raises Refusal."""
        self._flushes = True
        job = _Job(work, None)
        self._writer.execute("PRAGMA synchronous=FULL")
        self._commit([job])
        if job.error is not None:
            raise job.error

    def hint(self, work: Work[object], *, durable: bool = False) -> None:
        """Do it with some later commit, or not at all. Files are removed behind a `durable` one."""
        if self._hints < MAX_HINTS:
            self._hints += 1
            self._submit(_Job(work, None, durable=durable), asyncio.get_running_loop())

    def _submit(self, job: _Job, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._jobs.append(job)
            start = not self._running
            self._running = True
        if start:
            self._pool.submit(self._drain, loop)

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                jobs, self._jobs = self._jobs, []
                if not jobs:
                    self._running = False
                    return
            began = perf_counter()
            flushed = self._commit(jobs)
            took_s = perf_counter() - began
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(self._tell, jobs, took_s, flushed)

    def _commit(self, jobs: list[_Job]) -> bool:
        """All jobs in one transaction, flushed where one of them has to be durable: that flush takes along what earlier
        transactions left unflushed in the same log. Whether it was."""
        writer = self._writer
        flushed = any(job.durable for job in jobs)
        try:
            if flushed != self._flushes:
                writer.execute(f"PRAGMA synchronous={'FULL' if flushed else 'NORMAL'}")
                self._flushes = flushed
            writer.execute("BEGIN IMMEDIATE")
            self._after_begin()
            for job in jobs:
                self._run(job)
            self._before_commit()
            writer.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the end of a thread's task
            with contextlib.suppress(sqlite3.Error):
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
            is_disk = isinstance(error, sqlite3.Error | OSError)
            failure = disk_error(error, self.file) if is_disk else error
            for job in jobs:
                job.error = job.error or failure
            return flushed
        else:
            if flushed:
                self._sweep()
        finally:
            self._after_end()
        return flushed

    def _run(self, job: _Job) -> None:
        writer = self._writer
        writer.execute("SAVEPOINT job")
        undo = self._job_begins()
        try:
            job.outcome = job.work(writer)
        except (Refusal, OSError) as error:  # this job's own trouble is not the others'
            job.error = disk_error(error, self.file)
            writer.execute("ROLLBACK TO job")
            undo()
        writer.execute("RELEASE job")

    def _after_begin(self) -> None:
        """What must be done before any job of a transaction."""

    def _job_begins(self) -> Callable[[], None]:
        """What is to be forgotten with its rows, where one job of a transaction is undone."""
        return _nothing

    def _before_commit(self) -> None:
        """What must be durable before the rows that name it."""

    def _after_end(self) -> None:
        """When a transaction is over, however it has ended."""

    def _sweep(self) -> None:
        """Remove files whose last message is gone, now that this is durable."""
        try:
            files = [name for (name,) in self._writer.execute("SELECT file FROM garbage")]
            for name in files:
                self.file_of(name).unlink(missing_ok=True)
            if files:
                self._writer.execute("DELETE FROM garbage")
        except (sqlite3.Error, OSError):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")  # the next commit sweeps

    def _tell(self, jobs: list[_Job], took_s: float, flushed: bool) -> None:
        committed(took_s, flushed)
        for job in jobs:
            if job.step is not None:
                job.step("store commit", took_s)
            if job.settle is not None:
                job.settle(job.error)
            if job.future is None:
                self._hints -= 1
            elif not job.future.done():
                if job.error is not None:
                    job.future.set_exception(job.error)
                else:
                    job.future.set_result(job.outcome)


def _nothing() -> None:
    pass


def make_folder(folder: Path) -> None:
    """A folder for its owner only, durable with all that lead to it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


USERS: Final = b"user."


def root_of(name: MailboxName) -> bytes:
    """The root a mailbox belongs to: its owner's INBOX, or the first part of a shared name. What was a user's before it
    was deleted stays with them: deleting is then one row."""
    if name.startswith(USERS) and name.find(b"@") < 0 and name.find(b"!") < 0:  # mostly
        user = name.split(b".", 2)[1]
        if user:
            return USERS + user
    if is_deleted(name):
        before = before_deletion(name)
        if before is not None and owner_of(before[0]) is not None:
            name = before[0]
    owner = owner_of(name)
    if owner is not None:
        return inbox_of(owner)
    domain, rest = split_domain(name)
    first = rest.split(b".", 1)[0]
    return domain + b"!" + first if domain else first
