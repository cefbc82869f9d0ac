"""A row of the mailbox list: which mailbox is where, who may see it.

RFC 3656 says "slave" for a server that follows the master; this project says *replica* everywhere.
Locations and access lists are opaque octets here, returned as they came (a real Cyrus compares them
byte by byte); `Location` and `model.acl` read them where their meaning is needed.
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from murder.model.name import MailboxName


class EntryState(Enum):
    """RFC 3656 §2: RESERVE takes a name, ACTIVATE makes it visible."""

    RESERVED = "reserved"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Location:
    """`server!partition`. The partition may be empty, as real Cyrus sends it after a RENAME."""

    server: str
    partition: str = ""

    def __str__(self) -> str:
        return f"{self.server}!{self.partition}"

    def __bytes__(self) -> bytes:
        return str(self).encode("utf-8", "surrogateescape")


def parse_location(raw_location: bytes) -> Location:
    """Split at the first `!`, as Cyrus does; without one the partition is empty."""
    if len(raw_location) > SHORT_OCTETS:
        return _split(raw_location)
    return parse_short_location(raw_location)


def _split(raw_location: bytes) -> Location:
    server, _, partition = raw_location.decode("utf-8", "surrogateescape").partition("!")
    return Location(server, partition)


# That a location of the list has at most; a client may write what it likes
SHORT_OCTETS: Final = 500
# For who has looked that it is no longer; a murder has so many, not more
parse_short_location: Final = lru_cache(maxsize=256)(_split)


class MailboxEntry(NamedTuple):
    """One mailbox of the list. `seq` is the sequence number of its last change on its master (0: none). A tuple,
    because a master makes one of each change, and whoever looks a mailbox up: a frozen dataclass takes more than twice as
    long to make."""

    name: MailboxName
    state: EntryState
    raw_location: bytes
    raw_acl: bytes = b""
    seq: int = 0

    @property
    def location(self) -> Location:
        return parse_location(self.raw_location)

    @property
    def server(self) -> str:
        """Its location without the partition."""
        return self.location.server

    @property
    def is_active(self) -> bool:
        return self.state is EntryState.ACTIVE
