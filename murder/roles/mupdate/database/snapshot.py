"""What the list needs of a transaction, whoever stands behind it: LMDB alone, or layers above it (`ahead`).

Octets are `bytes`: py-lmdb's own types allow views.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, overload

import lmdb

Table = lmdb._Database


class Cursor(Protocol):
    """What we use of `lmdb.Cursor`, with octets as `bytes` (py-lmdb's own types allow views)."""

    def first(self) -> bool: ...
    def last(self) -> bool: ...
    def next(self) -> bool: ...
    def set_range(self, key: bytes) -> bool:
        """Stand at the first key that is not below this one; False where there is none."""
        ...

    def key(self) -> bytes: ...
    def value(self) -> bytes: ...
    def delete(self) -> bool:
        """What it stands at; it stands at the next one then."""
        ...

    def put(self, key: bytes, value: bytes) -> bool: ...
    def putmulti(
        self, items: Iterable[tuple[bytes, bytes]], *, append: bool = False
    ) -> tuple[int, int]:
        """How many pairs were taken, and how many of them added; `append`: each lies behind all there are."""
        ...

    @overload
    def iternext(self) -> Iterator[tuple[bytes, bytes]]: ...
    @overload
    def iternext(self, keys: Literal[True], values: Literal[False]) -> Iterator[bytes]: ...


class Snapshot(Protocol):
    """What we use of a read `lmdb.Transaction`."""

    def get(self, key: bytes, *, db: Table) -> bytes | None:
        """None where the key is not there."""
        ...

    def cursor(self, db: Table) -> Cursor: ...
    def stat(self, db: Table) -> dict[str, int]:
        """`entries`, and what else LMDB tells of a table."""
        ...


class ViewCursor(Protocol):
    """What we use of the `lmdb.Cursor` of a transaction that copies nothing."""

    def set_range(self, key: bytes) -> bool: ...
    def iternext(self) -> Iterator[tuple[memoryview | bytes, memoryview | bytes]]: ...


class Viewing(Protocol):
    """What we use of a read `lmdb.Transaction` that copies nothing: its views are of this moment only."""

    def cursor(self, db: Table) -> ViewCursor: ...


class WriteTransaction(Snapshot, Protocol):
    """What we use of a write `lmdb.Transaction`."""

    def put(self, key: bytes, value: bytes, *, append: bool = False, db: Table) -> bool:
        """`append`: the key lies behind all there are."""
        ...

    def pop(self, key: bytes, *, db: Table) -> bytes | None:
        """The value that was there, None where none was."""
        ...

    def delete(self, key: bytes, *, db: Table) -> bool: ...
    def drop(self, db: Table, delete: bool = True) -> None:
        """All keys of a table; with `delete` the table, too."""
        ...
