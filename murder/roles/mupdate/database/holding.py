"""How much of a list each server holds: mailboxes, and about so many octets of the list's file.

Kept in each commit's line of the log, so that the master can bound what one server's key puts there. A list that was
written before octets were counted has none: they count from then on.
"""

from collections.abc import Mapping
from struct import Struct
from typing import Final, NamedTuple

from murder.roles.mupdate.database.record import FLAGS_AT, SEQ_OCTETS

_HEAD: Final = Struct(">QH")
_MAILBOX_BITS: Final = 28  # of the number; octets are in the others
_MAX_MAILBOXES: Final = (1 << _MAILBOX_BITS) - 1
_MAX_OCTETS: Final = (1 << 64 - _MAILBOX_BITS) - 1
_ROW_OCTETS: Final = 96  # what LMDB and the keys of the indexes add to a row
_LINE_OCTETS: Final = 24  # and to a line of the index, beside the row's key


class Holding(NamedTuple):
    """Of one server. Differences of two may be negative."""

    mailboxes: int = 0
    octets: int = 0

    def plus(self, mailboxes: int, octets: int) -> "Holding":
        return Holding(self.mailboxes + mailboxes, self.octets + octets)


NONE: Final = Holding()


def weight(key: bytes, row: bytes) -> int:
    """About how many octets of the list's file a stored row takes, with its lines of log and index."""
    identifiers = row.count(b"\t", FLAGS_AT) // 2 + 1  # and the owner
    return len(row) + 3 * len(key) + _ROW_OCTETS + identifiers * (len(key) + _LINE_OCTETS)


def weight_of_rows(keys: list[bytes], unnumbered: list[bytes]) -> int:
    """`weight` of many rows together, without their numbers; about."""
    rows = b"".join(unnumbered)
    octets = sum(map(len, keys))
    identifiers = rows.count(b"\t") // 2 + len(keys)
    each = octets // max(len(keys), 1) + _LINE_OCTETS
    fixed = (_ROW_OCTETS + SEQ_OCTETS) * len(keys)
    return len(rows) + 3 * octets + fixed + identifiers * each


def parse_holdings(octets: bytes, at: int) -> dict[bytes, Holding]:
    """`octets and mailboxes (8) length (2) server`, repeated."""
    holdings = {}
    while at < len(octets):
        packed, length = _HEAD.unpack_from(octets, at)
        at += _HEAD.size + length
        held = Holding(packed & _MAX_MAILBOXES, packed >> _MAILBOX_BITS)
        holdings[octets[at - length : at]] = held
    return holdings


def format_holdings(holdings: Mapping[bytes, Holding]) -> bytes:
    """The reverse; servers without mailboxes are left out."""
    return b"".join(
        _HEAD.pack(
            min(max(octets, 0), _MAX_OCTETS) << _MAILBOX_BITS | min(mailboxes, _MAX_MAILBOXES),
            len(server),
        )
        + server
        for server, (mailboxes, octets) in holdings.items()
        if mailboxes > 0
    )
