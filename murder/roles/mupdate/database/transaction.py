"""Changing a mailbox list: rows, log and index kept in step inside one LMDB write transaction.

A row's change takes the next sequence number. The log has, under `number kind`: `+` collation key, one line for each row, at
its last change; `-` collation key, a tombstone for a row removed; `c` random mark and what each server holds, at the end of
each commit. So "what changed after n" is a walk, and the log is bounded by the list, whatever happens to it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, repeat
from operator import add
from typing import Final, NamedTuple, assert_never

from murder.api.list_log import Position, Record
from murder.errors import Code, Misuse, Refusal
from murder.model.acl import MAX_ACL_OCTETS
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, collation_key, display
from murder.roles.mupdate.database.ahead import Draft
from murder.roles.mupdate.database.change import (
    Change,
    PutEntry,
    PutIntent,
    PutNote,
    RemoveEntry,
    RemoveIntent,
)
from murder.roles.mupdate.database.holding import (
    NONE,
    Holding,
    format_holdings,
    parse_holdings,
    weight,
    weight_of_rows,
)
from murder.roles.mupdate.database.indexing import (
    COMMON_ROW_OCTETS,
    NOTHING,
    IndexLines,
    head_of_looker,
    head_of_server,
    heads_of_lookers,
    known_head_of_server,
    owned_below,
)
from murder.roles.mupdate.database.pages import FEW_LINES, ROW_PAGES, Pages
from murder.roles.mupdate.database.record import (
    ACTIVE,
    FLAGS_AT,
    MAX_LOCATION_OCTETS,
    NUMBER,
    SEQ_OCTETS,
    Block,
    acl_of_row,
    is_listable,
    lookers,
    pack_row,
    server_of_row,
    unpack_entry,
)
from murder.roles.mupdate.database.snapshot import Snapshot, Table, WriteTransaction

KEEP_CHANGES: Final = 500_000  # tombstones and commits older than so many changes are forgotten,
PRUNE_CHANGES: Final = 8192  # at most so many changes' at once: some milliseconds,
PRUNE_EVERY: Final = 2048  # once in so many changes
# Of one access list, each a line of the index: the longest that a real Cyrus passes has 73 kB. 80 MiB of pages, at worst.
MAX_IDENTIFIERS: Final = 20_000
ROW, GONE, COMMIT = b"+", b"-", b"c"
SYNCHRONISED: Final = "synchronised"  # the note that says that the list is complete
MARK_OCTETS: Final = 8
KEEP_CONFLICTS: Final = 10_000  # names; an operator has to look long before
SCAN_ROWS: Final = 1000
NOWHERE: Final = (b"", b"", None)
NOBODY: Final[tuple[bytes, bytes, bytes, list[bytes]]] = (b"", b"", b"", [])
LOOK_LINES: Final = 128  # of the index: the kernel maps 64 KiB around each page that is looked at

Tables = Mapping[bytes, Table]


class RowChange(NamedTuple):
    """One row after a commit: `row` as stored, or None where it was removed."""

    seq: int
    key: bytes
    row: bytes | None
    old_row: bytes | None


class LastCommit(NamedTuple):
    """The end of the log: the number of the last change, its commit's mark, and what each server has."""

    seq: int
    mark: bytes
    holdings: Mapping[bytes, Holding]


def last_commit(transaction: Snapshot, tables: Tables) -> LastCommit:
    """`LastCommit(0, b"", {})` for a list that has seen none."""
    cursor = transaction.cursor(db=tables[b"log"])
    if not cursor.last():
        return LastCommit(0, b"", {})
    value = cursor.value()
    return LastCommit(
        NUMBER.unpack_from(cursor.key())[0], value[:MARK_OCTETS], parse_holdings(value, MARK_OCTETS)
    )


def check_row(entry: MailboxEntry) -> None:
    """Raise Refusal for a row that no list can hold."""
    check_octets(entry.name, entry.raw_location, entry.raw_acl)


