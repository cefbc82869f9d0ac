"""A master's whole list against ours: what a dump changes, in the order in which it comes.

Both lists are in one order, so this is a merge that holds one batch of rows: rows of ours that the dump passes over are gone
at the master. A master with another order costs time, not truth: a row that comes late is put (back) when it comes.
"""

from collections.abc import Iterable

from murder.mupdate.record import SEQ_OCTETS
from murder.mupdate.transaction import ListTransaction

Row = tuple[bytes, bytes]
"""Collation key and unnumbered row (`record.pack_row`)."""


class Difference:
    """Apply the rows of one dump, batch by batch; batches may be in transactions of their own."""

    def __init__(self) -> None:
        self.rows = 0
        self._last = b""

    def apply(self, transaction: ListTransaction, rows: Iterable[Row]) -> None:
        """The next rows of the dump."""
        theirs: dict[bytes, bytes] = {}
        late: list[Row] = []
        begin = end = self._last
        for key, row in rows:
            if key > end:
                theirs[key] = row
                end = key
            else:
                late.append((key, row))
        self.rows += len(theirs) + len(late)
        self._last = end
        if end > begin:
            self._merge(transaction, theirs, begin, end)
        for key, row in late:  # twice, or out of order
            transaction.put_row(key, row)

    def _merge(
        self, transaction: ListTransaction, theirs: dict[bytes, bytes], begin: bytes, end: bytes
    ) -> None:
        """Make our rows behind `begin` up to `end` the ones in `theirs`, which is used up."""
        for key, row in transaction.rows_between(begin, end):
            wanted = theirs.pop(key, None)
            if wanted is None:
                transaction.remove_key(key)
            elif row[SEQ_OCTETS:] != wanted:
                transaction.put_row(key, wanted)
        if not theirs:
            return
        if next(iter(theirs)) > transaction.last_key():
            transaction.append_rows(list(theirs.items()))
            return
        for key, row in theirs.items():
            transaction.put_row(key, row)

    def finish(self, transaction: ListTransaction) -> None:
        """The dump is complete: what of ours lies behind its last row is gone."""
        for key, _ in transaction.rows_between(self._last, None):
            transaction.remove_key(key)
