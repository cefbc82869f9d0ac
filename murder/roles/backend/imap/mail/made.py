"""Octets that are made of a message: a part without its encoding, a message without its NUL, what a program makes of it.

A client may take them as slowly as it likes, and a hundred may ask for the same: what is large waits in a file that has no
name, and goes with the last who reads it.
"""

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
        self._memory = bytearray()
        self._file: BinaryIO | None = None

    def write(self, octets: bytes) -> None:
        """In any thread. Raises Refusal where the disk takes no more."""
        if self._file is None and len(self._memory) + len(octets) <= self._in_memory:
            self._memory += octets
            return
        try:
            if self._file is None:
                self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=_Place.folder))
                self._file.write(self._memory)
                self._memory = bytearray()
            self._file.write(octets)
        except OSError as error:
            raise disk_error(error, _Place.folder or Path(tempfile.gettempdir())) from error

    def octets(self) -> memoryview:
        """All of them; nothing is written behind. Raises Refusal."""
        if self._file is None:
            return memoryview(bytes(self._memory))
        try:
            with self._file as file:
                file.flush()
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise disk_error(error, _Place.folder or Path(tempfile.gettempdir())) from error