def check_octets(name: MailboxName, raw_location: bytes, raw_acl: bytes) -> None:
    """`check_row` for a row in pieces."""
    if not is_listable(name):
        raise Refusal(Code.CANNOT, f"The list cannot hold the name {display(name)}", names=(name,))
    if len(raw_location) > MAX_LOCATION_OCTETS:
        raise Refusal(
            Code.LIMIT,
            f"A location may have {MAX_LOCATION_OCTETS} octets, not {len(raw_location)}",
        )
    if len(raw_acl) > MAX_ACL_OCTETS:
        raise Refusal(
            Code.LIMIT, f"An access list may have {MAX_ACL_OCTETS} octets, not {len(raw_acl)}"
        )
    if len(raw_acl) > 4 * MAX_IDENTIFIERS and raw_acl.count(b"\t") > 2 * MAX_IDENTIFIERS:
        raise Refusal(Code.LIMIT, f"An access list may have {MAX_IDENTIFIERS} identifiers")


class ListTransaction:
    """All changes of one commit. Lives in one thread, for one run of `Environment.write`."""

    def __init__(
        self,
        transaction: WriteTransaction,
        tables: Tables,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """`look` is called now and then by who touches many pages (`resident`)."""
        self._lmdb = transaction
        self._look = look
        self._tables = tables
        self._entries = tables[b"entries"]
        self._log = tables[b"log"]
        self._index = tables[b"index"]
        self._draft = transaction if isinstance(transaction, Draft) else None
        left = None if self._draft is None else self._draft.left
        self._last = left if type(left) is LastCommit else last_commit(transaction, tables)
        self._seq = self._last.seq
        self._mark = b""  # of the commit, where somebody else has given it
        self._more: dict[bytes, list[int]] = {}  # than before this, by server
        # name, key and row that were looked up last: most often what is put next
        self._looked: tuple[bytes, bytes, bytes | None] = NOWHERE
        self._neighbour = NOBODY  # the last new row, its number left out; see `_add_lines`
        self.pages = Pages()
        self.changes: list[RowChange] = []
        self.noted: dict[str, bytes] = {}  # that this has put
        self.ample: set[str] = set()  # servers that have room for any commit; see `bounds`

    @property
    def seq(self) -> int:
        """The number of the last change, this transaction's included."""
        return self._seq

    @property
    def began_at(self) -> Position:
        """Where the list stood before this."""
        return Position(self._last.seq, self._last.mark)

    def follow(self, record: Record) -> None:
        """Do a commit that has its place in the history already. Raises Misuse where that is not here, or leads elsewhere
        than it says."""
        if record.after != self.began_at:
            raise Misuse(f"the list stands at {self._seq}, the commit at {record.after.seq}")
        for key, row in record.changes:
            if row is None:
                self.remove_key(key)
            else:
                self.replace_row(key, self.row(key), row[SEQ_OCTETS:])
        for note, octets in record.notes.items():
            self.apply(PutNote(note, octets))
        self.number_notes()
        if self._seq != record.position.seq:
            raise Misuse(f"the list stands at {self._seq}, its history at {record.position.seq}")
        self._mark = record.position.mark

    def number_notes(self) -> None:
        """Notes without a row take a number, so that the commit has its place in a history."""
        if self.noted and self._seq == self._last.seq:
            self._seq += 1

    def held_by(self, server: bytes) -> Holding:
        """What a server has now, with what this has changed."""
        held, more = self._last.holdings.get(server, NONE), self._more.get(server)
        return held if more is None else held.plus(*more)

    def servers(self) -> int:
        """How many had mailboxes before this, and those that have been changed in it."""
        return len(self._last.holdings.keys() | self._more.keys())

    def find(self, name: bytes) -> MailboxEntry | None:
        """The row as this transaction sees it, its own changes included."""
        if not is_listable(name):
            return None
        key = collation_key(name)
        row = self._lmdb.get(key, db=self._entries)
        self._looked = (name, key, row)
        return None if row is None else unpack_entry(key, row)

    def intent(self, intent_id: str) -> bytes | None:
        """What a PutIntent wrote; None where it was removed."""
        return self._lmdb.get(intent_id.encode(), db=self._tables[b"intents"])

    def note(self, key: str) -> bytes | None:
        return self._lmdb.get(key.encode(), db=self._tables[b"notes"])

    def notes(self) -> int:
        """How many there are."""
        return self._lmdb.stat(self._tables[b"notes"])["entries"]

    def apply(self, change: Change) -> None:
        """Do one step. Raises Refusal(CANNOT) for a row that the list cannot hold."""
        match change:
            case PutEntry(entry):
                self.put(entry)
            case RemoveEntry(name):
                self.remove(name)
            case PutIntent(intent_id, octets):
                self._lmdb.put(intent_id.encode(), octets, db=self._tables[b"intents"])
            case RemoveIntent(intent_id):
                self._lmdb.delete(intent_id.encode(), db=self._tables[b"intents"])
            case PutNote(key, octets):
                self._lmdb.put(key.encode(), octets, db=self._tables[b"notes"])
                self.noted[key] = octets
            case _:
                assert_never(change)

    def check(self, changes: Iterable[Change]) -> None:
        """Raise the Refusal that `apply` would raise for one of them, before anything is changed."""
        for change in changes:
            if isinstance(change, PutEntry):
                check_row(change.entry)

    def put(self, entry: MailboxEntry, *, is_checked: bool = False) -> None:
        """Add or replace a row; nothing where it is there already, octet for octet."""
        if not is_checked:
            check_row(entry)
        name, key, old = self._looked
        if name != entry.name:
            key = collation_key(entry.name)
            old = self.row(key)
        row = pack_row(entry.name, entry.state, entry.raw_location, entry.raw_acl)
        self.replace_row(key, old, row)

    def put_row(self, key: bytes, unnumbered: bytes) -> None:
        """`put` for a row that is packed already (`record.pack_row`)."""
        self.replace_row(key, self.row(key), unnumbered)

    def count(self) -> int:
        """How many rows there are, as this transaction sees it."""
        return self._lmdb.stat(self._entries)["entries"]

    def row(self, key: bytes) -> bytes | None:
        """The row under a collation key as this transaction sees it, as it is stored."""
        return self._lmdb.get(key, db=self._entries)

    def replace_row(self, key: bytes, old: bytes | None, unnumbered: bytes) -> None:
        """`put_row` for who has just looked the row up (`row`)."""
        self._looked = NOWHERE
        if old is not None:
            if old[SEQ_OCTETS:] == unnumbered:
                return
            self._lmdb.delete(old[:SEQ_OCTETS] + ROW, db=self._log)
        self._seq += 1
        number = NUMBER.pack(self._seq)
        row = number + unnumbered
        if self._draft is None:
            self._lmdb.put(key, row, db=self._entries)
        else:
            self._draft.put_row(key, row, is_new=old is None, db=self._entries)
        self._lmdb.put(number + ROW, key, db=self._log, append=True)
        self.pages.count += ROW_PAGES
        if old is None and len(row) <= COMMON_ROW_OCTETS:
            self._add_lines(key, row)
        else:
            self._move_server(key, old, row)
            self._move_lookers(key, old, row)
        self.changes.append(RowChange(self._seq, key, row, old))

    def append_rows(self, block: Block, lines: IndexLines | None = None) -> None:
        """Put rows whose keys ascend and lie behind the last one: several times as fast as one by one. Such changes are
        in the journal, not in `changes`. With `lines`, these are still to be written (`write_lines`)."""
        keys, rows = block
        numbers = list(map(NUMBER.pack, range(self._seq + 1, self._seq + 1 + len(keys))))
        self._seq += len(keys)
        self._append(b"entries", zip(keys, map(add, numbers, rows), strict=True))
        self._append(b"log", zip(map(add, numbers, repeat(ROW)), keys, strict=False))
        collected = IndexLines() if lines is None else lines
        octets = weight_of_rows(keys, rows)
        for server, count in collected.add(block).items():
            self._count(server, count, octets * count // len(keys))
        if lines is None:
            self.write_lines(collected)

    def write_lines(self, lines: IndexLines) -> None:
        """Bring the index up to rows that `append_rows` has left out of it."""
        lines.write(self._lmdb, self._index)

    def index_again(self) -> None:
        """Put the lines of all rows: of a list that was left before it had them."""
        lines = IndexLines()
        for key, row in self.rows_between(b"", None):
            lines.add(Block([key], [row[SEQ_OCTETS:]]))
        self.write_lines(lines)

    def _append(self, table: bytes, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self._lmdb.cursor(db=self._tables[table]).putmulti(rows, append=True)

    def last_key(self) -> bytes:
        """The last collation key of the list; b"" where it is empty."""
        cursor = self._lmdb.cursor(db=self._entries)
        return cursor.key() if cursor.last() else b""

    def rows_between(self, after: bytes, last: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Stored rows behind `after`, up to and with `last` (None: to the end). Rows already given may be removed or
        replaced meanwhile."""
        while True:
            cursor = self._lmdb.cursor(db=self._entries)
            if not cursor.set_range(after + b"\0" if after else b""):
                return
            rows = list(islice(cursor.iternext(), SCAN_ROWS))
            for key, row in rows:
                if last is not None and key > last:
                    return
                yield key, row
            if len(rows) < SCAN_ROWS:
                return
            after = rows[-1][0]

    def remove(self, name: bytes) -> bool:
        """Remove a row; False if there was none."""
        return is_listable(name) and self.remove_key(collation_key(name))

    def remove_key(self, key: bytes) -> bool:
        """`remove`, by collation key."""
        self._looked = NOWHERE
        old = self._lmdb.pop(key, db=self._entries)
        if old is None:
            return False
        self._lmdb.delete(old[:SEQ_OCTETS] + ROW, db=self._log)
        self._seq += 1
        self._lmdb.put(NUMBER.pack(self._seq) + GONE, key, db=self._log, append=True)
        self.pages.count += ROW_PAGES
        self._move_server(key, old, None)
        self._move_lookers(key, old, None)
        self.changes.append(RowChange(self._seq, key, None, old))
        return True

    def _add_lines(self, key: bytes, row: bytes) -> None:
        """As `_move_server` and `_move_lookers`, of a row that is new: in a third of their calls; and in a third of those,
        where the owner's last one was the same but for its name."""
        put, index, unnumbered = self._lmdb.put, self._index, row[SEQ_OCTETS:]
        like, owned, server, heads = self._neighbour
        if unnumbered != like or not key.startswith(owned):
            server, owned = server_of_row(row), owned_below(key)
            heads = [known_head_of_server(server), *heads_of_lookers(key, row)]
            self._neighbour = (unnumbered, owned, server, heads)
        for head in heads:
            put(head + key, NOTHING, db=index)
        more = self._more.get(server)
        if more is None:
            more = self._more[server] = [0, 0]
        more[0] += 1
        more[1] += weight(key, row)
        lines = len(heads) - 1  # beside the server's, which is one of `ROW_PAGES`
        if lines <= FEW_LINES:
            self.pages.count += lines
        else:
            self.pages.add(self._lmdb, self._entries, key, heads[1:])

    def _move_server(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        old_server = None if old is None else server_of_row(old)
        new_server = None if new is None else server_of_row(new)
        if old is not None and new is not None and old_server == new_server:
            self._count(server_of_row(new), 0, weight(key, new) - weight(key, old))
            return
        if old is not None and old_server is not None:
            self._lmdb.delete(head_of_server(old_server) + key, db=self._index)
            self._count(old_server, -1, -weight(key, old))
        if new is not None and new_server is not None:
            self._lmdb.put(head_of_server(new_server) + key, NOTHING, db=self._index)
            self._count(new_server, 1, weight(key, new))

    def _count(self, server: bytes, mailboxes: int, octets: int) -> None:
        more = self._more.get(server)
        if more is None:
            self._more[server] = [mailboxes, octets]
        else:
            more[0] += mailboxes
            more[1] += octets

    def _move_lookers(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        if old is not None and new is not None and old[FLAGS_AT] & ACTIVE == new[FLAGS_AT] & ACTIVE:
            if acl_of_row(old) == acl_of_row(new):
                return
        before = frozenset() if old is None else lookers(key, old)
        after = frozenset() if new is None else lookers(key, new)
        if before == after:
            return
        gone, come = before - after, after - before
        if len(gone) + len(come) <= FEW_LINES:
            self.pages.count += len(gone) + len(come)
        else:
            self.pages.add(self._lmdb, self._entries, key, gone)
            self.pages.add(self._lmdb, self._entries, key, come)
        for at, identifier in enumerate(gone, 1):
            if not identifier.startswith(b"-"):  # what is taken away is read from the row
                self._lmdb.delete(head_of_looker(identifier) + key, db=self._index)
            if not at % LOOK_LINES:
                self._look()
        for at, identifier in enumerate(come, 1):
            if not identifier.startswith(b"-"):
                self._lmdb.put(head_of_looker(identifier) + key, NOTHING, db=self._index)
            if not at % LOOK_LINES:
                self._look()

    @property
    def adds_octets(self) -> bool:
        """Whether the rows take more than before, all together."""
        return sum(octets for _, octets in self._more.values()) > 0

    def put_conflict(self, name: bytes, octets: bytes) -> None:
        """Write a conflict down; the last one of each name is kept, and no more names than `KEEP_CONFLICTS`."""
        table = self._tables[b"conflicts"]
        if self._lmdb.stat(table)["entries"] < KEEP_CONFLICTS or self._lmdb.get(name, db=table):
            self._lmdb.put(name, octets, db=table)

    def forget_conflicts(self) -> None:
        """All that `put_conflict` wrote."""
        table = self._tables[b"conflicts"]
        for name in list(self._lmdb.cursor(db=table).iternext(keys=True, values=False)):
            self._lmdb.delete(name, db=table)

    def finish(self) -> LastCommit:
        """What every commit writes at its end. Call it once, after the last change."""
        last = self._last
        if self._seq == last.seq:
            self._leave(last)
            return last
        held = {server: self.held_by(server) for server in self._more}
        holdings: Mapping[bytes, Holding] = {**last.holdings, **held}
        if last.seq:  # the counts stand in the last commit only
            self._lmdb.put(NUMBER.pack(last.seq) + COMMIT, last.mark, db=self._log)
        mark = self._mark or os.urandom(MARK_OCTETS)
        octets = format_holdings(holdings)
        self._lmdb.put(NUMBER.pack(self._seq) + COMMIT, mark + octets, db=self._log, append=True)
        if min(map(min, held.values()), default=1) <= 0:  # it does not stand there like that
            holdings = parse_holdings(octets, 0)
        if self._seq // PRUNE_EVERY != last.seq // PRUNE_EVERY:
            self._prune()
        return self._leave(LastCommit(self._seq, mark, holdings))

    def _leave(self, last: LastCommit) -> LastCommit:
        """For the next transaction, which need not look it up, where it is ahead of LMDB."""
        if self._draft is not None:
            self._draft.own.left = last
        return last

    def _prune(self) -> None:
        """Forget old tombstones and commits; lines of rows stay. A part of them: what is left comes next time."""
        meta = self._tables[b"meta"]
        stored = self._lmdb.get(b"floor", db=meta)
        before = 0 if stored is None else NUMBER.unpack(stored)[0]
        floor = min(self._seq - KEEP_CHANGES, before + PRUNE_CHANGES)
        if floor <= before:
            return
        end = NUMBER.pack(floor) + b"\xff"
        cursor = self._lmdb.cursor(db=self._log)
        more = cursor.set_range(NUMBER.pack(before))
        while more and cursor.key() < end:
            is_row = cursor.key().endswith(ROW)
            more = cursor.next() if is_row else cursor.delete()
        self._lmdb.put(b"floor", NUMBER.pack(floor), db=meta)
