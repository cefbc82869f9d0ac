"""What has been expunged and may still be read by sessions that have not been told (murder.api.KeepsExpunged).

Rows move from `message` to `gone` and hold on to their octets, until every worker that reads the mailbox has let go, or
`KEEP_S` is over: looked for when something is added, when a root is opened, and by a timer for each root that has some.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from murder.api.store import Mailbox, Untold
from murder.kit.bodies import Bodies
from murder.kit.root import Root
from murder.kit.rows import Box, as_list, release_bodies, remove_messages
from murder.model.message import ModSeq, Uid

KEEP_S: Final = 600
MOST_MESSAGES: Final = 10_000  # of one root: each costs some microseconds when it is expunged

EXPIRED: Final = "(at<=:now-:keep OR at>:now)"  # a clock that was set back makes nothing last


class Keeper:
    """Of one store: for whom it keeps, how much, and the timers. `root_of` opens a root by its key."""

    def __init__(self, most_octets: int, root_of: Callable[[str], Root]) -> None:
        self.most_octets = most_octets
        self._root_of = root_of
        self._untold: Untold | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def keep_for(self, untold: Untold) -> None:
        self._untold = untold

    def holders(self, mailbox: Mailbox, key: str) -> int:
        """For whom is to be kept what this reader expunges in the root of that key; 0: for nobody."""
        if self._untold is None or not self.most_octets:
            return 0
        found = self._untold.holders(mailbox)
        if found:
            self.expires(key)
        return found

    def expires(self, key: str) -> None:
        """Something is kept in this root."""
        if key not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(KEEP_S + 1, self._expired, key)

    def _expired(self, key: str) -> None:
        del self._timers[key]
        self.opened(self._root_of(key))

    def opened(self, root: Root) -> None:
        """What was kept for its time is let go of; the rest later."""
        if has_kept(root.reader):
            root.hint(release_expired, durable=True)
            self.expires(root.key)

    def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


def has_kept(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM gone LIMIT 1").fetchone() is not None


def remove_kept(
    db: sqlite3.Connection,
    box: Box,
    uids: Sequence[Uid],
    holders: int,
    most_octets: int,
    bodies: Bodies | None = None,
) -> list[Uid]:
    """As `remove_messages`; what there is room for stays readable for `holders`, its octets set aside."""
    if not holders:
        return remove_messages(db, box, uids)
    release_expired(db)
    now, chosen, kept = int(time.time()), [], []
    messages, octets = db.execute("SELECT count(*), coalesce(sum(size), 0) FROM gone").fetchone()
    for uid, size, body in db.execute(
        "SELECT uid, size, body FROM message WHERE mailbox=? "
        "AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid",
        (box.id, as_list(uids)),
    ):
        if messages >= MOST_MESSAGES:
            break
        if octets + size <= most_octets:
            messages, octets = messages + 1, octets + size
            chosen.append(uid)
            kept.append(body)
    db.execute(
        "INSERT OR REPLACE INTO gone SELECT message.*, :now, :modseq, :holders, "
        "(SELECT json_group_array(reader) FROM seen WHERE seen.mailbox=:box AND seen.uid=message.uid) "
        "FROM message WHERE mailbox=:box AND uid IN (SELECT value FROM json_each(:chosen))",
        {
            "now": now,
            "modseq": box.modseq + 1,
            "holders": holders,
            "box": box.id,
            "chosen": as_list(chosen),
        },
    )
    removed = remove_messages(db, box, uids, frozenset(chosen))
    if bodies is not None:
        for body in kept:
            bodies.set_aside(db, body)
    return removed


def may_let_go(reader: sqlite3.Connection, box_id: int, up_to: ModSeq, holders: int) -> bool:
    """Whether `let_go` would do something."""
    found = reader.execute(
        "SELECT 1 FROM gone WHERE mailbox=? AND removed<=? AND holders&? LIMIT 1",
        (box_id, up_to, holders),
    )
    return found.fetchone() is not None


def let_go(db: sqlite3.Connection, box_id: int, up_to: ModSeq, holders: int) -> None:
    """See murder.api.store.TellsExpunged."""
    db.execute(
        "UPDATE gone SET holders=holders&~? WHERE mailbox=? AND removed<=? AND holders&?",
        (holders, box_id, up_to, holders),
    )
    _release(db, "mailbox=:box AND holders=0", {"box": box_id})


def release_expired(db: sqlite3.Connection) -> bool:
    """Whether something is kept still."""
    _release(db, EXPIRED, {"now": int(time.time()), "keep": KEEP_S})
    return has_kept(db)


def release_gone(db: sqlite3.Connection, box_id: int) -> None:
    """All of one mailbox: it is another one now."""
    _release(db, "mailbox=:box", {"box": box_id})


def _release(db: sqlite3.Connection, where: str, values: dict[str, Any]) -> None:
    rows = db.execute(f"SELECT body FROM gone WHERE {where}", values).fetchall()
    if rows:
        db.execute(f"DELETE FROM gone WHERE {where}", values)
        release_bodies(db, [body for (body,) in rows])
