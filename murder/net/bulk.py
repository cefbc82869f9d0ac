"""Much that comes at once, and goes on to somebody else: how large the strokes are in which it is read.

A loop reads up to 256 KiB from a socket, and TLS then has these octets three times: what was read, what is not decrypted,
and what waits for the other end to take it; it keeps the room as long as the connection lives. For one that is some
percents of its processor time well spent; of hundreds whose other ends take nothing it is the memory of the node. So the
first few connections of a process that bring much are read in such strokes, all others in smaller ones.

Who brings much stands in line, too, once the turn of the loop is late: a loop reads on for as long as there is more.
"""

import asyncio
import functools
from typing import Final
from weakref import WeakSet

from murder.net.connection import Connection
from murder.net.turns import is_late, stand_in_line

BULK_OCTETS: Final = 32 * 1024  # of one reading: there may be more, and that takes its time
MOST_WIDE: Final = 16  # connections of a process; TLS keeps about 1 MiB for one
NARROW_OCTETS: Final = 64 * 1024  # of a server, which is near; TLS keeps about 300 KiB
NARROW_FAR_OCTETS: Final = 128 * 1024  # of a client, who sends no more than that in a round trip

_wide: Final[WeakSet[Connection]] = WeakSet()


def took_much(connection: Connection, narrow: int = NARROW_OCTETS) -> None:
    """For a receiver that has got BULK_OCTETS or more at once, and done with them what it does."""
    if connection.most_unread is None and connection.on_known is None and connection not in _wide:
        if len(_wide) < MOST_WIDE:
            _wide.add(connection)
        else:
            connection.read_at_most(narrow)
    loop = asyncio.get_running_loop()
    if is_late(loop) and not connection.is_lost and connection.transport.is_reading():
        connection.transport.pause_reading()
        stand_in_line(loop, functools.partial(_read_on, connection))


def _read_on(connection: Connection) -> None:
    if not connection.is_held_back:
        connection.resume_reading()
