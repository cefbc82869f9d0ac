"""Messages that have come ahead of the mailboxes that hold them: their octets by digest, in one nameless file."""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from murder.api.turns import behind
from murder.errors import Code, Refusal
from murder.net.octets import OctetChannel
from murder.wire.dlist import MessageOctets

PIECE_OCTETS = 256 * 1024


class Staged:
    """See the module. The file is gone with the process; what it held is then sent again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._end = 0
        self._places: dict[str, tuple[int, int]] = {}

    async def take(self, message: MessageOctets, channel: OctetChannel) -> None:
        """Read a message's octets from the peer. Raises UpstreamFailure; Refusal where they are not what they should
        be, with the stream behind them."""
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)
        start, digest, left = self._end, hashlib.sha1(usedforsecurity=False), message.length
        problem = ""
        while left:
            octets = await channel.some(min(left, PIECE_OCTETS))
            left -= len(octets)
            digest.update(octets)
            try:
                os.pwrite(self._file.fileno(), octets, self._end)
            except OSError as error:
                problem = f"{self._folder}: {error.strerror}"
            self._end += len(octets)
        if problem:
            raise Refusal(Code.OVER_QUOTA, problem)
        if digest.hexdigest() != message.digest:
            raise Refusal(Code.CANNOT, f"The octets of message {message.digest} do not match")
        self._places[message.digest] = (start, message.length)

    def read(self, digest: str) -> bytes | None:
        """The octets of a message; None where it has not come."""
        place = self._places.get(digest)
        if place is None or self._file is None:
            return None
        return os.pread(self._file.fileno(), place[1], place[0])

    def used(self, digest: str) -> None:
        """It is in the store. When all are, their place is given free."""
        self._places.pop(digest, None)
        if not self._places:
            self.clear()

    def clear(self) -> None:
        self._places.clear()
        self._end = 0
        file, self._file = self._file, None
        if file is not None:  # which is gone with that: the system takes its time with a large one
            try:
                behind(_close, file)
            except RuntimeError:  # no thread can be had: then all at once
                _close(file)


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # nobody wants what it held
        file.close()
