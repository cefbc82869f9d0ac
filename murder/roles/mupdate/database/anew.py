"""Making a list anew from another one, numbers and marks included, inside one LMDB write transaction.

What followed the old one finds its mark in the new one, or takes the whole.
"""

import time
from typing import Final

from murder.api.list_log import Whole
from murder.roles.mupdate.database.holding import NONE, Holding, format_holdings, weight
from murder.roles.mupdate.database.indexing import IndexLines
from murder.roles.mupdate.database.record import NUMBER, SEQ_OCTETS, Block, server_of_row
from murder.roles.mupdate.database.snapshot import WriteTransaction
from murder.roles.mupdate.database.transaction import COMMIT, GONE, ROW, SYNCHRONISED, Tables

MAX_UNINDEXED_OCTETS: Final = 64 * 1024 * 1024  # of memory, for lines of the index


def build_anew(transaction: WriteTransaction, tables: Tables, whole: Whole) -> None:
    """Put everything in place of what is there; conflicts and intents stay."""
    for table in (b"entries", b"index", b"log"):
        transaction.drop(tables[table], delete=False)
    holdings = _put_rows(transaction, tables, whole)
    floor = _put_records(transaction, tables, whole)
    seq, mark = whole.position
    if seq:
        value = mark + format_holdings(holdings)
        transaction.put(NUMBER.pack(seq) + COMMIT, value, db=tables[b"log"])
    meta = tables[b"meta"]
    transaction.put(b"epoch", whole.epoch.encode(), db=meta)
    if floor:
        transaction.put(b"floor", NUMBER.pack(floor), db=meta)
    else:
        transaction.delete(b"floor", db=meta)
    transaction.drop(tables[b"notes"], delete=False)
    notes = {**whole.notes, SYNCHRONISED: b"%.3f" % time.time()}
    for key, octets in notes.items():
        transaction.put(key.encode(), octets, db=tables[b"notes"])


def _put_rows(transaction: WriteTransaction, tables: Tables, whole: Whole) -> dict[bytes, Holding]:
    """Rows, their lines in journal and index; what each server has."""
    lines = IndexLines()
    more: dict[bytes, list[int]] = {}
    for page in whole.rows:
        transaction.cursor(db=tables[b"entries"]).putmulti(page, append=True)
        journal = sorted((row[:SEQ_OCTETS] + ROW, key) for key, row in page)
        transaction.cursor(db=tables[b"log"]).putmulti(journal)
        lines.add(Block([key for key, _ in page], [row[SEQ_OCTETS:] for _, row in page]))
        if lines.octets > MAX_UNINDEXED_OCTETS:
            lines.write(transaction, tables[b"index"])
        for key, row in page:
            held = more.setdefault(server_of_row(row), [0, 0])
            held[0] += 1
            held[1] += weight(key, row)
    lines.write(transaction, tables[b"index"])
    return {server: NONE.plus(*counts) for server, counts in more.items()}


def _put_records(transaction: WriteTransaction, tables: Tables, whole: Whole) -> int:
    """What commits have removed, and their marks; the number behind which all of them are known."""
    log = tables[b"log"]
    floor = whole.position.seq
    is_first = True
    for record in whole.records:
        if is_first:
            floor = record.after.seq
            if floor:
                transaction.put(NUMBER.pack(floor) + COMMIT, record.after.mark, db=log)
            is_first = False
        seq = record.after.seq
        for key, row in record.changes:
            seq += 1
            if row is None:
                transaction.put(NUMBER.pack(seq) + GONE, key, db=log)
        transaction.put(NUMBER.pack(record.position.seq) + COMMIT, record.position.mark, db=log)
    return floor
