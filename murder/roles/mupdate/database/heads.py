"""Rows without their access lists: a walk over them costs the same however long these are."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final

from murder.roles.mupdate.database.environment import Environment
from murder.roles.mupdate.database.record import Head, unpack_head
from murder.roles.mupdate.database.snapshot import Table, Viewing

FIRST_BATCH: Final = 64  # rows: most walks end here
BATCH: Final = 400  # half a millisecond


def heads(environment: Environment, start: bytes, prefix: bytes = b"") -> Iterator[Head]:
    """Those whose collation keys start with `prefix`, from `start` on, in their order."""
    table, limit = environment.tables[b"entries"], FIRST_BATCH
    while True:
        some, last = environment.view(
            partial(_some, table=table, start=start, prefix=prefix, limit=limit)
        )
        yield from some
        if not last:
            return
        start, limit = last + b"\0", BATCH


def _some(
    transaction: Viewing, table: Table, start: bytes, prefix: bytes, limit: int
) -> tuple[list[Head], bytes]:
    """At most `limit` of them, and the last one's key (empty: that is all)."""
    cursor = transaction.cursor(db=table)
    some: list[Head] = []
    key = b""
    if not cursor.set_range(start):
        return some, key
    for view, row in islice(cursor.iternext(), limit):
        key = bytes(view)
        if not key.startswith(prefix):
            return some, b""
        some.append(unpack_head(key, row))
    return some, key if len(some) == limit else b""
