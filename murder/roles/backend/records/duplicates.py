"""What has been delivered, by Message-ID: so that what arrives twice (two lists, a retry behind a lost reply) is kept once.

An entry is made behind the delivery and flushed before the 250: what is lost in between is delivered twice, never not at
all. Entries are for one mailbox (by its id, so that a new one of the same name begins empty) and expire. One SQLite file
serves all workers; they take turns for one message by a lock on one octet of a file, which the kernel opens where a
worker dies.
"""

import asyncio
import fcntl
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from murder.errors import UpstreamFailure, UpstreamKind
from murder.roles.backend.records.database import open_database

SLOTS: Final = 4096  # messages that are told apart while they wait for each other
RETRY_S: Final = 0.01
PATIENCE_S: Final = 60.0
EXPIRE_EVERY_S: Final = 600.0
BUSY_MS: Final = 10_000
TABLE: Final = "CREATE TABLE IF NOT EXISTS delivered (key BLOB PRIMARY KEY, at REAL NOT NULL) STRICT, WITHOUT ROWID"


def key_of(mailbox_id: str, message_id: bytes) -> bytes:
    return hashlib.sha256(mailbox_id.encode() + b"\0" + message_id).digest()[:20]


class Turns:
    """One at a time for each key, in all workers: by a lock on one octet of a file."""

    def __init__(self, file: Path) -> None:
        """Raises OSError."""
        self._locks = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._tasks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    def close(self) -> None:
        os.close(self._locks)

    @asynccontextmanager
    async def alone(self, key: bytes) -> AsyncIterator[None]:
        """Nobody else, in any worker, is between looking for this key and noting it. Raises UpstreamFailure in the end."""
        slot = int.from_bytes(key[:4], "big") % SLOTS
        async with self._tasks[slot]:
            await self._lock(slot)
            try:
                yield
            finally:
                fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, slot)

    async def _lock(self, slot: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            except OSError:
                if time.monotonic() > deadline:
                    raise UpstreamFailure(
                        UpstreamKind.TIMEOUT, "another worker", "is delivering the same message"
                    ) from None
                await asyncio.sleep(RETRY_S)
            else:
                return


class Duplicates:
    """See the module. `keep_s` is how long an entry counts."""

    def __init__(self, folder: Path, keep_s: float) -> None:
        """Raises OSError, sqlite3.Error, Refusal."""
        folder.mkdir(parents=True, exist_ok=True)
        self._keep_s = keep_s
        self._turns = Turns(folder / "lock")
        self.alone = self._turns.alone
        self._noted: SimpleQueue[bytes] = SimpleQueue()
        self._expire_at = 0.0
        self._writer = ThreadPoolExecutor(1, "duplicates")
        self._db = open_database(folder / "delivered.db", BUSY_MS, [TABLE])

    def close(self) -> None:
        self._writer.shutdown()
        self._db.close()
        self._turns.close()

    async def has(self, key: bytes) -> bool:
        """Whether it was delivered within the time."""
        return await asyncio.wrap_future(self._writer.submit(self._find, key))

    def _find(self, key: bytes) -> bool:
        row = self._db.execute("SELECT at FROM delivered WHERE key=?", (key,)).fetchone()
        return row is not None and row[0] > time.time() - self._keep_s

    async def note(self, key: bytes) -> None:
        """It has been delivered. Durable on return; what is noted at the same time shares a flush."""
        self._noted.put(key)
        await asyncio.wrap_future(self._writer.submit(self._commit))

    def _commit(self) -> None:
        """All that waits; whoever comes behind and finds nothing left has been taken along."""
        now, keys = time.time(), []
        while not self._noted.empty():
            keys.append((self._noted.get(), now))
        if not keys:
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO delivered VALUES (?,?)", keys)
            if now >= self._expire_at:
                self._expire_at = now + EXPIRE_EVERY_S
                self._db.execute("DELETE FROM delivered WHERE at<=?", (now - self._keep_s,))
