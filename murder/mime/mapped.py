"""Octets of a message that are mapped: what has been looked at of them stands in the memory of this process."""

from mmap import MADV_DONTNEED, mmap
from typing import Final

MAPPED_OCTETS: Final = 1024 * 1024  # of a message that is read on: then they are let go


def let_go(octets: memoryview | bytes) -> None:
    """While whoever they are for takes nothing. They come back as they are looked at."""
    if isinstance(octets, memoryview) and isinstance(octets.obj, mmap):
        octets.obj.madvise(MADV_DONTNEED)
