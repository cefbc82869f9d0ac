"""How much of a mail is taken apart: a mail can say that it has any number of anything, and each is told to clients.

One for a process: those that a store keeps at delivery are bounded like those that are made when a client asks.
"""

from dataclasses import dataclass
from typing import Final

# of one field; each is told in up to 3 of an envelope's lists, in some 50 octets
MAX_ADDRESSES: Final = 1000
MAX_PARTS: Final = 10_000  # within the whole; as Dovecot
MAX_DEPTH: Final = 100  # multiparts and messages within each other; Cyrus allows 100 too
MAX_HEADER_OCTETS: Final = 1024 * 1024  # of one header; Postfix takes 100 kB, Dovecot parses 10 MB
HEADERS: Final = 4  # so many times that are read of all parts' headers: 10,000 of 400 octets


@dataclass(frozen=True, slots=True)
class Bounds:
    """`addresses` of one header field, `parts` of a message, `levels` of them within each other, `header_octets` of one
    header that are read."""

    addresses: int = MAX_ADDRESSES
    parts: int = MAX_PARTS
    levels: int = MAX_DEPTH
    header_octets: int = MAX_HEADER_OCTETS


class _InForce:
    bounds = Bounds()


def bounds() -> Bounds:
    """Those in force."""
    return _InForce.bounds


def set_bounds(bounds: Bounds) -> None:
    """From now on, in this process."""
    _InForce.bounds = bounds
