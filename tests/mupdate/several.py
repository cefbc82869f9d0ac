"""A log in memory, and masters that share it: the smallest engine there can be, and one that fails as others do."""

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from murder.errors import UpstreamFailure, UpstreamKind
from murder.mupdate.engine import Ordered, Record
from murder.mupdate.ledger import Ledger
from murder.mupdate.mboxlist import MailboxList
from murder.mupdate.stream import Hub
from murder.mupdate.transaction import Position
from tests.mupdate.nodes import Server


class MemoryLog:
    """All commits in a list, behind a lock. `lose` answers of `append` in a hundred: half of them after it was done."""

    def __init__(self, lose: int = 0, seed: int = 0) -> None:
        self.epoch = "0123456789abcdef"
        self.records: list[Record] = []
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._lose = lose
        self._random = random.Random(seed)
        self.refused = 0
        self.lost = 0

    def _end(self) -> Position:
        return self.records[-1].position if self.records else Position(0, b"")

    def append(self, after: Position, record: Record) -> bool:
        with self._lock:
            lost = self._random.randrange(100) < self._lose
            if lost and self._random.random() < 0.5:
                self.lost += 1
                raise UpstreamFailure(UpstreamKind.TIMEOUT, "log.test", "no answer")
            if self._end() != after:
                self.refused += 1
                return False
            self.records.append(record)
            if lost:
                self.lost += 1
                raise UpstreamFailure(UpstreamKind.TIMEOUT, "log.test", "no answer")
        for listener in list(self._listeners):
            listener()
        return True

    def since(self, after: Position) -> Sequence[Record]:
        with self._lock:
            if after == Position(0, b""):
                return list(self.records)
            at = next(i for i, record in enumerate(self.records) if record.position == after)
            return self.records[at + 1 :]

    def listen(self, on_news: Callable[[], None]) -> None:
        self._listeners.append(on_news)


class Sharing(Server):
    """A master of several."""

    def __init__(self, folder: Path, log: MemoryLog, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.log = log

    def open(self) -> None:
        self.mailboxes = MailboxList.open(self.folder)
        self.hub = Hub(self.mailboxes, self.config.max_stream_backlog_bytes)
        engine = Ordered(self.mailboxes, self.log)
        self.ledger = Ledger(self.mailboxes, self.hub.committed, inline=True, engine=engine)
