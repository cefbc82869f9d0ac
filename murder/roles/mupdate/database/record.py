"""A row of the mailbox list as octets in the database, and the keys of its indexes.

A row is `seq (8) flags (1) length of location (2) location acl`, numbers big-endian, under the collation key of
its name. The indexes lead from something's digest to collation keys: LMDB keys hold 511 octets, a name alone
may take 490, so identifiers and servers of any length stand there as 12 octets.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import add
from struct import Struct
from typing import Final, NamedTuple

from murder.model.entry import EntryState, MailboxEntry, parse_location
from murder.model.name import MAX_NAME_OCTETS, MailboxName, collation_key, name_of_key

HEAD: Final = Struct(">QBH")
NUMBER: Final = Struct(">Q")
HEAD_OCTETS: Final = HEAD.size
SEQ_OCTETS: Final = 8
FLAGS_AT: Final = 8

ACTIVE: Final = 1  # else reserved
QUOTABLE: Final = 2  # name, location and ACL may go over the wire as quoted strings, in one line

# a host name has 255, a partition is a word; an LMDB key holds 511
MAX_LOCATION_OCTETS: Final = 500
DIGEST_OCTETS: Final = 12  # 96 bits: nobody finds two user ids with one digest
# RFC 3656 §2: lines of 1024 octets are sure to pass; tag and keyword are in the rest
_LINE_OCTETS: Final = 1000
_LOOKUP_RIGHT: Final = 0x6C  # "l"

# RFC 3656 §2.2: 7 bit, no CR, LF or `"`. No `\` either: Cyrus takes it for an escape as ACAP does. TAB is needed.
_PLAIN: Final = bytes(
    octet
    for octet in range(0x80)
    if octet == 0x09 or (0x20 <= octet < 0x7F and octet not in b'"\\')
)


def is_listable(name: bytes) -> bool:
    """Whether the list can hold this name at all: it must come back from its collation key unharmed."""
    return (
        0 < len(name) <= MAX_NAME_OCTETS and 0x1F not in name and 0 not in name and name[0] != 0xFF
    )


def pack_row(name: bytes, state: EntryState, raw_location: bytes, raw_acl: bytes) -> bytes:
    """A row without its number: eight octets shorter than what is stored, comparable with another."""
    text = name + raw_location + raw_acl
    flags = ACTIVE if state is EntryState.ACTIVE else 0
    if len(text) < _LINE_OCTETS and not text.translate(None, _PLAIN):
        flags |= QUOTABLE
    return HEAD.pack(0, flags, len(raw_location))[SEQ_OCTETS:] + raw_location + raw_acl


class Block(NamedTuple):
    """Collation keys and unnumbered rows (`pack_row`) that belong together, as two columns."""

    keys: list[bytes]
    rows: list[bytes]


def pack_plain_rows(
    names: Sequence[bytes], locations: Sequence[bytes], acls: Sequence[bytes]
) -> Block:
    """Active rows whose octets may all be quoted. Rows that no list can hold are left out. The hot path of a first
    synchronisation."""
    longest, joined = max(map(len, names)), b"\n".join(names)
    octets = longest + max(map(len, locations)) + max(map(len, acls))
    if b"!" in joined or octets >= _LINE_OCTETS or longest > MAX_NAME_OCTETS or b"" in names:
        kept = [
            (collation_key(name), pack_row(name, EntryState.ACTIVE, location, acl))
            for name, location, acl in zip(names, locations, acls, strict=True)
            if 0 < len(name) <= MAX_NAME_OCTETS
        ]
        return Block([key for key, _ in kept], [row for _, row in kept])
    heads = {server: pack_row(b"", EntryState.ACTIVE, server, b"") for server in set(locations)}
    rows = list(map(add, map(heads.__getitem__, locations), acls))
    return Block(joined.translate(_TO_KEY).split(b"\n"), rows)


def unpack_entry(key: bytes, row: bytes) -> MailboxEntry:
    """A stored row as an entry, with its number."""
    seq, flags, length = HEAD.unpack_from(row)
    middle = HEAD_OCTETS + length
    return MailboxEntry(
        name_of_key(key),
        EntryState.ACTIVE if flags & ACTIVE else EntryState.RESERVED,
        row[HEAD_OCTETS:middle],
        row[middle:],
        seq,
    )


_SHORT_OCTETS: Final = 200  # of a row
_unpack_short: Final = lru_cache(maxsize=1024)(unpack_entry)


def entry_of(key: bytes, row: bytes) -> MailboxEntry:
    """As `unpack_entry`, of rows that are asked for again and again."""
    return _unpack_short(key, row) if len(row) <= _SHORT_OCTETS else unpack_entry(key, row)


class Head(NamedTuple):
    """A row without its access list, which may be a hundred times as long."""

    name: MailboxName
    is_active: bool
    raw_location: bytes

    @property
    def server(self) -> str:
        return parse_location(self.raw_location).server


def unpack_head(key: bytes, row: memoryview | bytes) -> Head:
    """A stored row without its access list, of which no octet is copied."""
    _, flags, length = HEAD.unpack_from(row)
    location = bytes(row[HEAD_OCTETS : HEAD_OCTETS + length])
    return Head(name_of_key(key), bool(flags & ACTIVE), location)


def server_of_row(row: bytes) -> bytes:
    """The server part of a stored row's location."""
    length = int.from_bytes(row[FLAGS_AT + 1 : HEAD_OCTETS], "big")
    return row[HEAD_OCTETS : HEAD_OCTETS + length].partition(b"!")[0]


