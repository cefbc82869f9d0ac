"""Who can see what: the walk over the list's index by ACL identifier.

The index has one line for each (identifier, mailbox) where the identifier has the right `l`, the owner included,
and a listing merges the few ranges that concern somebody. Rights that are taken away are read from the rows.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from heapq import merge
from itertools import groupby, islice, takewhile
from typing import Final

from murder.model.entry import MailboxEntry
from murder.model.name import is_non_imap
from murder.roles.mupdate.database.environment import Environment
from murder.roles.mupdate.database.indexing import head_of_looker
from murder.roles.mupdate.database.record import (
    is_deleted_key,
    may_look_up,
    takes_rights_away,
    unpack_entry,
)
from murder.roles.mupdate.database.snapshot import Snapshot

# index lines of one identifier: nearly every user's whole list, in one transaction
FIRST_BATCH: Final = 200
BATCH: Final = 1000  # index lines of one identifier at once
ROWS: Final = 200  # looked up in one go, a millisecond; who walks on may rest then
PAGE_OCTETS: Final = 256 * 1024  # of rows at once


def visible(
    environment: Environment, identifiers: Sequence[bytes], key_prefix: bytes, deleted: bool
) -> Iterator[MailboxEntry]:
    """See `MailboxList.visible`; `identifiers` as octets, `key_prefix` a collation key."""
    entries = environment.tables[b"entries"]
    known = frozenset(identifiers)

    def is_shown(key: bytes, row: bytes, from_snapshot: bool) -> bool:
        if not deleted and (is_deleted_key(key) or is_non_imap(key)):
            return False
        if from_snapshot and not takes_rights_away(row):
            return True  # the index says so, and it is of the same moment
        return may_look_up(key, row, known)

    def look_up(
        transaction: Snapshot, keys: Sequence[bytes], from_snapshot: bool
    ) -> tuple[list[MailboxEntry], int]:
        """Rows, and of how many keys: long ones are some only."""
        rows = []
        octets = 0
        for at, key in enumerate(keys, 1):
            row = transaction.get(key, db=entries)
            if row is not None:
                octets += len(row)
                if is_shown(key, row, from_snapshot):
                    rows.append(unpack_entry(key, row))
                if octets >= PAGE_OCTETS:
                    return rows, at
        return rows, len(keys)

    def small(transaction: Snapshot) -> list[MailboxEntry] | None:
        keys: set[bytes] = set()
        for identifier in identifiers:
            batch = _scan(transaction, environment, identifier, key_prefix, b"", FIRST_BATCH)
            keys.update(batch)
            if len(batch) == FIRST_BATCH or len(keys) > ROWS:
                return None
        entries_found, seen = look_up(transaction, sorted(keys), True)
        return entries_found if seen == len(keys) else None

    whole = environment.read(small)
    if whole is not None:
        yield from whole
        return
    ranges = [_range(environment, identifier, key_prefix) for identifier in identifiers]
    merged = (key for key, _ in groupby(merge(*ranges)))
    while keys := list(islice(merged, ROWS)):
        while keys:
            rows, seen = environment.read(partial(look_up, keys=keys, from_snapshot=False))
            yield from rows
            keys = keys[seen:]


def _range(environment: Environment, identifier: bytes, key_prefix: bytes) -> Iterator[bytes]:
    last = b""

    def scan(transaction: Snapshot) -> list[bytes]:
        return _scan(transaction, environment, identifier, key_prefix, last, BATCH)

    while True:
        batch = environment.read(scan)
        yield from batch
        if len(batch) < BATCH:
            return
        last = batch[-1]


def _scan(
    transaction: Snapshot,
    environment: Environment,
    identifier: bytes,
    key_prefix: bytes,
    last: bytes,
    limit: int,
) -> list[bytes]:
    """At most `limit` collation keys that the index has for an identifier."""
    head = head_of_looker(identifier)
    prefix = head + key_prefix
    cursor = transaction.cursor(db=environment.tables[b"index"])
    if not cursor.set_range(head + last + b"\0" if last else prefix):
        return []
    keys = islice(cursor.iternext(keys=True, values=False), limit)
    return [key[len(head) :] for key in takewhile(lambda key: key.startswith(prefix), keys)]
