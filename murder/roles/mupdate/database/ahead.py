"""What has been acknowledged and is not in LMDB yet: changed keys by table, kept in memory (and in a `journal`) above it.

A `Layer` is what one LMDB commit will bring. A `View` shows LMDB's snapshot with the layers above it as one, behind the
same methods, so that nobody who reads knows which of them has a row. A layer stands on one LMDB commit: a snapshot that is
behind that one has the layer in itself.
"""

import sys
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal, overload

from murder.errors import Misuse
from murder.roles.mupdate.database.snapshot import Cursor, Snapshot, Table

Changed = dict[bytes, bytes | None]
"""Of one table: the value of a key; None where it is removed."""

NOWHERE: Final = object()
KEY_OCTETS: Final = 6  # of a record in the journal, beside key and value,
TABLE_OCTETS: Final = 5  # and of each table


class Layer:
    """What is put and removed, in all tables. `stands_on`: LMDB's number of the commit below."""

    __slots__ = (
        "_highest",
        "_takes",
        "keys",
        "left",
        "more",
        "octets",
        "orders",
        "stands_on",
        "tables",
    )

    def __init__(self, tables: Iterable[Table], stands_on: int) -> None:
        self.tables: dict[Table, Changed] = {table: {} for table in tables}
        self.more: dict[Table, int] = {}  # keys than below, of tables that are counted
        self.stands_on = stands_on
        self.keys = 0  # that have been put or removed, some more than once
        self.octets = 0
        self.left: object = None  # by who has written last, for who writes next; None: look it up
        self._takes = False  # it grows by that alone
        # key that was put then, of tables that were asked for it
        self._highest: dict[Table, bytes] = {}
        self.orders: dict[Table, list[bytes]] = {}  # keys, of tables that were walked through

    def set(self, table: Table, key: bytes, value: bytes | None) -> None:
        """Have this value for a key; None removes it."""
        changed = self.tables[table]
        order = self.orders.get(table)
        if order is not None and key not in changed:
            insort(order, key)
        changed[key] = value

    def order_of(self, table: Table) -> list[bytes]:
        """The changed keys, sorted, and kept so: to begin a walk costs no more where much is ahead. Not to be changed."""
        order = self.orders.get(table)
        if order is None:
            order = self.orders[table] = sorted(self.tables[table])
        return order

    def take(self, other: "Layer") -> None:
        """Have what another layer has, that stood on this one."""
        self._takes = True
        for table, changed in other.tables.items():
            if not changed:
                continue
            mine, order = self.tables[table], self.orders.get(table)
            if order is not None:
                order += [key for key in changed if key not in mine]
                order.sort()  # which is two runs: a merge
            mine.update(changed)
            if table in self._highest:
                self._highest[table] = max(self._highest[table], _highest_put(changed))
        for table, more in other.more.items():
            self.more[table] = self.more.get(table, 0) + more
        self.left = other.left
        self.keys += other.keys
        self.octets += other.octets

    def highest(self, table: Table) -> bytes:
        """The highest key that was put, b"" where none was; it may have been removed since."""
        highest = self._highest.get(table)
        if highest is None:
            highest = _highest_put(self.tables[table])
            if self._takes:
                self._highest[table] = highest
        return highest


def _highest_put(changed: Changed) -> bytes:
    highest = max(changed, default=b"")
    if changed.get(highest) is None:  # that one was removed
        return max((key for key, value in changed.items() if value is not None), default=b"")
    return highest


class View:
    """A snapshot with layers above it, the uppermost first."""

    def __init__(self, below: Snapshot, layers: Sequence[Layer]) -> None:
        self._below = below
        self._layers = layers

    def get(self, key: bytes, *, db: Table) -> bytes | None:
        for layer in self._layers:
            row: Any = layer.tables[db].get(key, NOWHERE)
            if row is not NOWHERE:
                return row  # type: ignore[no-any-return] # a layer has octets or None
        return self._below.get(key, db=db)

    def stat(self, db: Table) -> dict[str, int]:
        """`entries`: of tables that are counted."""
        statistics = self._below.stat(db)
        more = sum(layer.more.get(db, 0) for layer in self._layers)
        return {**statistics, "entries": statistics["entries"] + more}

    def cursor(self, db: Table) -> Cursor:
        if not any(layer.tables[db] for layer in self._layers):
            return self._below.cursor(db=db)
        return _MergedCursor(self._below.cursor(db=db), self._layers, db)


class TooMany(Exception):
    """A draft has more keys than its layer may get, or octets than there is room for."""


