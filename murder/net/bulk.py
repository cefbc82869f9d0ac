"""Much that comes at once, and goes on to somebody else: a loop reads on for as long as there is more, for one connection
after the other. Who brings much stands in line once the turn of the loop is late.

Room in the kernel that is made less for a connection, so that less is read of it at once, is no way: with 64 KiB, Linux 6.18
has stopped such connections for good.
"""

import asyncio
import functools
from typing import Final, Protocol

from murder.net.connection import Connection
from murder.net.turns import TURN_S, is_late, stand_in_line

SLICE_OCTETS: Final = 64 * 1024  # written at once
LITTLE_OCTETS: Final = 16 * 1024  # so much goes to a transport as it is
BULK_OCTETS: Final = 32 * 1024  # of one reading: there may be more, and that takes its time


def took_much(connection: Connection, share_s: float = TURN_S) -> None:
    """For a receiver that has got BULK_OCTETS or more at once, and done with them what it does. `share_s`: how long a turn
    of the loop may last before it stands in line."""
    loop = asyncio.get_running_loop()
    if is_late(loop, share_s) and not connection.is_lost and connection.transport.is_reading():
        connection.transport.pause_reading()
        stand_in_line(loop, functools.partial(_read_on, connection))


def _read_on(connection: Connection) -> None:
    if not connection.is_held_back:
        connection.resume_reading()


class Takes(Protocol):
    """Who is written to."""

    @property
    def is_tls(self) -> bool: ...
    def write(self, data: bytes) -> None: ...


def write_much(connection: Takes, data: bytes) -> None:
    """As `Connection.write`. Under TLS a slice at a time: what is written at once and not taken is there twice, as octets
    that wait, and as room in which they were encrypted, which stays for as long as the connection."""
    if len(data) <= SLICE_OCTETS or not connection.is_tls:
        connection.write(data)
        return
    for at in range(0, len(data), SLICE_OCTETS):
        connection.write(data[at : at + SLICE_OCTETS])
