"""Shared objects without what is only for debuggers: most of what wheels weigh. Used by build.py, never at run time.

The dynamic linker reads what the program headers name, and nothing else (System V ABI, chapter 5): sections, and the
symbols and debugging records in them, are for linkers and debuggers. Cut off is what lies behind the last segment; what
lies between segments becomes zeros, so that no offset changes. It is done here and not by `strip`, so that the same
sources give the same octets wherever they are built, for another machine's objects too.
"""

import struct
from typing import Final

MAGIC: Final = b"\x7fELF\x02\x01"  # 64 bits, little-endian: all machines that we have wheels for
HEADER_BYTES: Final = 64
E_PHOFF, E_SHOFF, E_PHENTSIZE, E_SHENTSIZE = 32, 40, 54, 58  # where fields of the header stand
P_OFFSET, P_FILESZ = 8, 32  # and of a program header


def without_debugging(octets: bytes) -> bytes:
    """The same shared object, as far as anything is loaded of it; what is no ELF file comes back as it is.

    Raises ValueError for one that is damaged.
    """
    if not octets.startswith(MAGIC):
        return octets
    try:
        kept = _loaded(octets)
    except struct.error:
        raise ValueError("an ELF file that ends within its headers") from None
    end = max(stop for _, stop in kept)
    if end > len(octets):
        raise ValueError(f"an ELF file of {len(octets)} octets that should have {end}")
    loaded = bytearray(end)
    for start, stop in kept:
        loaded[start:stop] = octets[start:stop]
    struct.pack_into("<Q", loaded, E_SHOFF, 0)
    struct.pack_into("<HHH", loaded, E_SHENTSIZE, 0, 0, 0)  # their size, number, and that of names
    return bytes(loaded)


def _loaded(octets: bytes) -> list[tuple[int, int]]:
    """What the linker reads: the header, the program headers, and each segment, as (start, end)."""
    (table,) = struct.unpack_from("<Q", octets, E_PHOFF)
    size, number = struct.unpack_from("<HH", octets, E_PHENTSIZE)
    ranges = [(0, HEADER_BYTES), (table, table + size * number)]
    for at in range(table, table + size * number, size or 1):
        (offset,) = struct.unpack_from("<Q", octets, at + P_OFFSET)
        (length,) = struct.unpack_from("<Q", octets, at + P_FILESZ)
        ranges.append((offset, offset + length))
    return ranges
