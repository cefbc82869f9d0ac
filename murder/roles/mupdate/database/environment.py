"""The LMDB environment below a mailbox list: opening, growing, sharing. Knows nothing of rows.

LMDB has three rules that this file keeps, so that nobody else must: an environment is opened once in a process;
its map is resized only while this process has no transaction open; a write transaction ends in the thread that
began it. An Environment does not survive `fork`: open it in the child.
"""

import errno
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import lmdb

from murder.errors import Code, Misuse, Refusal
from murder.log import logger
from murder.roles.mupdate.database.ahead import View
from murder.roles.mupdate.database.journal import Journal
from murder.roles.mupdate.database.resident import Resident
from murder.roles.mupdate.database.settling import Settling
from murder.roles.mupdate.database.snapshot import Snapshot, Table, Viewing, WriteTransaction

DATA: Final = "data.mdb"  # LMDB's own name for the file
FORMAT: Final = b"1"  # of the file; a newer one is refused
# of a file that is not all there is: a version that knows no journal refuses it, until an orderly end has settled all
AHEAD_FORMAT: Final = b"2"
STAMP_S: Final = 0.05
SAID_S: Final = 60.0  # so often the log has one reason why nothing can be written
MAP_BYTES: Final = 4 << 30  # address space, not disk or memory; a million rows take about 0.4 GiB
RESERVE_BYTES: Final = 32 << 20  # a commit's pages (`waiting.MAX_COMMIT_COST`), and as much again
MAX_READERS: Final = 1024  # reader slots of all processes; each thread of each worker may take one
# Few tables, because each one that a commit touches costs it two or three scattered pages.
TABLES: Final = (
    b"entries",  # collation key → row
    b"index",  # `L` digest of an identifier, or `S` digest of a server, then a collation key → nothing
    b"log",  # sequence number and kind → see `transaction`
    b"intents",  # id → octets
    b"notes",  # key → octets
    b"conflicts",  # name → JSON: who wanted what is another's
    b"meta",  # format, epoch, floor, journal
)
COUNTED: Final = (b"entries", b"notes", b"conflicts")  # whose rows are counted
CHAPTER: Final = b"journal"  # the last chapter of the journal that is in here

T = TypeVar("T")
# LMDB tells an error of the system by its text alone
TROUBLES: Final = tuple(
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE)
)