def location_of_row(row: bytes) -> bytes:
    """The location as it was announced, partition and all."""
    length = int.from_bytes(row[FLAGS_AT + 1 : HEAD_OCTETS], "big")
    return row[HEAD_OCTETS : HEAD_OCTETS + length]


def acl_of_row(row: bytes) -> bytes:
    """The access list's octets, copied."""
    length = int.from_bytes(row[FLAGS_AT + 1 : HEAD_OCTETS], "big")
    return row[HEAD_OCTETS + length :]


_TO_KEY: Final = bytes.maketrans(b".", b"\x1f")


def digest(octets: bytes) -> bytes:
    """What stands for an identifier or a server in an index key."""
    return _digest_of_short(octets) if len(octets) <= _SHORT else _digest(octets)


def _digest(octets: bytes) -> bytes:
    return blake2b(octets, digest_size=DIGEST_OCTETS).digest()


_SHORT: Final = 128  # an access list may have an identifier of its whole length
_digest_of_short: Final = lru_cache(maxsize=4096)(_digest)


def octets_of(identifier: str) -> bytes:
    """An identifier as access lists have it: what was no UTF-8 comes back as it was."""
    return identifier.encode("utf-8", "surrogateescape")


def owner_octets(key: bytes) -> bytes:
    """The owner's user id, from a collation key; empty for a shared mailbox (`model.name.owner_of`)."""
    if key[0] == 0xFF:
        domain, _, rest = key[1:].partition(b"!")
    else:
        domain, rest = b"", key
    if not rest.startswith(b"user\x1f"):
        return b""
    local = rest[5:].partition(b"\x1f")[0].replace(b"^", b".")
    return local + b"@" + domain.translate(_DOTS) if domain and local else local


_DOTS: Final = bytes.maketrans(b"\x1f", b".")


def lookers(key: bytes, row: bytes) -> frozenset[bytes]:
    """Whom the row's ACL lets look the mailbox up (`l`), as identifiers; `-` in front where it is taken away.

    The owner is always one of them: they cannot lock themselves out. Reserved rows have no lookers.
    """
    if not row[FLAGS_AT] & ACTIVE:
        return frozenset()
    acl, owner = acl_of_row(row), owner_octets(key)
    if len(acl) <= _COMMON_ACL_OCTETS:
        return _lookers_remembered(acl, owner)
    return lookers_by(acl, owner)


def lookers_by(acl: bytes, owner: bytes) -> frozenset[bytes]:
    """`lookers` of an active row in pieces."""
    fields = acl.split(b"\t")
    # the last one counts, as in `model.acl`
    granted = dict(zip(fields[0::2], fields[1::2], strict=False))
    users = {who for who, rights in granted.items() if who and _LOOKUP_RIGHT in rights}
    if owner:
        users.add(owner)
    return frozenset(users)


def may_look_up(key: bytes, row: bytes, known: frozenset[bytes]) -> bool:
    """Whether somebody known by all these identifiers may, as `lookers` says; of a long access list no more is read than
    it takes to find them."""
    owner, acl = owner_octets(key), acl_of_row(row)
    if not row[FLAGS_AT] & ACTIVE:
        return False
    if len(acl) <= _COMMON_ACL_OCTETS or len(known) > _FEW:
        users = lookers(key, row)
        return not known.isdisjoint(users) and (
            owner in known or not any(b"-" + identifier in users for identifier in known)
        )
    if owner and owner in known:
        return True
    if not any(_LOOKUP_RIGHT in rights_of(acl, identifier) for identifier in known):
        return False
    return not any(_LOOKUP_RIGHT in rights_of(acl, b"-" + identifier) for identifier in known)


def rights_of(acl: bytes, identifier: bytes) -> bytes:
    """What stands behind an identifier in an access list, b"" where it is not there."""
    at = len(acl)
    for _ in range(_MISSES):
        at = acl.rfind(identifier + b"\t", 0, at)
        if at < 0:
            return b""
        if (not at or acl[at - 1] == 9) and not acl.count(b"\t", 0, at) % 2:
            return acl[at + len(identifier) + 1 :].partition(b"\t")[0]
    fields = acl.split(b"\t")  # names within names, or as rights: then all of it
    return dict(zip(fields[0::2], fields[1::2], strict=False)).get(identifier, b"")


_FEW: Final = 8  # identifiers of one user, groups included, that are looked for one by one
_MISSES: Final = 4
_COMMON_ACL_OCTETS: Final = 200
# a user's mailboxes have one ACL mostly; of 50 identifiers a list they are 6 MiB
_lookers_remembered: Final = lru_cache(maxsize=1024)(lookers_by)


def takes_rights_away(row: bytes) -> bool:
    """Whether the row's ACL may have a negative entry; a quick test that errs on the side of yes."""
    return (
        b"\t-" in row
        or row[HEAD_OCTETS + int.from_bytes(row[FLAGS_AT + 1 : HEAD_OCTETS], "big") :][:1] == b"-"
    )


def is_deleted_key(key: bytes) -> bool:
    """Whether the collation key is one of `DELETED.…` (Cyrus' delayed deletes)."""
    rest = key.partition(b"!")[2] if key[0] == 0xFF else key
    return rest.startswith(b"DELETED\x1f")
