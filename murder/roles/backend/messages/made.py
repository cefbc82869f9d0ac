"""Octets that are made of a message: a part without its encoding, a message without its NUL, what a program makes of it.

A client may take them as slowly as it likes, and a hundred may ask for the same: what is large waits in a file that has no
name, and goes with the last who reads it.
"""

import asyncio
import mmap
import tempfile
from pathlib import Path
from typing import BinaryIO, Final, cast

from murder.api.disk import disk_error

IN_MEMORY: Final = 256 * 1024  # octets of one


class _Place:
    folder: Path | None = None


def keep_made_in(folder: Path) -> None:
    """From now on, in this process; before, where the system has its temporary files."""
    _Place.folder = folder


class Made:
    """One. Written once, then read. `in_memory`: so many octets of it at most."""

    __slots__ = ("_file", "_in_memory", "_memory")

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._memory = bytearray()  # all of them, or the last, which the file does not have yet
        self._file: BinaryIO | None = None

    def write(self, octets: bytes) -> None:
        """In a thread, for the disk may take its time. Raises Refusal where it takes no more."""
        self._memory += octets
        if len(self._memory) > self._in_memory:
            self._spill()

    async def take(self, octets: bytes) -> None:
        """As `write`, in the event loop."""
        self._memory += octets
        if len(self._memory) > self._in_memory:
            await asyncio.to_thread(self._spill)

    def octets(self) -> memoryview:
        """All of them; nothing is written behind. In a thread, where there may be many. Raises Refusal."""
        if self._file is None:
            return memoryview(bytes(self._memory))
        self._spill()
        try:
            with self._file as file:
                file.flush()
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise _not_kept(error) from error

    async def taken(self) -> memoryview:
        """As `octets`, in the event loop."""
        if self._file is None:
            return self.octets()
        return await asyncio.to_thread(self.octets)

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=_Place.folder))
            self._file.write(self._memory)
        except OSError as error:
            raise _not_kept(error) from error
        self._memory = bytearray()


def _not_kept(error: OSError) -> BaseException:
    return disk_error(error, _Place.folder or Path(tempfile.gettempdir()))
