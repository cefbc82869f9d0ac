"""Plugins that keep the mailbox list of several masters in one order."""

from typing import Final

from murder.api.contract.list_log import LIST_CHECKS
from murder.api.kinds.kind import Kind

TEMPLATE: Final = '''
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from murder.api import hookimpl
from murder.api.list_log import BEGINNING, ListLog, Member, Position, Record, Whole


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    servers: tuple[str, ...] = field(
        default=(),
        metadata={"doc": "host:port of each server."},  # 1. Your own keys.
    )


class @CLASS@:
    """A log in this process's memory: complete, and of use to one master until it ends. murder/api/list_log.py has the
    rules. 2. Put what is kept here where all masters reach it, and where it survives."""

    most_changes = 1000

    def __init__(self) -> None:
        self._epoch = os.urandom(8).hex()
        self._records: list[Record] = []
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def _last(self) -> Position:
        return self._records[-1].position if self._records else BEGINNING

    def append(self, epoch: str, record: Record) -> bool:
        with self._lock:  # 3. One guarded transaction of your servers, durable when they answer.
            if epoch == self._epoch and self._last() == record.position:
                return True  # the answer was lost, and it was done
            if epoch != self._epoch or self._last() != record.after:
                return False
            self._records.append(record)
        for listener in self._listeners:
            listener()
        return True

    def is_last(self, epoch: str, position: Position) -> bool:
        with self._lock:
            return epoch == self._epoch and self._last() == position

    def heard(self, epoch: str, after: Position) -> Sequence[Record]:
        return ()

    def since(self, epoch: str, after: Position) -> Iterable[Record] | Whole:
        with self._lock:
            positions = [BEGINNING, *(record.position for record in self._records)]
            if epoch == self._epoch and after in positions:
                return self._records[positions.index(after) :]
            rows, notes = {}, {}
            for record in self._records:
                notes.update(record.notes)
                for key, row in record.changes:
                    rows.pop(key, None)
                    if row is not None:
                        rows[key] = row
            page = sorted(rows.items())
            return Whole(self._epoch, self._last(), iter([page]), iter(self._records), notes)

    def listen(self, on_news: Callable[[], None]) -> None:
        self._listeners.append(on_news)

    def members(self) -> Sequence[Member]:
        return [Member("memory", "here", True, 0, "")]

    def close(self) -> None:
        pass


@hookimpl
def make_list_log(settings: Settings) -> ListLog:
    """Called once, in the master's process, at the start."""
    return @CLASS@()
'''
LIST: Final = Kind(
    "list",
    "make_list_log",
    "The mailbox list of several masters: the log that they share.",
    LIST_CHECKS,
    TEMPLATE,
    key="mupdate.engine",
    prefix="list_",
    built_in="embedded",
    role="mupdate",
    makes=True,
    methods=("append", "is_last", "heard", "since", "listen", "members", "close"),
)
