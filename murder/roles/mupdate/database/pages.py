"""How many pages of LMDB's file a commit touches, about: what bounds its memory, and how long it is written.

A row is on a page of its own, and so may each line of the index be, one for each identifier of its access list. But lines of
one identifier stand in the order of their mailboxes: neighbours with the same access list share pages, and a whole hierarchy
takes little more than the first of it.
"""

from collections.abc import Collection
from itertools import islice
from typing import Final

from murder.roles.mupdate.database.snapshot import Snapshot, Table

ROW_PAGES: Final = 4  # the row's, the log's, and those of the index for server and owner
MOST_PAGES: Final = 4096  # of a commit: 16 MiB, which LMDB keeps in memory for ever
FEW_LINES: Final = 16  # are counted as if each had its page
NEAR_ROWS: Final = 8  # between two neighbours, at most
_PAGE_OCTETS: Final = 4096
_LINE_OCTETS: Final = 64  # twice what is in a line beside the mailbox's key: pages are half full


class Pages:
    """Those of one commit. `count`: so far; from `MOST_PAGES` on, what is to come had better be in the next one."""

    def __init__(self) -> None:
        self.count = 0
        self._last: dict[int, bytes] = {}  # by their identifiers, the last mailbox

    def add(
        self, snapshot: Snapshot, entries: Table, key: bytes, identifiers: Collection[bytes]
    ) -> None:
        """Lines of these, put or removed for the mailbox with this collation key; removed ones of another mailbox are
        elsewhere than those put."""
        lines = len(identifiers)
        if lines <= FEW_LINES:
            self.count += lines
            return
        whose = hash(frozenset(identifiers))
        last, self._last[whose] = self._last.get(whose), key
        if last is not None and _are_near(snapshot, entries, last, key):
            lines = 1 + lines * (2 * len(key) + _LINE_OCTETS) // _PAGE_OCTETS
        self.count += lines


def _are_near(snapshot: Snapshot, entries: Table, here: bytes, other: bytes) -> bool:
    first, second = sorted((here, other))
    cursor = snapshot.cursor(db=entries)
    if not cursor.set_range(first):
        return True
    for key in islice(cursor.iternext(keys=True, values=False), NEAR_ROWS):
        if key >= second:
            return True
    return False
