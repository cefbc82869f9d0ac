"""What changed after a mod-sequence, read page by page, so that all others have their turn between."""

import asyncio
import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from operator import attrgetter
from typing import Any, Final

from murder.api.turns import rest
from murder.kit.schema import MESSAGE_COLUMNS
from murder.model.message import MAX_UID, Changes, Message, ModSeq, Uid
from murder.model.ordering import each_once

PAGE: Final = 500  # messages that are read in one turn of the loop, some 2 ms
UIDS_PAGE: Final = 2000  # UIDs, likewise


async def pages(
    reader: sqlite3.Connection,
    box_id: int,
    columns: str,
    table: str,
    since: ModSeq,
    size: int,
) -> AsyncIterator[list[tuple[Any, ...]]]:
    """Rows after a mod-sequence in its order. `columns` ends with modseq and uid. What changes meanwhile moves to the end,
    so that nothing is passed over; some comes twice."""
    at: tuple[int, int] = (since, MAX_UID)
    while True:
        page = reader.execute(
            f"SELECT {columns} FROM {table} WHERE mailbox=? AND (modseq, uid)>(?,?) "
            "ORDER BY modseq, uid LIMIT ?",
            (box_id, *at, size),
        ).fetchall()
        yield page
        if len(page) < size:
            return
        at = page[-1][-2:]
        await rest()


async def _uids_after(
    reader: sqlite3.Connection, box_id: int, table: str, since: ModSeq
) -> "array[int]":
    """The UIDs of such rows, in the order read."""
    uids = array("I")
    async for page in pages(reader, box_id, "modseq, uid", table, since, UIDS_PAGE):
        uids.extend(uid for _, uid in page)
    return uids


async def read_changes(
    reader: sqlite3.Connection,
    box_id: int,
    since: ModSeq,
    modseq: ModSeq,
    see: Callable[[list[tuple[Any, ...]]], list[Message]],
) -> Changes:
    """See murder.api.store.Mailbox.changes; `modseq` is the mailbox's. `see` makes messages of MESSAGE_COLUMNS."""
    # left to itself SQLite would read the whole mailbox, which it has in the order of the UIDs
    index = "message INDEXED BY message_modseq"
    changed: list[Message] = []
    many: Sequence[Uid] = ()
    columns = f"{MESSAGE_COLUMNS}, modseq, uid"
    async for page in pages(reader, box_id, columns, index, since, PAGE):
        if len(page) == PAGE:
            many = await _each_once(await _uids_after(reader, box_id, index, since))
            break
        changed = see([row[:-2] for row in page])
    vanished = await _each_once(await _uids_after(reader, box_id, "expunged", since))
    count = len(vanished)
    if count and changed:  # one may have gone while the pages were turned
        changed = [
            message
            for message in changed
            if (at := bisect_left(vanished, message.uid)) == count or vanished[at] != message.uid
        ]
    changed.sort(key=attrgetter("uid"))
    return Changes(modseq, changed, vanished, many=many)


async def _each_once(uids: "array[int]") -> Sequence[Uid]:
    if len(uids) > PAGE:
        ordered: Sequence[Any] = await asyncio.to_thread(each_once, uids)
        return ordered
    return [Uid(uid) for uid in sorted(set(uids))]
