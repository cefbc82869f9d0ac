"""A log in memory, and masters that share it: the smallest engine there can be, and one that fails as others do."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from murder.api.list_log import BEGINNING, ListLog, Member, Position, Record, Whole
from murder.errors import Misuse, UpstreamFailure, UpstreamKind
from murder.roles.mupdate.commits.engine import Ordered
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.serving.stream import Hub
from plugins.list_etcd.log import EtcdLog
from plugins.list_etcd.settings import Settings
from tests.rooms.mupdate.nodes import JOURNAL_BYTES, Server


class MemoryLog:
    """All commits in a list, behind a lock. `lose` answers of `append` in a hundred: half of them after it was done."""

    most_changes = 1000

    def __init__(self, lose: int = 0, seed: int = 0) -> None:
        self.epoch = "0123456789abcdef"
        self.formerly: set[str] = set()
        self.records: list[Record] = []
        self.forgotten = 0  # of the oldest
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._lose = lose
        self._random = random.Random(seed)
        self.refused = 0
        self.lost = 0

    def _end(self) -> Position:
        return self.records[-1].position if self.records else BEGINNING

    def append(self, epoch: str, record: Record) -> bool:
        with self._lock:
            lost = self._random.randrange(100) < self._lose
            if lost and self._random.random() < 0.5:
                self.lost += 1
                raise UpstreamFailure(UpstreamKind.TIMEOUT, "log.test", "no answer")
            if epoch != self.epoch or self._end() != record.after:
                self.refused += 1
                return False
            self.records.append(record)
            if lost:
                self.lost += 1
                raise UpstreamFailure(UpstreamKind.TIMEOUT, "log.test", "no answer")
        for listener in list(self._listeners):
            listener()
        return True

    def is_last(self, epoch: str, position: Position) -> bool:
        with self._lock:
            return epoch == self.epoch and self._end() == position

    def heard(self, epoch: str, after: Position) -> Sequence[Record]:
        return ()

    def since(self, epoch: str, after: Position) -> Sequence[Record] | Whole:
        with self._lock:
            known = [BEGINNING, *(record.position for record in self.records)]
            if epoch == self.epoch and after in known and known.index(after) >= self.forgotten:
                return self.records[known.index(after) :]
            is_put_back = epoch in self.formerly
            if epoch == self.epoch and after not in known:
                self.formerly.add(self.epoch)
                self.epoch = f"{len(self.formerly):016x}"
                is_put_back = True
            return self.whole(is_put_back)

    def whole(self, is_put_back: bool = False) -> Whole:
        rows: dict[bytes, bytes] = {}
        notes: dict[str, bytes] = {}
        for record in self.records:
            notes.update(record.notes)
            for key, row in record.changes:
                rows.pop(key, None)
                if row is not None:
                    rows[key] = row
        pages: Iterator[Sequence[tuple[bytes, bytes]]] = ([pair] for pair in sorted(rows.items()))
        kept = iter(self.records[self.forgotten :])
        return Whole(self.epoch, self._end(), pages, kept, notes, is_put_back)

    def fill(self, whole: Whole) -> None:
        raise Misuse("no test fills it")

    def listen(self, on_news: Callable[[], None]) -> None:
        self._listeners.append(on_news)

    def members(self) -> Sequence[Member]:
        return []

    def close(self) -> None:
        pass


class Sharing(Server):
    """A master of several."""

    def __init__(self, folder: Path, log: ListLog | Settings, **settings: Any) -> None:
        """The log itself, or where it is on etcd."""
        super().__init__(folder, **settings)
        self.log = log

    def make_log(self) -> ListLog:
        """For this run of the master."""
        return EtcdLog(self.log) if isinstance(self.log, Settings) else self.log

    def open(self) -> None:
        self.mailboxes = MailboxList.open(self.folder, journal_bytes=JOURNAL_BYTES)
        self.hub = Hub(self.mailboxes, self.config.max_stream_backlog_bytes)
        engine = Ordered(self.mailboxes, self.make_log())
        self.ledger = Ledger(self.mailboxes, self.hub.committed, inline=True, engine=engine)

    async def start(self, replica_of: Any = None) -> None:
        await super().start(replica_of)
        assert self.ledger is not None
        await self.ledger.catch_up()