class Environment:
    """One open LMDB environment, shared by all threads of the process. Make it with `open_environment`."""

    def __init__(
        self, path: Path, *, read_only: bool, map_bytes: int = MAP_BYTES, journal_bytes: int = 0
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.may_grow = True  # beyond the map that it was opened with
        self.only_makes_room = False  # there is a little more than that, for who takes things away
        self._map_bytes = map_bytes
        self.users = 0
        self._stamp, self._stamp_ends = 0, 0.0
        self._problem, self._problem_said_at = "", 0.0  # why it was not written the last time
        self._is_said = False  # and not yet that it is again
        self._again_said_at = -math.inf
        self._reading = threading.Lock()  # no read transaction is open without it
        self._lmdb = _open_lmdb(path, read_only=read_only, map_bytes=map_bytes)
        self.resident = Resident(path / DATA)
        self._lmdb.reader_check()  # frees the slots of processes that died
        self.tables = {name: self._open_table(name) for name in TABLES}
        self.layered_tables = tuple(self.tables.values())
        self.counted_tables = frozenset(self.tables[name] for name in COUNTED)
        journal = None
        try:
            journal = _open_journal(path, journal_bytes, read_only=read_only)
            self._settling = Settling(self, journal, self._reading, read_only=read_only)
        except BaseException:
            if journal is not None:
                journal.close()
            self._lmdb.close()
            raise

    def _open_table(self, name: bytes) -> Table:
        return _open_table(self._lmdb, name, create=not self.read_only)

    def read(self, work: Callable[[Snapshot], T]) -> T:
        """Run `work` on a snapshot. It must be short and must not call back into the list."""
        with self._reading:
            layers = self._settling.layers
            with self._begin_read() as transaction:
                snapshot = cast(Snapshot, transaction)
                if layers:
                    stamp = transaction.id()
                    layers = tuple(layer for layer in layers if layer.stands_on >= stamp)
                return work(View(snapshot, layers) if layers else snapshot)

    def view(self, work: Callable[[Viewing], T]) -> T:
        """As `read`, of octets that are not copied until `work` asks for some of them: what it returns keeps no view."""
        if self._settling.layers:
            return self.read(work)
        with self._reading, self._begin_view() as transaction:
            return work(cast(Viewing, transaction))

    def stamp(self) -> int:
        """Another one after each commit: at once in this process, `STAMP_S` later at most in others."""
        now = time.monotonic()
        if now >= self._stamp_ends:
            self._stamp, self._stamp_ends = self.stamp_below(), now + STAMP_S
        return self._stamp + self._settling.published

    def stamp_now(self) -> int:
        """As `stamp`, without the delay: another one as soon as anything else is read here than before."""
        return self.stamp_below() + self._settling.published

    def get(self, key: bytes, table: Table) -> bytes | None:
        """One look-up on a snapshot of its own: `read` for the commonest case."""
        for layer in self._settling.layers:
            changed = layer.tables[table]
            if key in changed:
                return changed[key]
        with self._reading:
            transaction: Any
            try:
                transaction = self._lmdb.begin()
            except lmdb.MapResizedError:
                transaction = self._begin_read()
            with transaction:
                value: bytes | None = transaction.get(key, db=table)
                return value

    def _begin_read(self) -> "lmdb.Transaction[bytes]":
        return self._begin(self._lmdb.begin)

    def _begin_view(self) -> "lmdb.Transaction[memoryview]":
        return self._begin(lambda: self._lmdb.begin(buffers=True))

    def _begin(self, begin: Callable[[], T]) -> T:
        try:
            return begin()
        except lmdb.MapResizedError:  # another process has grown the map
            self._lmdb.set_mapsize(0)
            return begin()

    @property
    def ahead_bytes(self) -> int:
        """Of the journal, that are not in LMDB yet."""
        return self._settling.ahead_octets

    @property
    def is_prompt(self) -> bool:
        """Whether a small change `ahead` waits for nothing but its own flush of the disk."""
        return self._settling.is_prompt

    def write(
        self, work: Callable[[WriteTransaction], T], *, ahead: bool = False, flush: bool = True
    ) -> T:
        """Run `work` in a write transaction; when this returns, what it did is on disk.

        `work` may run more than once (the map was full, and has been grown): it must keep nothing of a run that
        failed. Blocks for other writers and for the disk: call it from a thread. Raises Refusal(UNAVAILABLE)
        where the disk is full, or takes nothing; Refusal(LIMIT) where it would grow, and may not. Where it may not, `work`
        runs again with some room for what takes away (that needs pages, too); then `only_makes_room` is set, and `work`
        raises `full()` where it adds. `ahead`: it puts and removes single keys, and may be in the journal before LMDB; and
        where that is not flushed (`flush`), a power cut may take the last of it, in order.
        """
        if self.read_only:
            raise Misuse(f"{self.path} was opened for reading only")
        if ahead and (done := self._settling.write(work, flush=flush)) is not None:
            return done[0]
        return self._settling.write_directly(work)

    # For `settling.Below`

    def stamp_below(self) -> int:
        return int(self._lmdb.info()["last_txnid"])

    def free_octets(self) -> int:
        return int(self._lmdb.info()["map_size"]) - self.used_bytes()

    def read_below(self, work: Callable[[Snapshot, int], T]) -> T:
        with self._reading, self._begin_read() as transaction:
            return work(cast(Snapshot, transaction), transaction.id())

    def chapter_below(self, transaction: Snapshot) -> bytes:
        return transaction.get(CHAPTER, db=self.tables[b"meta"]) or b""

    def put_chapter(self, transaction: WriteTransaction, name: bytes) -> None:
        transaction.put(CHAPTER, name, db=self.tables[b"meta"])

    def is_marked(self, transaction: Snapshot) -> bool:
        return transaction.get(b"format", db=self.tables[b"meta"]) == AHEAD_FORMAT

    def mark(self, *, is_ahead: bool) -> None:
        word, meta = AHEAD_FORMAT if is_ahead else FORMAT, self.tables[b"meta"]
        self.write_below(lambda lmdb: lmdb.put(b"format", word, db=meta), owed=True)

    def write_below(self, work: Callable[[WriteTransaction], T], *, owed: bool) -> T:
        if owed:
            return self._write_below(work, owed=True)
        try:
            return self._write_below(work, owed=False)
        finally:
            self._stamp_ends = 0.0
            self.resident.end()
            if self.only_makes_room:
                self.only_makes_room = False
                self._resize(self._map_bytes)

    def _write_below(self, work: Callable[[WriteTransaction], T], *, owed: bool) -> T:
        while True:
            try:
                with self._begin_write() as transaction:
                    done = work(cast(WriteTransaction, transaction))
                if self._is_said:
                    self._say_again()
                return done
            except lmdb.MapFullError:
                if self.only_makes_room and not owed:
                    raise self.full() from None
                if self.may_grow:
                    self._resize(self._lmdb.info()["map_size"] * 2)
                else:
                    self._resize(self._lmdb.info()["map_size"] + RESERVE_BYTES)
                    self.only_makes_room = not owed
            except (lmdb.DiskError, OSError) as error:
                raise self._unwritable(error) from error
            except lmdb.Error as error:
                if not any(trouble in str(error) for trouble in TROUBLES):
                    raise
                raise self._unwritable(error) from error

    def full(self) -> Refusal:
        return Refusal(
            Code.LIMIT,
            f"The mailbox list has the {self._map_bytes} octets that it may have (mupdate.max_list_bytes); "
            "what is deleted makes room",
        )

    def _unwritable(self, error: Exception) -> Refusal:
        """What is asked of a master may come from a user of a backend, whom no path of ours concerns: the log has it, once
        in a while, as a change that is owed is tried again and again."""
        now, problem = time.monotonic(), str(error)
        is_known = self._is_said and problem == self._problem
        if not is_known or now - self._problem_said_at >= SAID_S:
            self._problem, self._problem_said_at, self._is_said = problem, now, True
            list_log = logger(role="mupdate")
            list_log.warning("list.not_written", path=str(self.path), problem=problem)
        return Refusal(Code.UNAVAILABLE, "The mailbox list cannot be written")

    def _say_again(self) -> None:
        """It has been written: once in a while, too, as a disk may have room for one change and none for the next."""
        now = time.monotonic()
        if now - self._again_said_at >= SAID_S:
            self._again_said_at, self._is_said = now, False
            logger(role="mupdate").info("list.written_again", path=str(self.path))

    def _begin_write(self) -> lmdb.Transaction:
        try:
            return self._lmdb.begin(write=True)
        except lmdb.MapResizedError:
            with self._reading:
                self._lmdb.set_mapsize(0)
            return self._lmdb.begin(write=True)

    def _resize(self, map_bytes: int) -> None:
        """The map has what is used at the least."""
        with self._reading:
            self._lmdb.set_mapsize(map_bytes)

    def compact_to(self, directory: Path) -> None:
        """Write a compacted copy, consistent at one moment, while others read and write."""
        directory.mkdir(mode=0o700, parents=True)
        if not self.read_only:
            with self._settling.alone():
                pass  # the copy has all that there is now
        self._lmdb.copy(str(directory), compact=True)
        with (directory / DATA).open("r+b") as file:
            os.fsync(file.fileno())  # LMDB does not
        sync_names(directory)

    def used_bytes(self) -> int:
        """Octets of the file in use (it never shrinks by itself; `compact_to` makes a smaller one)."""
        info, stat = self._lmdb.info(), self._lmdb.stat()
        return int((info["last_pgno"] + 1) * stat["psize"])

    def close(self) -> None:
        """Give back one use; the last one closes."""
        with _OPEN_LOCK:
            self.users -= 1
            if self.users == 0:
                _OPEN.pop(_key(self.path), None)
                self._settling.close()
                self._lmdb.close()


# LMDB's own rule needs this one registry: two environments on one file in one process break its locks.
_OPEN: Final[dict[tuple[int, str], Environment]] = {}
_OPEN_LOCK: Final = threading.Lock()


def _key(path: Path) -> tuple[int, str]:
    return os.getpid(), os.path.realpath(path)


def open_environment(
    path: Path, *, read_only: bool, map_bytes: int = MAP_BYTES, journal_bytes: int = 0
) -> Environment:
    """Open it, or share it with whoever has it open in this process.

    A missing one is created, also for reading only: a reader that comes first finds an empty list. Raises
    Refusal with a sentence for an operator.
    """
    with _OPEN_LOCK:
        environment = _OPEN.get(_key(path))
        if environment is None:
            if read_only and not (path / DATA).exists():
                _create(path, map_bytes)
            try:
                environment = Environment(
                    path, read_only=read_only, map_bytes=map_bytes, journal_bytes=journal_bytes
                )
            except lmdb.NotFoundError:
                # another process is just making its tables: wait for that, and look again
                _create(path, map_bytes)
                environment = Environment(
                    path, read_only=read_only, map_bytes=map_bytes, journal_bytes=journal_bytes
                )
            _OPEN[_key(path)] = environment
        elif environment.read_only and not read_only:
            raise Misuse(f"{path} is open in this process already, for reading only")
        environment.users += 1
        return environment


def _create(path: Path, map_bytes: int) -> None:
    made = Environment(path, read_only=False, map_bytes=map_bytes)
    made._settling.close()
    made._lmdb.close()


def _open_journal(path: Path, bound: int, *, read_only: bool) -> Journal | None:
    """None for who reads only, where there is none. Raises Refusal."""
    try:
        return Journal(path, bound=bound, read_only=read_only)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refusal(
            Code.UNAVAILABLE, f"The journal of the mailbox list {path} cannot be opened: {error}"
        ) from error


def _open_lmdb(path: Path, *, read_only: bool, map_bytes: int) -> lmdb.Environment:
    try:
        if not read_only:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (path / DATA).exists():
                _make_file(path, map_bytes)
        environment = _lmdb_at(path, read_only=read_only, map_bytes=map_bytes)
    except (lmdb.Error, OSError) as error:
        raise Refusal(
            Code.UNAVAILABLE, f"The mailbox list {path} cannot be opened: {error}"
        ) from error
    try:
        _check_format(environment, path, read_only=read_only)
        if not read_only:
            sync_names(path)
    except BaseException:
        environment.close()
        raise
    return environment


def _lmdb_at(path: Path, *, read_only: bool, map_bytes: int) -> lmdb.Environment:
    return lmdb.open(
        str(path),
        map_size=map_bytes,
        max_dbs=len(TABLES),
        max_readers=MAX_READERS,
        readonly=read_only,
        mode=0o600,
        max_spare_txns=4,
    )


def _make_file(path: Path, map_bytes: int) -> None:
    """Make the file aside and give it its name when it is durable: LMDB does not open one that it was cut off from
    making. Whoever else makes it at the same time is welcome to win."""
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=path))
    try:
        environment = _lmdb_at(draft, read_only=False, map_bytes=map_bytes)
        _check_format(environment, path, read_only=False)
        environment.close()
        with suppress(FileExistsError):
            os.link(draft / DATA, path / DATA)
    finally:
        shutil.rmtree(draft)


