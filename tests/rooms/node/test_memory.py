"""A TLS connection's buffer has 256 KiB: where it is cut from pages that others have used, all of it is in memory."""

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, mmap
from murder.node.process.host import LARGE_OCTETS, keep_large_blocks_apart

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
PAGES = LARGE_OCTETS // mmap.PAGESIZE

def in_memory(block):
    pages = ctypes.create_string_buffer(PAGES)
    start = block - block % mmap.PAGESIZE
    assert libc.mincore(start, LARGE_OCTETS, pages) == 0
    return sum(page & 1 for page in pages.raw)

keep_large_blocks_apart()
for _ in range(3):  # by the second, glibc alone has learned to cut them from the heap
    blocks = [libc.malloc(LARGE_OCTETS) for _ in range(40)]
    fresh = sorted(map(in_memory, blocks))
    for block in blocks:
        ctypes.memset(block, 1, LARGE_OCTETS)
    for block in blocks[:-1]:  # the last one keeps the heap from being given back
        libc.free(block)
print(fresh[len(fresh) // 2])
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc here")
def test_what_others_have_used_does_not_come_back_with_a_large_block() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    # pages, of the median: room that Python itself has left in the heap is taken first, and holds a few
    assert int(done.stdout) <= 2
