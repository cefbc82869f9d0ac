"""The note of what a master may have lost: when it came without mailboxes that were here, and how many. It stands in the
list itself, written in the transaction that takes their rows away, and goes down to who follows this list.
"""

import time
from typing import Final

from murder.roles.mupdate.database.change import Change, PutNote

LACKING: Final = "lacking"
MOST: Final = 10**12  # mailboxes, and seconds: more is no number that anybody has noted


def mark_lacking(count: int, at: float | None = None) -> Change:
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
    if not (count.isdigit() and age_s.isdigit()) or max(int(count), int(age_s)) > MOST:
        return None
    at = time.time() - int(age_s)
    return mark_lacking(int(count), at) if at > parse_lacking(known)[0] + 1 else None
