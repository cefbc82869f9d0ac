"""What changed after a mod-sequence, read page by page, so that all others have their turn between."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from murder.api.turns import rest
from murder.model.message import MAX_UID, Changes, Message, ModSeq, Uid
from murder.model.ordering import in_order

PAGE: Final = 500  # rows that are read in one turn of the loop, some 2 ms


async def pages(
    reader: sqlite3.Connection, box_id: int, columns: str, table: str, since: ModSeq
) -> AsyncIterator[list[tuple[Any, ...]]]:
    """Rows after a mod-sequence in its order. `columns` ends with modseq and uid. What changes meanwhile moves to the end,
    so that nothing is passed over; some comes twice."""
    at: tuple[int, int] = (since, MAX_UID)
    while True:
        page = reader.execute(
            f"SELECT {columns} FROM {table} WHERE mailbox=? AND (modseq, uid)>(?,?) "
            "ORDER BY modseq, uid LIMIT ?",
            (box_id, *at, PAGE),
        ).fetchall()
        yield page
        if len(page) < PAGE:
            return
        at = page[-1][-2:]
        await rest()


def put_together(modseq: ModSeq, changed: dict[int, Message], gone: Sequence[int]) -> Changes:
    """Of many in a thread, which can be interrupted."""
    for uid in gone:
        changed.pop(uid, None)  # it went while the pages were turned
    messages = [changed[uid] for uid in in_order(list(changed))]
    return Changes(modseq, messages, [Uid(uid) for uid in in_order(gone)])
