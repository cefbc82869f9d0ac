"""External lists (RFC 6134) in files: a value a line; blank lines, and those that begin with `#`, say nothing."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from murder.errors import Code, Refusal, unreadable
from murder.net.turns import aside
from murder.sieve import list_name

URN: Final = "urn"  # the scheme of address books' names
MAX_OCTETS: Final = 16 * 1024 * 1024  # of one file
MAX_MEMBERS: Final = 1000  # that a script is given: it may redirect to a few


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a file had when it was looked at last."""

    stamp: tuple[int, int, int]
    values: Mapping[str, str]  # folded, and as they stand there
    first: tuple[str, ...]


class Lists:
    """Those of one worker."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = {list_name(name): path for name, path in files.items()}
        self._kept: dict[str, _Kept] = {}

    def has(self, name: str) -> bool:
        """Whether there is one of this name."""
        return name in self._files

    def schemes(self) -> Sequence[str]:
        """Of their names, which are URIs; address books are always there (RFC 6134 §2.8)."""
        named = {name.partition(":")[0].lower() for name in self._files if ":" in name}
        return sorted({URN, *named} - {""})

    async def find(self, name: str, value: str) -> str | None:
        """The value as it stands in the list, "" where it does not, None where there is no such list. Letters of ASCII in
        any case. Raises Refusal where its file cannot be read now."""
        kept = await self._look(name)
        return None if kept is None else kept.values.get(_folded(value), "")

    async def members(self, name: str) -> tuple[str, ...] | None:
        """The first of them, in the file's order; None where there is no such list. Raises Refusal."""
        kept = await self._look(name)
        return None if kept is None else kept.first

    async def _look(self, name: str) -> _Kept | None:
        path = self._files.get(name)
        if path is None:
            return None
        try:
            self._kept[name] = kept = await aside(_read, path, self._kept.get(name))
        except OSError as error:
            raise Refusal(Code.UNAVAILABLE, f"{path}: {unreadable(path, error)}") from error
        return kept


def _read(path: Path, kept: _Kept | None) -> _Kept:
    """In a thread. Raises OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if kept is not None and kept.stamp == stamp:
            return kept
        text = file.read(MAX_OCTETS).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines()]
    values = [line for line in lines if line and not line.startswith("#")]
    folded = {_folded(value): value for value in reversed(values)}
    return _Kept(stamp, folded, tuple(values[:MAX_MEMBERS]))


def _folded(value: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in value)