def sync_names(folder: Path) -> None:
    """Make the names on the way to the folder's files durable, as far up as we may look: LMDB syncs what is in its file
    only, and a file whose name is lost in a power cut is lost. Costs nothing where they are."""
    for directory in (folder, *folder.absolute().parents):
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _open_table(environment: lmdb.Environment, name: bytes, *, create: bool) -> Table:
    while True:
        try:
            return environment.open_db(name, create=create)
        except lmdb.MapResizedError:  # another process has grown the map since it was opened here
            environment.set_mapsize(0)


def _check_format(environment: lmdb.Environment, path: Path, *, read_only: bool) -> None:
    meta = _open_table(environment, b"meta", create=not read_only)
    with environment.begin(db=meta, write=not read_only) as transaction:
        stored = transaction.get(b"format")
        if stored is None and not read_only:
            transaction.put(b"format", FORMAT)
            transaction.put(b"epoch", os.urandom(8).hex().encode())
        elif stored not in (FORMAT, AHEAD_FORMAT):
            raise Refusal(
                Code.UNAVAILABLE,
                f"The mailbox list {path} has format {(stored or b'none').decode()}, this version reads "
                f"{FORMAT.decode()} and {AHEAD_FORMAT.decode()}: use the newer version of murder that wrote it",
            )