class Draft(View):
    """Such a view that can be written to: into a layer of its own, `own`. `counted`: tables whose keys are counted. `most`:
    keys that it may have; at the next one its methods raise TooMany. `most_octets`: what the journal has room for."""

    def __init__(
        self,
        below: Snapshot,
        layers: Sequence[Layer],
        own: Layer,
        counted: frozenset[Table],
        most: int = sys.maxsize,
        most_octets: int = sys.maxsize,
    ) -> None:
        super().__init__(below, (own, *layers))
        self.own = own
        self._counted = counted
        self._most = most
        self._most_octets = most_octets

    @property
    def left(self) -> object:
        """What who wrote here last has left (`Layer.left`): in this draft, or in what it stands on."""
        own = self.own.left
        return self._layers[1].left if own is None and len(self._layers) > 1 else own

    def check_room(self) -> None:
        """Raises TooMany where the journal does not take what is in it. Whoever is to tell others of it asks before."""
        octets = self.own.octets + KEY_OCTETS * self.own.keys + TABLE_OCTETS * len(self.own.tables)
        if octets > self._most_octets:
            raise TooMany

    def put(self, key: bytes, value: bytes, *, append: bool = False, db: Table) -> bool:
        own = self.own
        if db in self._counted and self.get(key, db=db) is None:
            own.more[db] = own.more.get(db, 0) + 1
        if own.orders:
            own.set(db, key, value)
        else:  # the same
            own.tables[db][key] = value
        own.keys += 1
        if own.keys > self._most:
            raise TooMany
        own.octets += len(key) + len(value)
        return True

    def put_row(self, key: bytes, value: bytes, *, is_new: bool, db: Table) -> None:
        """`put` into a table that is counted, for who has just looked it up."""
        own = self.own
        if is_new:
            own.more[db] = own.more.get(db, 0) + 1
        own.set(db, key, value)
        own.keys += 1
        if own.keys > self._most:
            raise TooMany
        own.octets += len(key) + len(value)

    def pop(self, key: bytes, *, db: Table) -> bytes | None:
        value = self.get(key, db=db)
        if value is not None:
            own = self.own
            own.set(db, key, None)
            own.more[db] = own.more.get(db, 0) - 1
            own.keys += 1
            own.octets += len(key)
        return value

    def delete(self, key: bytes, *, db: Table) -> bool:
        if db in self._counted:
            return self.pop(key, db=db) is not None
        self.own.set(db, key, None)  # whether it is there or not
        self.own.keys += 1
        if self.own.keys > self._most:
            raise TooMany
        self.own.octets += len(key)
        return True

    def cursor(self, db: Table) -> Cursor:
        return _MergedCursor(self._below.cursor(db=db), self._layers, db, self)

    def drop(self, db: Table, delete: bool = True) -> None:
        raise Misuse("a whole table is emptied in LMDB, not above it")


class _MergedCursor:
    """One order of LMDB's keys and those above them. A walk does not see what the draft gets meanwhile."""

    def __init__(
        self, below: Cursor, layers: Sequence[Layer], table: Table, draft: Draft | None = None
    ) -> None:
        self._below = below
        self._layers = layers
        self._table = table
        self._draft = draft
        self._item: tuple[bytes, bytes] = (b"", b"")

    def _changes(self, start: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """The keys above LMDB from one on, in order, each as the uppermost layer has it."""
        table = self._table
        layers = [layer for layer in self._layers if layer.tables[table]]
        orders = [layer.order_of(table) for layer in layers]
        if self._draft is not None and layers and layers[0] is self._draft.own:
            orders[0] = orders[0].copy()
        changed = [layer.tables[table] for layer in layers]
        places = [bisect_left(order, start) for order in orders]
        everywhere = range(len(layers))
        while True:
            ahead = [i for i in everywhere if places[i] < len(orders[i])]
            if not ahead:
                return
            key = min(orders[i][places[i]] for i in ahead)
            having = [i for i in ahead if orders[i][places[i]] == key]
            for i in having:
                places[i] += 1
            yield key, changed[having[0]][key]

    def _look(self, key: bytes) -> Any:
        for layer in self._layers:
            row: Any = layer.tables[self._table].get(key, NOWHERE)
            if row is not NOWHERE:
                return row
        return NOWHERE

    def first(self) -> bool:
        return self.set_range(b"")

    def last(self) -> bool:
        """Mostly the highest key that was ever put, or LMDB's own last."""
        highest = max(layer.highest(self._table) for layer in self._layers)
        value = self._look(highest) if highest else None
        below = self._below.last()
        if below and self._below.key() > highest:
            highest, value = self._below.key(), self._below.value()
            value = None if self._look(highest) is None else value
        if value is not None:
            self._item = (highest, value)
            return True
        pair = None
        for pair in self._pairs(b""):  # noqa: B007 - the last one counts
            pass
        if pair is None:
            return False
        self._item = pair
        return True

    def set_range(self, key: bytes) -> bool:
        pair = next(self._pairs(key), None)
        if pair is None:
            return False
        self._item = pair
        return True

    def next(self) -> bool:
        return self.set_range(self._item[0] + b"\0")

    def key(self) -> bytes:
        return self._item[0]

    def value(self) -> bytes:
        return self._item[1]

    @overload
    def iternext(self) -> Iterator[tuple[bytes, bytes]]: ...
    @overload
    def iternext(self, keys: Literal[True], values: Literal[False]) -> Iterator[bytes]: ...
    def iternext(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        """From where it stands; from the beginning where it has not been put anywhere."""
        pairs = self._pairs(self._item[0])
        return pairs if values else (key for key, _ in pairs)

    def _pairs(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """From a key on, in order."""
        above = self._changes(start)
        next_above = next(above, None)
        for pair in self._below.iternext() if self._below.set_range(start) else ():
            is_below = True
            while next_above is not None and next_above[0] <= pair[0]:
                key, value = next_above
                is_below = key != pair[0]
                if value is not None:
                    yield key, value
                next_above = next(above, None)
            if is_below:
                yield pair
        while next_above is not None:
            key, value = next_above
            if value is not None:
                yield key, value
            next_above = next(above, None)

    # Where it may write

    def delete(self) -> bool:
        """As LMDB's: it stands at the next one then."""
        key = self._item[0]
        self._writing().delete(key, db=self._table)
        return self.set_range(key)

    def put(self, key: bytes, value: bytes) -> bool:
        return self._writing().put(key, value, db=self._table)

    def putmulti(
        self, items: Iterable[tuple[bytes, bytes]], *, append: bool = False
    ) -> tuple[int, int]:
        count = 0
        for key, value in items:
            self.put(key, value)
            count += 1
        return count, count

    def _writing(self) -> Draft:
        if self._draft is None:
            raise Misuse("a view only shows")
        return self._draft
