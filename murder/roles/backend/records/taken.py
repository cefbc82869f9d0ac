"""Which recipients of a mail the next server has taken, noted the moment its word is read: an empty file for each.

The row of the mail is changed behind that, by a commit for which others wait, too. A process that dies in between has left
the files, and the next one reads them before it sends anything. They are not flushed: only where the machine dies in those
milliseconds is a mail sent again.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

ADDRESS_DIGITS: Final = 16
MODE: Final = 0o600


def _digest(recipient: str) -> str:
    octets = recipient.encode("utf-8", "surrogateescape")
    return hashlib.sha256(octets).hexdigest()[:ADDRESS_DIGITS]


class Taken:
    """See the module. `key` names a mail."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def note(self, key: bytes, recipients: Iterable[str]) -> None:
        """From any thread. Raises OSError."""
        for recipient in recipients:
            os.close(os.open(self._file(key, _digest(recipient)), os.O_CREAT | os.O_WRONLY, MODE))

    def left(self) -> Mapping[bytes, frozenset[str]]:
        """What a process that died has noted, by key, for `without`. Raises OSError."""
        by_key: defaultdict[bytes, set[str]] = defaultdict(set)
        for name in os.listdir(self._folder):
            key, _, digest = name.partition(".")
            with suppress(ValueError):
                by_key[bytes.fromhex(key)].add(digest)
        return {key: frozenset(digests) for key, digests in by_key.items()}

    @staticmethod
    def without(recipients: Iterable[str], noted: frozenset[str]) -> tuple[str, ...]:
        """Those of them that are not noted."""
        return tuple(recipient for recipient in recipients if _digest(recipient) not in noted)

    def forget(self, key: bytes, recipients: Iterable[str]) -> None:
        """The row knows."""
        self._forget(key, map(_digest, recipients))

    def forget_left(self, key: bytes, noted: frozenset[str]) -> None:
        """Likewise, of what `left` has told."""
        self._forget(key, noted)

    def _forget(self, key: bytes, digests: Iterable[str]) -> None:
        for digest in digests:
            with suppress(FileNotFoundError):
                os.unlink(self._file(key, digest))

    def _file(self, key: bytes, digest: str) -> Path:
        return self._folder / f"{key.hex()}.{digest}"
