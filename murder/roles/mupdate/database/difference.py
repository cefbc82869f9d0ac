"""A master's whole list against ours: what a dump changes, in the order in which it comes.

Both lists are in one order, so this is a merge that holds one batch of rows: rows of ours that the dump passes over are gone
at the master. A master with another order costs time, not truth: a row that comes late is put (back) when it comes.
"""

from collections.abc import Sequence
from itertools import islice
from operator import lt
from typing import Final

from murder.roles.mupdate.database.indexing import IndexLines
from murder.roles.mupdate.database.lacking import MAX_LOST
from murder.roles.mupdate.database.record import SEQ_OCTETS, Block
from murder.roles.mupdate.database.transaction import ListTransaction

MAX_UNINDEXED: Final = 1_000_000  # rows; about 100 MiB,
MAX_UNINDEXED_OCTETS: Final = 128 * 1024 * 1024  # or so many, where many identifiers may see them


def ascends(keys: Sequence[bytes]) -> bool:
    return all(map(lt, keys, islice(keys, 1, None)))


class Difference:
    """Apply the rows of one dump, batch by batch; batches may be in transactions of their own.

    `lines`: new rows' lines of the index are collected there, and written when there are many, at the latest by `finish`;
    for a list that serves nobody meanwhile.
    """

    def __init__(self, lines: IndexLines | None = None) -> None:
        self.lines = lines
        self.rows = 0
        self.gone = 0  # rows of ours that the dump does not have, as far as it has come
        self.keys: list[bytes] = []  # theirs, and perhaps of rows that have come late; of many some
        self._last = b""

    def apply(self, transaction: ListTransaction, block: Block) -> None:
        """The next rows of the dump."""
        keys = block.keys
        if keys and transaction.last_key() <= self._last < keys[0] and ascends(keys):
            self.rows += len(keys)
            self._last = keys[-1]
            self._append(transaction, block)
            return
        theirs: dict[bytes, bytes] = {}
        late: list[tuple[bytes, bytes]] = []
        begin = end = self._last
        for key, row in zip(keys, block.rows, strict=True):
            if key > end:
                theirs[key] = row
                end = key
            else:
                late.append((key, row))
        self.rows += len(theirs) + len(late)
        self._last = end
        if end > begin:
            self._merge(transaction, theirs, begin, end)
        if late:  # they may replace rows that were just added: these must be in the index by then
            self._write_lines(transaction)
        for key, row in late:  # twice, or out of order
            if self.gone and transaction.row(key) is None:
                self.gone -= 1
            transaction.put_row(key, row)

    def _merge(
        self, transaction: ListTransaction, theirs: dict[bytes, bytes], begin: bytes, end: bytes
    ) -> None:
        """Make our rows behind `begin` up to `end` the ones in `theirs`, which is used up."""
        for key, row in transaction.rows_between(begin, end):
            self._write_lines(transaction)
            wanted = theirs.pop(key, None)
            if wanted is None:
                self._remove(transaction, key)
            elif row[SEQ_OCTETS:] != wanted:
                transaction.put_row(key, wanted)
        if not theirs:
            return
        if next(iter(theirs)) > transaction.last_key():
            self._append(transaction, Block(list(theirs), list(theirs.values())))
            return
        self._write_lines(transaction)
        for key, row in theirs.items():
            transaction.put_row(key, row)

    def _append(self, transaction: ListTransaction, block: Block) -> None:
        transaction.append_rows(block, self.lines)
        lines = self.lines
        if lines is not None and (
            lines.rows > MAX_UNINDEXED or lines.octets > MAX_UNINDEXED_OCTETS
        ):
            self._write_lines(transaction)

    def finish(self, transaction: ListTransaction) -> None:
        """The dump is complete: what of ours lies behind its last row is gone."""
        self._write_lines(transaction)
        for key, _ in transaction.rows_between(self._last, None):
            self._remove(transaction, key)

    def _remove(self, transaction: ListTransaction, key: bytes) -> None:
        self.gone += 1
        if len(self.keys) <= MAX_LOST:
            self.keys.append(key)
        transaction.remove_key(key)

    def _write_lines(self, transaction: ListTransaction) -> None:
        """Before anything but new rows at the end: then index and rows must agree."""
        if self.lines is not None and self.lines.rows:
            transaction.write_lines(self.lines)
