"""What has been expunged: read on by sessions that have not been told (murder.api.KeepsExpunged), and kept for its return
(murder.api.RestoresExpunged).

Rows move from `message` to `gone` and hold on to their octets: until every worker that reads the mailbox has let go, or
`HELD_S` is over, which a timer looks for in each root that has some; and where they are `kept`, until the store's
retention is over, for which each root is looked at when it is opened, when something is added, and by `purge`.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from murder.api.carry import CarriedRetained
from murder.api.store import Mailbox, Retention, Untold
from murder.api.turns import rest
from murder.errors import Refusal
from murder.kit.bodies import Bodies
from murder.kit.root import Root
from murder.kit.rows import (
    Box,
    as_list,
    insert_body,
    release_bodies,
    remove_messages,
    spelled,
)
from murder.kit.schema import to_bits, to_keywords, to_seconds
from murder.kit.sizes import note_size
from murder.model.message import ModSeq, Uid
from murder.model.pieces import let_go as free

HELD_S: Final = 600
MOST_HELD: Final = 10_000  # of one root: each costs some microseconds when it is expunged
BATCH: Final = 500  # messages that one transaction lets go of, besides what it was made for; some 10 ms of a thread


@dataclass(frozen=True, slots=True)
class Keeping:
    """For whom, and for how long, what a change removes is kept: `holders` may read it on, as far as `held_octets`."""

    holders: int = 0
    held_octets: int = 0
    retention: Retention | None = None


NOT_KEPT: Final = Keeping()


class Keeper:
    """Of one store: for whom it keeps, how much, and the timers. `root_of` opens a root by its key."""

    def __init__(self, most_octets: int, root_of: Callable[[str], Root]) -> None:
        self.most_octets = most_octets
        self._root_of = root_of
        self._untold: Untold | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.retention: Retention | None = None  # None: nobody has said

    def keep_for(self, untold: Untold) -> None:
        self._untold = untold

    def keeping(self, mailbox: Mailbox, key: str, *, moves: bool = False) -> Keeping:
        """What this reader is about to remove from the root of that key, or to move: then it is somewhere else."""
        holders = 0
        if self._untold is not None and self.most_octets:
            holders = self._untold.holders(mailbox)
        if holders:
            self.expires(key)
        return Keeping(holders, self.most_octets, None if moves else self.retention)

    def expires(self, key: str) -> None:
        """Something is held in this root."""
        if key not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(HELD_S + 1, self._expired, key)

    def _expired(self, key: str) -> None:
        del self._timers[key]
        self.opened(self._root_of(key))

    def opened(self, root: Root) -> None:
        """What was kept for its time is let go of; the rest later."""
        retention = self.retention
        if has_expired(root.reader, retention):
            root.hint(lambda db: release_expired(db, retention), durable=True)
        if is_holding(root.reader):
            self.expires(root.key)

    async def purge(self, key: str) -> int:
        """All that was kept in this root for its time, or is more than there is room for, turn by turn; how many messages.
        Raises Refusal where the root is damaged."""
        root, retention, purged = self._root_of(key), self.retention, 0
        with root.in_use():
            while has_expired(root.reader, retention) or has_too_much(root.reader, retention):
                purged += await root.write(lambda db: release_expired(db, retention))
                await rest()
        return purged

    def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


class KeepingStore:
    """What a store of roots does for `murder.api.store.KeepsExpunged` and `RestoresExpunged`: its keeper keeps, it says what
    roots there are."""

    _keeper: Keeper

    def keys(self) -> Iterable[str]:
        """Of all its roots."""
        raise NotImplementedError

    def keep_for(self, untold: Untold) -> None:
        """See murder.api.store.KeepsExpunged."""
        self._keeper.keep_for(untold)

    def retain(self, retention: Retention) -> None:
        """See murder.api.store.RestoresExpunged."""
        self._keeper.retention = retention

    async def purge(self) -> int:
        """See murder.api.store.RestoresExpunged."""
        purged = 0
        for key in self.keys():
            with contextlib.suppress(Refusal):  # damaged, and logged
                purged += await self._keeper.purge(key)
            await rest()
        return purged


def is_holding(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM gone WHERE holders<>0 LIMIT 1").fetchone() is not None


def remove_kept(
    db: sqlite3.Connection,
    box: Box,
    uids: Sequence[Uid],
    keeping: Keeping,
    bodies: Bodies | None = None,
) -> list[Uid]:
    """As `remove_messages`; what there is room for is kept, its octets set aside."""
    retention = keeping.retention
    keeps = retention is not None and retention.keep_s > 0
    if not keeping.holders and not keeps:
        return remove_messages(db, box, uids)
    release_expired(db, retention)
    rows = db.execute(
        "SELECT uid, size, body FROM message WHERE mailbox=? "
        "AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid",
        (box.id, as_list(uids)),
    ).fetchall()
    kept: set[int] = set()
    if retention is not None and keeps:
        kept = _fitting(rows[::-1], retention.most_messages, retention.most_octets)
        _insert(db, box, kept, keeping.holders, is_kept=True)
    held: set[int] = set()
    if keeping.holders and len(kept) < len(rows):
        messages, octets = db.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM gone WHERE kept=0"
        ).fetchone()
        others = [row for row in rows if row[0] not in kept]
        held = _fitting(others, MOST_HELD - messages, keeping.held_octets - octets)
        _insert(db, box, held, keeping.holders, is_kept=False)
    stay = frozenset(kept | held)
    removed = remove_messages(db, box, uids, stay)
    if bodies is not None:
        for uid, _, body in rows:
            if uid in stay:
                bodies.set_aside(db, body, is_kept=uid in kept)
    if retention is not None:
        trim(db, retention, max(BATCH, 2 * len(rows)))
    free(rows)
    return removed


def _fitting(
    rows: Sequence[tuple[int, int, int]], most_messages: int, most_octets: int
) -> set[int]:
    """The UIDs of what there is room for, in the order given."""
    fitting: set[int] = set()
    octets = 0
    for uid, size, _ in rows:
        if len(fitting) >= most_messages:
            break
        if octets + size <= most_octets:
            octets += size
            fitting.add(uid)
    return fitting


def _insert(
    db: sqlite3.Connection, box: Box, chosen: set[int], holders: int, *, is_kept: bool
) -> None:
    if not chosen:
        return
    db.execute(
        "INSERT INTO gone SELECT message.*, :now, :modseq, :holders, "
        "(SELECT json_group_array(reader) FROM seen WHERE seen.mailbox=:box AND seen.uid=message.uid), "
        ":kept FROM message WHERE mailbox=:box AND uid IN (SELECT value FROM json_each(:chosen))",
        {
            "now": int(time.time()),
            "modseq": box.modseq + 1,
            "holders": holders,
            "box": box.id,
            "chosen": as_list(chosen),
            "kept": int(is_kept),
        },
    )


def keep_carried(
    db: sqlite3.Connection, box_id: int, carried: CarriedRetained, file: str | None
) -> bool:
    """One that was expunged where its mailbox was before, its octets in a file or not; whether it was not here. Who else had
    seen it does not come along."""
    message, incoming = carried.message, carried.incoming
    if incoming is None or is_gone(db, box_id, message.uid):
        return False
    words = spelled(db, box_id, to_keywords(message.flags))
    date, zone = to_seconds(message.internal_date)
    saved = int(message.save_date.timestamp()) if message.save_date else date
    body = insert_body(db, incoming.octets() if file is None else None, file)
    if message.told_size:
        note_size(db, body, message.told_size)
    row = (box_id, message.uid, to_bits(message.flags), words, date, zone, saved)
    octets = (message.size, message.modseq, message.email_id, body)
    values = (*row, *octets, int(carried.at.timestamp()))
    db.execute("INSERT INTO gone VALUES (?,?,?,?,?,?,?,?,?,?,?,?,0,0,'[]',1)", values)
    return True


def is_gone(db: sqlite3.Connection, box_id: int, uid: Uid) -> bool:
    """Whether the octets of this one are here, and are no message's."""
    cursor = db.execute("SELECT 1 FROM gone WHERE mailbox=? AND uid=?", (box_id, uid))
    return cursor.fetchone() is not None


