"""Lines of the list's index for many new rows at once: collected by what stands in front of them, written in order.

Knows how neighbours look: they mostly have one owner, one ACL and few locations, so that what was worked out for one row
holds for those behind it. Written in key order, a whole index takes a fraction of what single lines take.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, repeat
from typing import Final

from murder.roles.mupdate.database.record import (
    ACTIVE,
    FLAGS_AT,
    HEAD_OCTETS,
    SEQ_OCTETS,
    Block,
    acl_of_row,
    digest,
    lookers,
    lookers_by,
    owner_octets,
)
from murder.roles.mupdate.database.snapshot import Table, WriteTransaction

_LOOKER, _SERVER = b"L", b"S"
USER_KEY: Final = b"user\x1f"
NOTHING: Final = b""
ROW_HEAD_OCTETS: Final = HEAD_OCTETS - SEQ_OCTETS  # of an unnumbered row
COMMON_ROW_OCTETS: Final = 600  # what is worked out for longer rows is not remembered
MOST_KNOWN: Final = 20_000
_LINE_OCTETS: Final = 8  # a reference: the key itself is in the block, and shared
_HEAD_OCTETS: Final = 200  # an identifier's list, and what stands in front of its lines


def head_of_looker(identifier: bytes) -> bytes:
    """What stands in front of the keys of all mailboxes that this identifier may look up."""
    return _LOOKER + digest(identifier)


def head_of_server(server: bytes) -> bytes:
    """What stands in front of the keys of all mailboxes of a server."""
    return _SERVER + digest(server)


known_head_of_server: Final = lru_cache(maxsize=256)(head_of_server)


def heads_of_lookers(key: bytes, row: bytes) -> frozenset[bytes]:
    """Of all who may look up a stored row of common length. What is taken away has no line: it is read from the row."""
    if not row[FLAGS_AT] & ACTIVE:
        return frozenset()
    return _known_heads(acl_of_row(row), owner_octets(key))


@lru_cache(maxsize=1024)  # a user's mailboxes have one access list mostly
def _known_heads(acl: bytes, owner: bytes) -> frozenset[bytes]:
    return frozenset(
        head_of_looker(identifier)
        for identifier in lookers_by(acl, owner)
        if not identifier.startswith(b"-")
    )


def owned_below(key: bytes) -> bytes:
    """What the keys of the other mailboxes of its owner begin with, INBOX left out; what no key begins with where it has
    none."""
    if not key.startswith(USER_KEY):
        return b"\xff\xff"
    end = key.find(b"\x1f", len(USER_KEY))
    return key + b"\x1f" if end < 0 else key[: end + 1]


Places = Sequence[Callable[[bytes], None]]


class IndexLines:
    """The lines of rows that are in the list and not yet in its index."""

    def __init__(self) -> None:
        self.rows = 0
        self.octets = 0  # of memory, about, that they take
        self._keys: dict[bytes, list[bytes]] = {}
        self._servers: dict[bytes, list[bytes]] = {}
        self._shared: dict[bytes, Places] = {}

    def add(self, block: Block) -> dict[bytes, int]:
        """New rows, in order; how many there are of each server."""
        before = {server: len(keys) for server, keys in self._servers.items()}
        owned = b"\0"  # what the present owner's keys begin with
        octets = 0
        known: dict[bytes, Places] = {}  # of rows that differ by name only, or of shared ones
        for key, row in zip(block.keys, block.rows, strict=True):
            if not key.startswith(owned):
                owned = owned_below(key)
                is_shared = key[0] != 0xFF and not key.startswith(USER_KEY)
                known = self._shared if is_shared else {}
            places = known.get(row)
            if places is None:
                places = self._places(key, row, known)
                if len(row) <= COMMON_ROW_OCTETS and len(known) < MOST_KNOWN:
                    known[row] = places
            octets += len(places) * _LINE_OCTETS
            for append in places:
                append(key)
        self.rows += len(block.keys)
        self.octets += octets
        return {server: len(keys) - before.get(server, 0) for server, keys in self._servers.items()}

    def _places(self, key: bytes, row: bytes, known: dict[bytes, Places]) -> Places:
        """Where the keys of such rows go: to their server's, and to everybody's who may look them up."""
        middle = ROW_HEAD_OCTETS + (row[1] << 8 | row[2])
        server = row[ROW_HEAD_OCTETS:middle].partition(b"!")[0]
        rights = b"\xff" + row[:1] + row[middle:]  # no row begins so
        lookers_of = known.get(rights)
        if lookers_of is None:
            lookers_of = [
                self._keys_of(head_of_looker(looker)).append
                for looker in lookers(key, bytes(SEQ_OCTETS) + row)
                if not looker.startswith(b"-")
            ]
            if len(row) <= COMMON_ROW_OCTETS and len(known) < MOST_KNOWN:
                known[rights] = lookers_of
        keys = self._servers.get(server)
        if keys is None:
            keys = self._servers[server] = self._keys_of(head_of_server(server))
        return [keys.append, *lookers_of]

    def _keys_of(self, head: bytes) -> list[bytes]:
        keys = self._keys.get(head)
        if keys is None:
            keys = self._keys[head] = []
            self.octets += _HEAD_OCTETS
        return keys

    def write(self, transaction: WriteTransaction, index: Table) -> None:
        """Put them all, and forget them."""
        lines = self._lines()
        first = next(lines, None)
        if first is None:
            return
        cursor = transaction.cursor(db=index)
        append = not cursor.last() or cursor.key() < first[0]
        cursor.put(*first)
        cursor.putmulti(lines, append=append)
        self._keys, self._servers, self._shared = {}, {}, {}
        self.rows = self.octets = 0

    def _lines(self) -> Iterator[tuple[bytes, bytes]]:
        return chain.from_iterable(
            zip(map(head.__add__, self._keys[head]), repeat(NOTHING), strict=False)
            for head in sorted(self._keys)
        )
