"""The mailbox list: a memory-mapped, ordered database with one writer at a time and readers in any process.

Master, replica, frontend and backend use the same file, so that each can stand in for a lost other. Rows come in
Cyrus' own database order (`model.name.collation_key`). Reading blocks nobody and takes microseconds; it may be
done in the event loop. Writing waits for the disk: call `commit` and `write` from a thread, or use a `Ledger`.

No read transaction outlives a call: long walks read in batches and see each row as it is when its batch is read.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, takewhile
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from murder.api.list_log import Position, Record, Whole
from murder.model.acl import identifiers_of
from murder.model.entry import MailboxEntry
from murder.model.identity import Login
from murder.model.name import MAX_NAME_OCTETS, collation_key, is_deleted, name_of_key
from murder.model.rights import of_own_domain
from murder.roles.mupdate.database import visibility
from murder.roles.mupdate.database.ahead import Draft
from murder.roles.mupdate.database.anew import build_anew
from murder.roles.mupdate.database.change import Change, PutEntry, PutNote, RemoveEntry
from murder.roles.mupdate.database.environment import MAP_BYTES, Environment, open_environment
from murder.roles.mupdate.database.heads import FIRST_BATCH, heads
from murder.roles.mupdate.database.holding import Holding
from murder.roles.mupdate.database.indexing import head_of_server
from murder.roles.mupdate.database.lacking import Lost
from murder.roles.mupdate.database.record import (
    ACTIVE,
    FLAGS_AT,
    NUMBER,
    SEQ_OCTETS,
    Head,
    entry_of,
    is_deleted_key,
    is_listable,
    octets_of,
    server_of_row,
    unpack_entry,
)
from murder.roles.mupdate.database.snapshot import Snapshot, Table, WriteTransaction
from murder.roles.mupdate.database.transaction import (
    COMMIT,
    MARK_OCTETS,
    ROW,
    SYNCHRONISED,
    LastCommit,
    ListTransaction,
    RowChange,
    Tables,
    last_commit,
)

T = TypeVar("T")

BATCH: Final = 1000  # rows of a long walk per read transaction, about a millisecond,
PAGE_OCTETS: Final = 128 * 1024  # or about so many octets of rows: access lists may be long
_LOOK_ROWS: Final = 8  # read between two looks at how much they are, behind a row that is not long
_LONG_OCTETS: Final = 4096


class Page(NamedTuple):
    """Some stored rows by collation key, in order, and the key to go on from (None: that is all)."""

    rows: list[tuple[bytes, bytes]]
    last: bytes | None


@dataclass(frozen=True, slots=True)
class Committed:
    """What one commit did: its rows in order, and the position after it (`MailboxList.mark`). `is_anew`: the list is
    another one, with another history."""

    changes: Sequence[RowChange]
    seq: int
    mark: str
    is_anew: bool = False


@dataclass(frozen=True, slots=True)
class Following:
    """Part of what changed after a number: rows as `rows_changed_after` has them, and where that leads to.

    `mark` is None while there is more. `is_lost`: removals since then have been forgotten, only the whole list helps.
    """

    changes: Sequence[tuple[int, bytes, bytes | None]]
    seq: int
    mark: str | None
    is_lost: bool


@lru_cache(maxsize=4096)  # of names of late
def _key_of(name: bytes) -> bytes | None:
    return collation_key(name) if is_listable(name) else None


class MailboxList:
    """One mailbox list. All objects on one path in one process share one environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._tables: Tables = environment.tables
        self._entries = environment.tables[b"entries"]
        self._lost = Lost(self.note, lambda key: environment.get(key, self._entries) is not None)
        self.stamp = environment.stamp  # while it says the same, nothing in the list has changed
        self.stamp_now = environment.stamp_now  # as `stamp`, which may be a moment late
        self.epoch = self._read_meta(b"epoch").decode()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        read_only: bool = False,
        map_bytes: int = MAP_BYTES,
        may_grow: bool = True,
        journal_bytes: int = 0,
    ) -> "MailboxList":
        """Open the list in directory `path`; a missing one is created, empty and never synchronised. Whether it `may_grow`
        beyond `map_bytes` is for all who use it in this process. `journal_bytes`: of the file in which changes `ahead` are
        durable before they are in LMDB; 0: none are.

        Raises Refusal with a sentence for an operator (no permission, a newer format, no space).
        """
        environment = open_environment(
            path, read_only=read_only, map_bytes=map_bytes, journal_bytes=journal_bytes
        )
        environment.may_grow = environment.may_grow and may_grow
        return cls(environment)

    def close(self) -> None:
        self._environment.close()

    @property
    def path(self) -> Path:
        return self._environment.path

    # Looking up

    def find(self, name: bytes) -> MailboxEntry | None:
        """The row of this name, active or reserved."""
        if len(name) > MAX_NAME_OCTETS or (key := _key_of(name)) is None:
            return None
        row = self._environment.get(key, self._entries)
        return None if row is None else entry_of(key, row)

    def row(self, name: bytes) -> bytes | None:
        """The row as it is stored (`record`), for who only passes it on."""
        key = _key_of(name) if len(name) <= MAX_NAME_OCTETS else None
        return self._environment.get(key, self._entries) if key is not None else None

    def rows(self, after: bytes = b"", prefix: bytes = b"", limit: int = BATCH) -> Page:
        """At most `limit` stored rows (`record`) whose collation keys start with `prefix` and are above `after`; fewer
        where they are long."""
        start = max(after + b"\0" if after else b"", prefix)
        return self._environment.read(
            lambda transaction: _page(transaction, self._entries, start, prefix, limit)
        )

    def walk(self, prefix: bytes = b"", after: bytes | None = None) -> Iterator[MailboxEntry]:
        """All rows whose names start with `prefix` and come behind the name `after`, in collation order."""
        key_prefix = collation_key(prefix)
        last: bytes | None = b"" if after is None else collation_key(after)
        limit = FIRST_BATCH
        while last is not None:
            rows, last = self.rows(last, key_prefix, limit)
            for key, row in rows:
                yield unpack_entry(key, row)
            limit = BATCH

    def below(self, name: bytes) -> Iterator[MailboxEntry]:
        """All descendants of a mailbox, not the mailbox itself."""
        return self.walk(name + b".")

    def heads_below(self, name: bytes) -> Iterator[Head]:
        """As `below`, for who asks for no access list: costs the same however long these are."""
        prefix = collation_key(name + b".")
        return heads(self._environment, prefix, prefix)

    def heads_after(self, name: bytes) -> Iterator[Head]:
        """Likewise of all rows behind a name, which need not be there; b"": of all."""
        return heads(self._environment, collation_key(name) + b"\0" if name else b"")

    def visible(
        self, identifiers: Sequence[str], prefix: bytes = b"", *, deleted: bool = False
    ) -> Iterator[MailboxEntry]:
        """Active rows that somebody known by all these identifiers may look up (right `l`), in collation order.

        Costs what they can see, not what there is. Negative rights count; an owner always sees their own. Names
        below `DELETED`, and mailboxes that hold no mail, are left out unless `deleted`.
        """
        return visibility.visible(
            self._environment,
            [octets_of(identifier) for identifier in identifiers],
            collation_key(prefix),
            deleted,
        )

    def shown_to(
        self, login: Login, prefixes: Iterable[bytes], *, has_domains: bool
    ) -> Iterator[MailboxEntry]:
        """What LIST may tell somebody below these prefixes (in order, without overlap): an administrator all there is. Where
        there are domains, `anyone` and groups are others in those that are not theirs."""
        identifiers = identifiers_of(login.user, login.identity.groups)
        for prefix in prefixes:
            if not login.is_admin:
                rows = self.visible(identifiers, prefix)
                yield from of_own_domain(rows, login.identity) if has_domains else rows
                continue
            for entry in self.walk(prefix):
                if entry.is_active and not is_deleted(entry.name):
                    yield entry

    def shown_keys(self, after: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        """As `shown_to` an administrator, of at most `limit` rows behind the collation key `after`: their collation keys,
        and the key to go on from (None: that is all)."""
        rows, last = self.rows(after, b"", limit)
        keys = [key for key, row in rows if row[FLAGS_AT] & ACTIVE and not is_deleted_key(key)]
        return keys, last

    def at_server(self, server: str) -> Iterator[MailboxEntry]:
        """All rows, active and reserved, whose location names this server, in collation order."""
        last: bytes | None = b""
        while last is not None:
            rows, last = self.rows_at_server(octets_of(server), last)
            for key, row in rows:
                yield unpack_entry(key, row)

    def rows_at_server(self, server: bytes, after: bytes = b"") -> Page:
        """Stored rows of a server behind the collation key `after`, as `rows`."""
        prefix = head_of_server(server)
        start = prefix + (after + b"\0" if after else b"")

        def look_up(transaction: Snapshot) -> Page:
            lines = _scan(transaction, self._tables[b"index"], start, prefix, BATCH)
            rows: list[tuple[bytes, bytes]] = []
            octets = 0
            for line, _ in lines:
                key = line[len(prefix) :]
                row = transaction.get(key, db=self._entries)
                if row is not None and server_of_row(row) == server:
                    rows.append((key, row))
                    octets += len(row)
                    if octets >= PAGE_OCTETS:
                        return Page(rows, key)
            return Page(rows, lines[-1][0][len(prefix) :] if len(lines) == BATCH else None)

        return self._environment.read(look_up)

    # Counting

    def count(self) -> int:
        """Rows, active and reserved."""
        return self._environment.read(
            lambda transaction: int(transaction.stat(self._entries)["entries"])
        )

    @property
    def ahead_bytes(self) -> int:
        """Octets of the journal that are not in the file yet."""
        return self._environment.ahead_bytes

    def count_by_server(self) -> Mapping[str, int]:
        """Rows of each server that has any."""
        return {server: held.mailboxes for server, held in self.held_by_server().items()}

    def held_by_server(self) -> Mapping[str, Holding]:
        """What each server has that has any."""
        return {
            server.decode("utf-8", "surrogateescape"): holding
            for server, holding in self._last().holdings.items()
        }

    def used_bytes(self) -> int:
        """Octets of the file in use."""
        return self._environment.used_bytes()

    # Following

    def last_seq(self) -> int:
        """The number of the last change; it only grows."""
        return self._last().seq

    def position(self) -> Position:
        """Where this list stands in its history."""
        last = self._last()
        return Position(last.seq, last.mark)

    def _last(self) -> LastCommit:
        return self._environment.read(lambda transaction: last_commit(transaction, self._tables))

    def mark(self) -> str:
        """Where this list's history stands, for `seq_of_mark`: `epoch:seq:commit`, no blanks."""
        return self._environment.read(self._mark)

    def _mark(self, transaction: Snapshot) -> str:
        return self._mark_of(last_commit(transaction, self._tables))

    def _mark_of(self, last: LastCommit) -> str:
        return f"{self.epoch}:{last.seq}:{last.mark.hex()}"

    def seq_of_mark(self, mark: str) -> int | None:
        """The number to follow on from, or None if this list's history does not contain `mark`.

        A copy restored from a backup that has since gone its own way does not contain it either, because the
        commit at that number has another random mark.
        """
        epoch, _, rest = mark.partition(":")
        number, _, commit = rest.partition(":")
        if epoch != self.epoch or not number.isdecimal() or len(number) > 18:
            return None
        seq = int(number)

        def check(transaction: Snapshot) -> bool:
            floor = transaction.get(b"floor", db=self._tables[b"meta"])
            if floor is not None and seq < NUMBER.unpack(floor)[0]:
                return False
            stored = transaction.get(NUMBER.pack(seq) + COMMIT, db=self._tables[b"log"])
            return stored is not None and stored[:MARK_OCTETS].hex() == commit

        # the empty list it once was: everything since, if no removal has been forgotten
        if seq == 0:
            return 0 if not commit and self._environment.read(self._knows_beginning) else None
        return seq if self._environment.read(check) else None

    def is_behind(self, mark: str) -> bool:
        """Whether a mark may be of this list's history, further than it has come here."""
        epoch, _, rest = mark.partition(":")
        number = rest.partition(":")[0]
        is_number = number.isdecimal() and len(number) <= 18
        return epoch == self.epoch and is_number and int(number) > self.last_seq()

    def has_forgotten(self, mark: str) -> bool:
        """Whether a mark is of this list, and older than what it remembers of removals."""
        epoch, _, rest = mark.partition(":")
        number, stored = rest.partition(":")[0], self._read_meta(b"floor")
        is_number = number.isdecimal() and len(number) <= 18
        return (
            epoch == self.epoch
            and is_number
            and bool(stored)
            and int(number) < NUMBER.unpack(stored)[0]
        )

    def _knows_beginning(self, transaction: Snapshot) -> bool:
        return transaction.get(b"floor", db=self._tables[b"meta"]) is None

    def rows_changed_after(
        self, seq: int, limit: int = BATCH
    ) -> list[tuple[int, bytes, bytes | None]]:
        """At most `limit` of the rows changed after `seq`, as `(seq, collation key, row or None if removed)`; fewer where
        they are long. Each row once, at its last change; a name removed and made again shows up as both, in that order.
        """

        return self._environment.read(
            lambda transaction: self._changed_after(transaction, seq, limit)[0]
        )

    def _changed_after(
        self, transaction: Snapshot, seq: int, limit: int
    ) -> tuple[list[tuple[int, bytes, bytes | None]], bool]:
        """They, and whether that is all."""
        cursor = transaction.cursor(db=self._tables[b"log"])
        changed: list[tuple[int, bytes, bytes | None]] = []
        octets = 0
        if not cursor.set_range(NUMBER.pack(seq + 1)):
            return changed, True
        entries = self._entries
        for line, key in cursor.iternext():
            kind = line[SEQ_OCTETS:]
            if kind == COMMIT:
                continue
            row = transaction.get(key, db=entries) if kind == ROW else None
            changed.append((NUMBER.unpack_from(line)[0], key, row))
            octets += 0 if row is None else len(row)
            if len(changed) == limit or octets >= PAGE_OCTETS:
                return changed, False
        return changed, True

    def follow(self, seq: int, limit: int = BATCH) -> Following:
        """What to send to somebody who stands at `seq`, read at one moment."""

        def collect(transaction: Snapshot) -> Following:
            floor = transaction.get(b"floor", db=self._tables[b"meta"])
            lost = floor is not None and seq < NUMBER.unpack(floor)[0]
            changes, is_all = self._changed_after(transaction, seq, limit)
            if not is_all:
                return Following(changes, changes[-1][0], None, lost)
            last = last_commit(transaction, self._tables)
            return Following(changes, last.seq, self._mark_of(last), lost)

        return self._environment.read(collect)

    def changes_after(self, seq: int) -> Iterator[Change]:
        """What to do to a list that stands at `seq` to make it this one; entries carry their numbers."""
        while batch := self.rows_changed_after(seq):
            for _, key, row in batch:
                if row is None:
                    yield RemoveEntry(name_of_key(key))
                else:
                    yield PutEntry(unpack_entry(key, row))
            seq = batch[-1][0]

    # Small facts

    @property
    def synchronised_at(self) -> float | None:
        """When (Unix time) this list was last known complete; None: it has never been."""
        octets = self.note(SYNCHRONISED)
        return None if octets is None else float(octets)

    @property
    def synchronised(self) -> bool:
        """Whether this list has ever been complete. A frontend that has one which is not says "try later"."""
        return self.note(SYNCHRONISED) is not None

    def lacks(self, within_s: float) -> int:
        """How many mailboxes of this list a master with another history did not have, in these last seconds, and still has
        not: backends are announcing theirs again. So long a name that is not here may be somebody's."""
        return self._lost.count(within_s)

    def note(self, key: str) -> bytes | None:
        """What a PutNote wrote."""
        return self._environment.get(key.encode(), self._tables[b"notes"])

    def notes_of(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """What PutNotes wrote under each, all as of one moment."""
        table = self._tables[b"notes"]
        return self._environment.read(
            lambda transaction: [transaction.get(key.encode(), db=table) for key in keys]
        )

    def intents(self) -> Mapping[str, bytes]:
        """All intents that were put and not removed."""
        rows = self._environment.read(
            lambda transaction: list(transaction.cursor(db=self._tables[b"intents"]).iternext())
        )
        return {key.decode(): octets for key, octets in rows}

    def conflicts(self) -> Mapping[bytes, bytes]:
        """By name, the last attempt of a server to take what is another's (`owner.Conflict`, as JSON)."""
        return self._environment.read(
            lambda transaction: dict(transaction.cursor(db=self._tables[b"conflicts"]).iternext())
        )

    def _read_meta(self, key: bytes) -> bytes:
        return self._environment.get(key, self._tables[b"meta"]) or b""

    @property
    def kept_by(self) -> str:
        """What `keep_by` wrote; empty: nobody has."""
        return self._read_meta(b"engine").decode()

    def keep_by(self, engine: str) -> None:
        """Write down, durably, which engine keeps this list (`moving`). It is this file's own, and in no history."""
        meta = self._tables[b"meta"]
        self._environment.write(lambda lmdb: lmdb.put(b"engine", engine.encode(), db=meta))

    def notes(self) -> Mapping[str, bytes]:
        """All that PutNotes wrote."""
        rows = self._environment.read(
            lambda transaction: list(transaction.cursor(db=self._tables[b"notes"]).iternext())
        )
        return {key.decode(): octets for key, octets in rows}

    # Writing: blocks for the disk, belongs in a thread

    def commit(self, changes: Sequence[Change]) -> int:
        """Do all of it, durably, or nothing; the number of the last change of the list.

        Raises Refusal: CANNOT or LIMIT for a row that no list can hold, UNAVAILABLE for a full disk.
        """

        def work(transaction: ListTransaction) -> None:
            for change in changes:
                transaction.apply(change)

        return self.write(work)[1].seq

    def write(
        self,
        work: Callable[[ListTransaction], T],
        order: Callable[[ListTransaction, LastCommit, T], None] | None = None,
        *,
        ahead: bool = False,
        flush: bool = True,
    ) -> tuple[T, Committed]:
        """Run `work` in a transaction that is durable on return. It may run more than once; if it raises,
        nothing has happened. `order` is asked last, when all is done but the commit; if it raises, likewise. `ahead`: it may
        be in the journal first, where it is a few rows; and durable a little later (`flush`), where a log has it."""

        def run(transaction: WriteTransaction) -> tuple[T, Committed]:
            changing = ListTransaction(transaction, self._tables, self._environment.resident.look)
            outcome = work(changing)
            if self._environment.only_makes_room and changing.adds_octets:
                raise self._environment.full()
            last = changing.finish()
            if order is not None:
                if isinstance(transaction, Draft):
                    transaction.check_room()
                order(changing, last, outcome)
            return outcome, Committed(changing.changes, last.seq, self._mark_of(last))

        return self._environment.write(run, ahead=ahead, flush=flush)

    @property
    def is_prompt(self) -> bool:
        """Whether a small `write` that is `ahead` waits for nothing but its own flush of the disk."""
        return self._environment.is_prompt

    def take_up(self, records: Iterable[Record]) -> list[Committed]:
        """Do commits that have their place in this list's history already, in one transaction; a log has them, so that a
        power cut may take the last of them. Raises as `write`."""
        commits = list(records)
        are_few = sum(len(record.changes) for record in commits) <= BATCH

        def run(transaction: WriteTransaction) -> list[Committed]:
            done = []
            for record in commits:
                following = ListTransaction(
                    transaction, self._tables, self._environment.resident.look
                )
                following.follow(record)
                last = following.finish()
                done.append(Committed(following.changes, last.seq, self._mark_of(last)))
            return done

        return self._environment.write(run, ahead=are_few, flush=False)

    def take_whole(self, whole: Whole) -> Committed:
        """Become another list, with its history, in one transaction: the old one serves meanwhile. Raises as `write`, and
        what the rows raise."""
        has_begun = False

        def run(transaction: WriteTransaction) -> None:
            nonlocal has_begun
            if has_begun:  # the map was full, and rows come once
                raise self._environment.full()
            has_begun = True
            build_anew(transaction, self._tables, whole)

        self._environment.write(run)
        self.epoch = whole.epoch
        return Committed([], whole.position.seq, self.mark(), is_anew=True)

    def compact_to(self, directory: Path) -> None:
        """Write a compacted copy into a new directory, consistent at one moment."""
        self._environment.compact_to(directory)


def mark_synchronised(at: float | None = None) -> Change:
    """The step that says: from here on, this list is complete."""
    return PutNote(SYNCHRONISED, b"%.3f" % (time.time() if at is None else at))


def _scan(
    transaction: Snapshot,
    table: Table,
    start: bytes,
    prefix: bytes,
    limit: int,
) -> list[tuple[bytes, bytes]]:
    """At most `limit` pairs of a table from `start` on whose keys begin with `prefix`."""
    cursor = transaction.cursor(db=table)
    if not cursor.set_range(start):
        return []
    pairs = islice(cursor.iternext(), limit)
    if prefix:
        return list(takewhile(lambda pair: pair[0].startswith(prefix), pairs))
    return list(pairs)


def _page(transaction: Snapshot, table: Table, start: bytes, prefix: bytes, limit: int) -> Page:
    """As `_scan`, of no more than about `PAGE_OCTETS`."""
    cursor = transaction.cursor(db=table)
    rows: list[tuple[bytes, bytes]] = []
    if not cursor.set_range(start):
        return Page(rows, None)
    pairs = cursor.iternext()
    octets, is_all = 0, False
    while octets < PAGE_OCTETS and len(rows) < limit and not is_all:
        is_long = not rows or len(rows[-1][1]) > _LONG_OCTETS
        wanted = 1 if is_long else min(_LOOK_ROWS, limit - len(rows))
        some = list(islice(pairs, wanted))
        is_all = len(some) < wanted
        if prefix and some and not some[-1][0].startswith(prefix):
            some = list(takewhile(lambda pair: pair[0].startswith(prefix), some))
            is_all = True
        rows += some
        octets += sum([len(row) for _, row in some])
    while octets > PAGE_OCTETS and len(rows) > 1:  # the last ones were looked at together
        octets -= len(rows.pop()[1])
        is_all = False
    return Page(rows, None if is_all or not rows else rows[-1][0])