def keep_no_others(
    db: sqlite3.Connection, box_id: int, after: Uid, up_to: Uid, uids: Sequence[Uid]
) -> None:
    """Of the UIDs above `after` up to that one: what comes back where the mailbox was, or is kept there no more."""
    _release(
        db,
        "WHERE mailbox=:box AND kept=1 AND uid>:after AND uid<=:up_to "
        "AND uid NOT IN (SELECT value FROM json_each(:stay))",
        {"box": box_id, "after": after, "up_to": up_to, "stay": as_list(uids)},
    )


def may_let_go(reader: sqlite3.Connection, box_id: int, up_to: ModSeq, holders: int) -> bool:
    """Whether `let_go` would do something."""
    cursor = reader.execute(
        "SELECT 1 FROM gone INDEXED BY gone_held "
        "WHERE mailbox=? AND removed<=? AND holders<>0 AND holders&? LIMIT 1",
        (box_id, up_to, holders),
    )
    return cursor.fetchone() is not None


def let_go(db: sqlite3.Connection, box_id: int, up_to: ModSeq, holders: int) -> None:
    """See murder.api.store.TellsExpunged."""
    db.execute(
        "UPDATE gone INDEXED BY gone_held SET holders=holders&~? "
        "WHERE mailbox=? AND removed<=? AND holders<>0 AND holders&?",
        (holders, box_id, up_to, holders),
    )
    _release(db, "INDEXED BY gone_kept WHERE kept=0 AND holders=0")


