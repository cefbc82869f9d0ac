"""What deliveries by a script have begun, what has been seen, and what is to be sent: so that after a crash the sender's
retry finishes what was begun, and nothing is done twice.

One SQLite file serves all workers. A row of `begun` stands from before the first of several steps until behind the last,
and then has the name of the process that did it: where that has died since, the sender may not have heard that all is done
(a copy alone has its mark beside it in the store: `once`).
What is to be done is done by a process that lives, however often it comes;
what is to be sent (`outgoing`) is put down once for each message and action, together with what a script wants remembered
(`records.remembered`). All is durable on return; what comes at the same time shares a flush.
"""

import asyncio
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from murder.api.disk import disk_error
from murder.api.store import Once
from murder.durable import replace_file, sync_folder
from murder.roles.backend.records import caused as caused_rows
from murder.roles.backend.records import remembered, rounds, tallies
from murder.roles.backend.records.caused import Caused
from murder.roles.backend.records.database import open_database
from murder.roles.backend.records.duplicates import Turns
from murder.roles.backend.records.living import NOTE_EVERY_S, Living
from murder.roles.backend.records.remembered import Entry
from murder.roles.backend.records.taken import Taken
from murder.roles.backend.records.tallies import Counted

T = TypeVar("T")
BUSY_MS: Final = 10_000
FOLDER: Final = "deliveries"  # in the role's
FILE: Final = "deliveries.db"
FORGET: Final = "DELETE FROM begun"
KEEP_S: Final = 10 * 86_400.0  # longer than a sender tries
LARGE_OCTETS: Final = 1024 * 1024  # what is larger is written and read without another copy of it
DUE_OCTETS: Final = 16 * 1024 * 1024  # of mails in memory together; of a larger one it alone
DONE_S: Final = 600.0  # of what is done: if this process dies before its sender hears so; then `living` says how long
DONE: Final[Mapping[str, int]] = {"": 0}
EXPIRE_EVERY_S: Final = 600.0
PENDING, SENT, FAILED = range(3)
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS begun (key BLOB PRIMARY KEY, at REAL NOT NULL, places TEXT NOT NULL) STRICT, WITHOUT ROWID",
    *remembered.TABLES,
    "CREATE TABLE IF NOT EXISTS outgoing (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, state INTEGER NOT NULL, "
    "at REAL NOT NULL, next_at REAL NOT NULL, tries INTEGER NOT NULL, user TEXT NOT NULL, sender TEXT NOT NULL, "
    "recipients TEXT NOT NULL, octets BLOB NOT NULL, problem TEXT NOT NULL DEFAULT '', keep BLOB NOT NULL DEFAULT x'') "
    "STRICT",
    "CREATE INDEX IF NOT EXISTS outgoing_due ON outgoing (state, next_at)",
    rounds.INDEX,
    *caused_rows.TABLES,
)
# of what an older version has put down `whose` and `size` are the defaults; to fill them in would write all mail anew
WHOSE: Final = "coalesce(nullif($whose, ''), $user)"
OCTETS: Final = "max($size, length($octets))"
COUNTED: Final = (
    Counted("outgoing", WHOSE, OCTETS, f"$state={PENDING}"),
    Counted("books", "$book", all=False),
    Counted("caused", "$user"),
)
COLUMNS: Final = {
    "keep": "BLOB NOT NULL DEFAULT x''",
    "whose": "TEXT NOT NULL DEFAULT ''",
    "size": "INTEGER NOT NULL DEFAULT 0",
}


