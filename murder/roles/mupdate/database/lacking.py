"""The note of what a master may have lost: when it came without mailboxes that were here, and how many. It stands in the
list itself, written in the transaction that takes their rows away, and goes down to who follows this list.
"""

import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from murder.roles.mupdate.database.change import Change, PutNote

LACKING: Final = "lacking"
LOST: Final = "lost"  # of the same moment: their collation keys, where they are few
MAX_LOST: Final = 10_000  # with 500 octets each at most
MAX_BACK: Final = 100  # of those that have come back are noticed with one question
LATELY_S: Final = 86400.0  # longer than anybody waits for backends
SIZE: Final = struct.Struct("!H")
MOST_DIGITS: Final = 12  # of mailboxes, and seconds: more is no number that anybody has noted


def mark_lacking(count: int, at: float | None = None) -> PutNote:
    """The step that says: a master lacks so many of the mailboxes that were here (`MailboxList.lacks`)."""
    return PutNote(LACKING, b"%.3f %d" % (time.time() if at is None else at, count))


def parse_lacking(octets: bytes | None) -> tuple[float, int]:
    """When (Unix time), and how many; zeros where nobody has noted any."""
    if octets is None:
        return 0.0, 0
    at, count = octets.split()
    return float(at), int(count)


def told_lacking(known: bytes | None, count: bytes, age_s: bytes) -> Change | None:
    """The same as a list has it that this one follows, so many seconds ago; None where nothing new is told, for what is
    noted here (`known`) lasts as long."""
    if not (count.isdigit() and age_s.isdigit()) or max(len(count), len(age_s)) > MOST_DIGITS:
        return None
    at = time.time() - int(age_s)
    return mark_lacking(int(count), at) if at > parse_lacking(known)[0] + 1 else None


def mark_lost(keys: Sequence[bytes], lacking: PutNote) -> PutNote:
    """The step beside `lacking` (of `mark_lacking`) that says which they are: all of them, by their collation keys."""
    of_each = b"".join(SIZE.pack(len(key)) + key for key in keys)
    return PutNote(LOST, lacking.octets + b"\n" + of_each)


def still_lost(
    noted: tuple[bytes | None, bytes | None], is_here: Callable[[bytes], bool]
) -> list[bytes] | None:
    """What was noted lately (LACKING, LOST) and is not here yet, when more is lost: the keys; None where it is not known
    which they are."""
    lacking, lost = noted
    at, _ = parse_lacking(lacking)
    if lacking is None or abs(time.time() - at) >= LATELY_S:
        return []
    keys = _parse_lost(lost, lacking)
    return None if keys is None else [key for key in keys if not is_here(key)]


def _parse_lost(octets: bytes | None, lacking: bytes) -> Iterator[bytes] | None:
    """None where it is not known which they are, or the note is of another moment."""
    if octets is None or not octets.startswith(lacking + b"\n"):
        return None
    return _keys_in(octets, len(lacking) + 1)


def _keys_in(octets: bytes, at: int) -> Iterator[bytes]:
    while at < len(octets):
        begin = at + SIZE.size
        at = begin + SIZE.unpack_from(octets, at)[0]
        yield octets[begin:at]


class Lost:
    """How many a master lacks still, for who reads a list: `note` of this, `is_here` by collation key."""

    def __init__(
        self, note: Callable[[str], bytes | None], is_here: Callable[[bytes], bool]
    ) -> None:
        self._note = note
        self._is_here = is_here
        self._noted: bytes | None = None
        self._keys: deque[bytes] | None = None  # without such as were seen here since

    def count(self, within_s: float) -> int:
        """Of those that were noted in these last seconds. Where it is known which they are, without those that are back; of
        many that are, some more each time."""
        noted = self._note(LACKING)
        at, count = parse_lacking(noted)
        if noted is None or abs(time.time() - at) >= within_s:  # clocks go back, too
            return 0
        if noted != self._noted:
            keys = _parse_lost(self._note(LOST), noted)
            self._noted, self._keys = noted, None if keys is None else deque(keys)
        if self._keys is None:
            return count
        for _ in range(min(MAX_BACK, len(self._keys))):
            if not self._is_here(self._keys[0]):
                self._keys.rotate(-1)  # the next one is asked for next
                break
            self._keys.popleft()
        return len(self._keys)
