"""A message's file, mapped; one that is not as long as its row says is damaged, and never told as if it were whole."""

import mmap
import os
from pathlib import Path

from murder.api.disk import DamagedMessageError


def map_message(path: Path, size: int) -> memoryview:
    """Raises DamagedMessageError, FileNotFoundError, OSError."""
    with path.open("rb") as file:
        octets = os.fstat(file.fileno()).st_size
        if octets != size:
            raise DamagedMessageError(path, f"it has {octets} octets, not {size}")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