def key_of(*facts: str) -> bytes:
    joined = "\0".join(facts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(joined).digest()[:20]


@dataclass(frozen=True, slots=True)
class Mail:
    """A message to send. `key` names it: what has been put down is never put down again. `whose`: in whose name it waits,
    where that is no user's. `pieces`: in place of `octets`,
    where they are to be put down, and need not be joined. `once`: only where this was not seen within its period, and seen
    then. `keep`: the mailbox in which it is kept where it cannot be sent, b"" for what is safe elsewhere, or worth nothing
    then."""

    key: bytes
    user: str  # whose script wants it
    sender: str  # of the envelope; "" is the null sender
    recipients: tuple[str, ...]
    octets: bytes = field(repr=False)
    once: Entry | None = None
    id: int = 0
    at: float = 0.0
    tries: int = 0
    keep: bytes = b""
    pieces: Sequence[bytes | memoryview] = field(default=(), repr=False)
    whose: str = ""

    @property
    def size(self) -> int:
        """Its octets, where it is to be put down."""
        return sum(map(len, self.pieces)) or len(self.octets)


@dataclass(frozen=True, slots=True)
class Room:
    """What may wait to be sent: mails and octets, of all and of one user (`max_waiting…`); 0 is no bound."""

    mails: int = 0
    octets: int = 0
    mails_of_user: int = 0
    octets_of_user: int = 0

    def bound_met(
        self, waiting: tuple[int, int], waiting_of_user: tuple[int, int], mails: int, octets: int
    ) -> str:
        """The key of the bound that leaves no place for so much more; "": there is place. What comes where nothing waits
        always finds it: it might never else."""
        for (entries, size), most, most_octets, whose in (
            (waiting, self.mails, self.octets, ""),
            (waiting_of_user, self.mails_of_user, self.octets_of_user, "_per_user"),
        ):
            if entries and most and entries + mails > most:
                return "max_waiting" + whose
            if entries and most_octets and size + octets > most_octets:
                return "max_waiting_bytes" + whose
        return ""


def forget_begun(folder: Path) -> None:
    """As `Deliveries.forget_begun`, while no node runs there. Raises OSError, sqlite3.Error, Refusal."""
    if (folder / FILE).exists():
        with closing(open_database(folder / FILE, BUSY_MS, TABLES)) as db:
            db.execute(FORGET)


class Deliveries:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError, sqlite3.Error, Refusal."""
        folder.mkdir(parents=True, exist_ok=True)
        self._turns = Turns(folder / "lock")
        self.alone = self._turns.alone
        self._expire_at = 0.0
        self._waiting: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._writer = ThreadPoolExecutor(1, "deliveries")
        self.taken = Taken(folder / "taken")
        self._undelivered = folder / "undelivered"
        self.room = Room()
        self._rounds = rounds.Rounds()
        self._file = folder / FILE
        self._db = open_database(self._file, BUSY_MS, TABLES)
        self._living = Living(folder / "living")
        self._own_mark = json.dumps({"": self._living.name})
        self._add_columns()

    def _add_columns(self) -> None:
        """To what an older version has made, which reads and writes it still."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")  # other workers look, too
        there = {row[1] for row in db.execute("PRAGMA table_info(outgoing)")}
        for name, kind in COLUMNS.items():
            if name not in there:
                db.execute(f"ALTER TABLE outgoing ADD COLUMN {name} {kind}")
        if not tallies.are_made(db):
            db.execute(tallies.TABLE)
            for counted in COUNTED:
                for statement in counted.statements():
                    db.execute(statement)
        db.execute("COMMIT")

    def close(self) -> None:
        """Whoever was to hear that something is done has heard it, or will not."""
        self._writer.shutdown()
        with suppress(sqlite3.Error):
            self._db.execute("DELETE FROM begun WHERE places=?", (self._own_mark,))
        self._db.close()
        self._living.close()
        self._turns.close()

    # --- what was begun

    async def keep_noting(self) -> None:
        """For ever, or until cancelled: that this process lives, also where nobody has mail."""
        while True:
            await asyncio.to_thread(self._living.note)
            await asyncio.sleep(NOTE_EVERY_S)

    def once(self, key: bytes) -> Once:
        """The mark of a copy that this process makes."""
        self._living.note()
        return Once(key, self._living.name, self._living.has_died)

    async def begin(self, key: bytes, places: Mapping[str, int]) -> Mapping[str, int] | None:
        """Note that a delivery to these mailboxes, with each one's next UID, begins; where it had begun before, what was
        noted then. DONE where all of it was done by a process that has died."""

        def work() -> Mapping[str, int] | None:
            row = self._db.execute("SELECT places, at FROM begun WHERE key=?", (key,)).fetchone()
            noted: dict[str, Any] = {} if row is None else json.loads(row[0])
            if row is not None and "" not in noted:
                return noted
            is_done = row is not None and self._living.has_died(noted[""], row[1])
            mark = self._own_mark if is_done else json.dumps(places)
            self._db.execute("REPLACE INTO begun VALUES (?,?,?)", (key, time.time(), mark))
            return DONE if is_done else None

        return await self._do(work)

    async def forget_begun(self) -> None:
        """Nothing that was begun, or done, counts any more: the mail is an older copy, and may be without it."""

        def work() -> None:
            self._db.execute(FORGET)

        await self._do(work)

    async def without_room(self, mails: Sequence[Mail]) -> tuple[frozenset[bytes], str]:
        """The keys of those that would be put down, where they find no place among what waits, and that of the bound (or
        none, and ""). What has been put down needs no place, nor what was seen within its period. A little more than the
        bound comes to wait, of what is delivered at the same time."""

        def work() -> tuple[frozenset[bytes], str]:
            now = time.time()
            new = [mail for mail in mails if self._is_new(mail, now)]
            if not new:
                return frozenset(), ""
            whose = new[0].whose or new[0].user
            bound = self.room.bound_met(
                tallies.entries_of(self._db, "outgoing"),
                tallies.entries_of(self._db, "outgoing", whose),
                len(new),
                sum(mail.size for mail in new),
            )
            return frozenset(mail.key for mail in new if bound), bound

        return await self._do(work) if mails else (frozenset(), "")

    def _is_new(self, mail: Mail, now: float) -> bool:
        if self._db.execute("SELECT 1 FROM outgoing WHERE key=?", (mail.key,)).fetchone():
            return False
        once = mail.once
        return once is None or not remembered.is_seen(self._db, once.key, now, once.period_s)

    async def end(
        self, key: bytes, mails: Sequence[Mail] = (), seen: Sequence[Entry] = ()
    ) -> frozenset[bytes]:
        """It is all done, with what is to be sent put down: the keys of what of that is new."""

        def work() -> frozenset[bytes]:
            now = time.time()
            new = frozenset(mail.key for mail in mails if self._put(mail, now))
            for entry in seen:
                remembered.see(self._db, entry, now)
            self._living.note()
            done = (self._own_mark, now, key)
            self._db.execute("UPDATE begun SET places=?, at=? WHERE key=?", done)
            self._expire(now)
            return new

        return await self._do(work)

    def _put(self, mail: Mail, now: float) -> bool:
        if not self._is_new(mail, now):
            return False
        if mail.once is not None:
            remembered.see(self._db, mail.once, now)
        pieces = mail.pieces or (mail.octets,)
        size = mail.size
        is_large = size > LARGE_OCTETS
        row = self._db.execute(
            "INSERT INTO outgoing (key,state,at,next_at,tries,user,sender,recipients,octets,keep,whose,size) "
            f"VALUES (?,?,?,?,0,?,?,?,{'zeroblob(?)' if is_large else '?'},?,?,?)",
            (
                *(mail.key, PENDING, now, now, mail.user, mail.sender),
                *(json.dumps(mail.recipients), size if is_large else b"".join(pieces), mail.keep),
                *(mail.whose or mail.user, size),
            ),
        ).lastrowid
        if is_large and row is not None:
            with self._db.blobopen("outgoing", "octets", row) as octets:
                for piece in pieces:
                    for start in range(0, len(piece), LARGE_OCTETS):
                        octets.write(piece[start : start + LARGE_OCTETS])
        return True

    async def was_seen(self, entry: Entry, *, renew: bool = False) -> bool:
        """Whether it was noted within its period; `renew` begins that anew."""

        def work() -> bool:
            now = time.time()
            is_seen = remembered.is_seen(self._db, entry.key, now, entry.period_s)
            if is_seen and renew:
                remembered.see(self._db, entry, now)
            return is_seen

        return await self._do(work)

    async def see(self, entry: Entry) -> None:
        """Note it, for its period."""
        await self._do(lambda: remembered.see(self._db, entry, time.time()))

    def _expire(self, now: float) -> None:
        if now < self._expire_at:
            return
        self._expire_at = now + EXPIRE_EVERY_S
        self._db.execute("DELETE FROM begun WHERE at<?", (now - KEEP_S,))
        before = now - DONE_S
        marks = "SELECT places, max(at) FROM begun WHERE places LIKE ? AND at<? GROUP BY places"
        for mark, at in self._db.execute(marks, ("""{"": %""", before)).fetchall():
            if not self._living.has_died(json.loads(mark)[""], at):
                self._db.execute("DELETE FROM begun WHERE places=? AND at<?", (mark, before))
        remembered.expire(self._db, now)
        self._db.execute("DELETE FROM outgoing WHERE state<>? AND at<?", (PENDING, now - KEEP_S))

    # --- what is to be sent

    async def due(self, most: int) -> list[Mail]:
        """Those whose time has come, of many users before many of one, the oldest first; of large ones fewer."""

        def work() -> list[Mail]:
            ids = self._rounds.next(self._db, PENDING, time.time(), most)
            rows = [
                self._db.execute(
                    "SELECT key,user,sender,recipients,length(octets),id,at,tries,keep FROM outgoing WHERE id=?",
                    (id_,),
                ).fetchone()
                for id_ in ids
            ]
            mails: list[Mail] = []
            left = DUE_OCTETS
            for key, user, sender, to, size, id_, at, tries, keep in rows:
                left -= size
                if mails and left < 0:
                    self._rounds.left_out(user, id_)
                    break
                octets = self._octets(id_)
                recipients = tuple(json.loads(to))
                mails.append(
                    Mail(key, user, sender, recipients, octets, None, id_, at, tries, keep)
                )
            return mails

        return await self._do(work)

    def _octets(self, id_: int) -> bytes:
        with self._db.blobopen("outgoing", "octets", id_, readonly=True) as octets:
            return octets.read()

    async def recover(self) -> None:
        """Before the first attempt of a process: what an earlier one noted as taken before it died."""

        noted = self.taken.left()

        def work() -> None:
            for key, digests in noted.items():
                row = self._db.execute(
                    "SELECT id, recipients FROM outgoing WHERE key=? AND state=?", (key, PENDING)
                ).fetchone()
                if row is None:
                    continue
                left = self.taken.without(json.loads(row[1]), digests)
                self._db.execute(
                    "UPDATE outgoing SET state=?1, recipients=?2, octets=CASE WHEN ?1=?3 THEN x'' ELSE octets END "
                    "WHERE id=?4",
                    (PENDING if left else SENT, json.dumps(left), SENT, row[0]),
                )

        if noted:
            await self._do(work)
            for key, digests in noted.items():
                self.taken.forget_left(key, digests)

    async def sent(self, mail: Mail) -> None:
        """It needs no further attempt."""
        await self._set(mail, SENT, 0.0, "")

    async def failed(self, mail: Mail, problem: str) -> None:
        """For good."""
        await self._set(mail, FAILED, 0.0, problem)

    def lay_aside(self, mail: Mail) -> Path:
        """The file in which it is now, for the operator: nobody else has it. Blocks. Raises OSError."""
        self._undelivered.mkdir(exist_ok=True)
        sync_folder(self._undelivered.parent)
        file = self._undelivered / f"{mail.key.hex()}.eml"
        replace_file(file, mail.octets)
        return file

    async def later(self, mail: Mail, wait_s: float, problem: str, left: Sequence[str]) -> None:
        """Not sent to these, and why; next attempt after so many seconds."""
        await self._set(mail, PENDING, time.time() + wait_s, problem, left)

    async def _set(
        self, mail: Mail, state: int, next_at: float, problem: str, left: Sequence[str] = ()
    ) -> None:
        def work() -> None:
            octets = "" if state == PENDING else ", octets=x''"
            self._db.execute(
                f"UPDATE outgoing SET state=?, next_at=?, tries=tries+1, problem=?, recipients=?{octets} WHERE id=?",
                (state, next_at, problem[:1000], json.dumps(left or mail.recipients), mail.id),
            )

        await self._do(work)
        self.taken.forget(mail.key, mail.recipients)

    # --- what clients have done, and scripts are to see

    async def put_caused(self, caused: Sequence[Caused]) -> int:
        """How many of them found room."""
        return await self._do(lambda: caused_rows.put(self._db, caused))

    async def due_caused(self, most: int) -> list[Caused]:
        """Those whose time has come, the oldest first."""
        return await self._do(lambda: caused_rows.due(self._db, most))

    async def advance_caused(self, caused: Caused, done: int) -> None:
        """So many of its messages are done."""
        await self._do(lambda: caused_rows.advance(self._db, caused.id, done))

    async def later_caused(self, caused: Caused, wait_s: float) -> None:
        """Once more, in so many seconds."""
        await self._do(lambda: caused_rows.later(self._db, caused.id, wait_s))

    async def end_caused(self, caused: Caused) -> None:
        """It is all done."""
        await self._do(lambda: caused_rows.end(self._db, caused.id))

    # --- the thread

    async def _do(self, work: Callable[[], T]) -> T:
        """Raises Refusal where the disk is full, or cannot be used, OSError."""
        done: Future[T] = Future()
        self._waiting.put((work, done))
        self._writer.submit(self._commit)
        return await asyncio.wrap_future(done)

    def _commit(self) -> None:
        """All that waits, in one transaction; whoever comes behind and finds nothing left has been taken along."""
        works: list[tuple[Callable[[], Any], Future[Any]]] = []
        while not self._waiting.empty():
            work, done = self._waiting.get()
            done.set_running_or_notify_cancel()  # who waits may leave; not while this is told to them
            works.append((work, done))
        if not works:
            return
        results: list[Any] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            results += [work() for work, _ in works]
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the end of a task: each that waits hears of it
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            is_disk = isinstance(error, sqlite3.Error)
            failure = disk_error(error, self._file) if is_disk else error
            for _, done in works:
                if not done.cancelled():
                    done.set_exception(failure)
            return
        for (_, done), result in zip(works, results, strict=True):
            if not done.cancelled():
                done.set_result(result)
