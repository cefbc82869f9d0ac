"""Messages that a Cyrus has sent ahead of their mailboxes."""

import asyncio
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from murder.net.octets import OctetChannel
from murder.roles.backend.moves.staged import Staged
from murder.wire.dlist import MessageOctets


class Coming:
    """All of a message at once."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    async def some(self, most: int) -> bytes:
        return self._octets[:most]


async def test_what_is_used_up_is_let_go_of_in_a_thread(tmp_path: Path) -> None:
    """The file is gone with that: of 90 MB it held the loop for 9 ms, and of a whole user so many times."""
    octets, closed_in = b"Subject: one\r\n\r\nOne\r\n", asyncio.Queue[int]()
    digest = hashlib.sha1(octets, usedforsecurity=False).hexdigest()
    staged, loop = Staged(tmp_path), asyncio.get_running_loop()
    for _ in range(2):  # what comes later has a file of its own
        message = MessageOctets("default", digest, len(octets))
        await staged.take(message, cast(OctetChannel, Coming(octets)))
        assert staged.read(digest) == octets
        file = cast(Any, staged)._file

        def noted(close: Callable[[], None] = file.close) -> None:
            close()
            loop.call_soon_threadsafe(closed_in.put_nowait, threading.get_ident())

        file.close = noted
        staged.used(digest)
        assert staged.read(digest) is None
        assert await closed_in.get() != threading.get_ident()
