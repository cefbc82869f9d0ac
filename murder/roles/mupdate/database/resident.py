"""Pages of LMDB's map that this process has looked at: the kernel's, and its memory all the same, as everybody counts it.

They stay until somebody else needs the memory. That is well for a list that is read; who has written much of it, once, has
looked at what nobody asks for again: the access lists of a hierarchy that is renamed, under both names, and the lines of its
index. These are let go of, and whatever is wanted comes back as it is looked at, without the disk.
"""

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

MOST_OCTETS: Final = 8 << 20  # more than there were at the least: else they stay
_DONT_NEED: Final = 4  # MADV_DONTNEED, of a map that is only read: nothing is lost (Linux)
_PLACE: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (?:\S+ +){4}(.*)")


class Resident:
    """Of the map of one file."""

    def __init__(self, file: Path) -> None:
        self._file = os.path.realpath(file)
        self._least = mapped_octets()
        self._has_looked = False

    def look(self) -> None:
        """Who writes has come by many pages: let go of all, where too many are here. A write may go on behind it."""
        self._has_looked = True
        octets = mapped_octets()
        self._least = min(self._least, octets)
        if octets - self._least < MOST_OCTETS:
            return
        with suppress(OSError):  # all files may be taken
            for begin, end in _places_of(self._file):
                _madvise(begin, end - begin)
        self._least = mapped_octets()

    def end(self) -> None:
        """Of a commit, which may have been such a one."""
        if self._has_looked:
            self.look()
            self._has_looked = False


def mapped_octets() -> int:
    """Of all files together that are here; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[2]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _places_of(file: str) -> Iterator[tuple[int, int]]:
    """Addresses at which it is mapped."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            match = _PLACE.match(line)
            if match is not None and match[3] == file:
                yield int(match[1], 16), int(match[2], 16)


def _madvise(address: int, octets: int) -> None:
    ctypes.CDLL(None).madvise(ctypes.c_void_p(address), ctypes.c_size_t(octets), _DONT_NEED)