# what nobody may read any more, and what is not to come back any more; a clock that was set back makes nothing last that
# is held
OVER: Final = "(at<=:now-:held_s OR at>:now)"
HELD_LONG_ENOUGH: Final = f"INDEXED BY gone_kept WHERE kept=0 AND {OVER}"
KEPT_LONG_ENOUGH: Final = (
    f"INDEXED BY gone_kept WHERE kept=1 AND at<=:now-:keep_s AND (holders=0 OR {OVER})"
)


def has_expired(db: sqlite3.Connection, retention: Retention | None) -> bool:
    """Whether `release_expired` would find something that is over."""
    values = _now(retention)
    wheres = [HELD_LONG_ENOUGH] if retention is None else [HELD_LONG_ENOUGH, KEPT_LONG_ENOUGH]
    cursors = (db.execute(f"SELECT 1 FROM gone {where} LIMIT 1", values) for where in wheres)
    return any(rows.fetchone() is not None for rows in cursors)


def has_too_much(db: sqlite3.Connection, retention: Retention | None) -> bool:
    """Whether more is kept than there is to be."""
    if retention is None:
        return False
    messages, octets = kept_totals(db)
    return messages > retention.most_messages or octets > retention.most_octets


def kept_totals(db: sqlite3.Connection) -> tuple[int, int]:
    """How many messages a root keeps for their return, and their octets."""
    totals = dict(
        db.execute("SELECT key, value FROM meta WHERE key IN ('kept_messages','kept_octets')")
    )
    return totals.get("kept_messages", 0), totals.get("kept_octets", 0)


def _now(retention: Retention | None) -> dict[str, Any]:
    keep_s = 0 if retention is None else int(retention.keep_s)
    return {"now": int(time.time()), "held_s": HELD_S, "keep_s": keep_s}


def release_expired(db: sqlite3.Connection, retention: Retention | None) -> int:
    """Some of what was kept for its time; how many messages."""
    values = _now(retention)
    released = _release(db, HELD_LONG_ENOUGH, values, BATCH)
    if retention is not None:
        released += _release(db, KEPT_LONG_ENOUGH, values, BATCH)
        released += trim(db, retention, BATCH)
    db.execute(
        f"UPDATE gone SET holders=0 WHERE holders<>0 AND kept=1 AND {OVER}",
        values,
    )
    return released


def trim(db: sqlite3.Connection, retention: Retention, most: int) -> int:
    """The oldest of what is kept, where that is more than there is to be; how many messages, up to `most`."""
    if not has_too_much(db, retention):
        return 0
    messages, octets = kept_totals(db)
    doomed: list[tuple[int, int]] = []
    rows = db.execute(
        "SELECT mailbox, uid, size FROM gone INDEXED BY gone_kept WHERE kept=1 ORDER BY at LIMIT ?",
        (most,),
    )
    for mailbox, uid, size in rows.fetchall():
        if messages <= retention.most_messages and octets <= retention.most_octets:
            break
        messages, octets = messages - 1, octets - size
        doomed.append((mailbox, uid))
    for mailbox, uid in doomed:
        _release(db, "WHERE mailbox=:box AND uid=:uid", {"box": mailbox, "uid": uid})
    return len(doomed)


def release_gone(db: sqlite3.Connection, box_id: int) -> None:
    """All of one mailbox: it is another one now."""
    _release(db, "WHERE mailbox=:box", {"box": box_id})


def hold_no_more(db: sqlite3.Connection, box_id: int) -> None:
    """Of one mailbox, which has new numbers: nobody reads what it had; what was kept may come back."""
    db.execute("UPDATE gone SET holders=0 WHERE mailbox=? AND holders<>0", (box_id,))
    _release(db, "WHERE mailbox=:box AND kept=0", {"box": box_id})


def _release(
    db: sqlite3.Connection, where: str, values: dict[str, Any] | None = None, most: int = -1
) -> int:
    rows = db.execute(
        f"SELECT mailbox, uid, body FROM gone {where} LIMIT :most", {**(values or {}), "most": most}
    ).fetchall()
    if rows:
        db.executemany("DELETE FROM gone WHERE mailbox=? AND uid=?", (row[:2] for row in rows))
        release_bodies(db, [row[2] for row in rows])
    count = len(rows)
    free(rows)
    return count
