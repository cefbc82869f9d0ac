"""What a store tells of a message, and the numbers that name one.

Knows no octets of any protocol and no store.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Final, NamedTuple, NewType, TypeVar

Uid = NewType("Uid", int)  # 1 .. 2**32 - 1, RFC 3501 §2.3.1.1
SeqNum = NewType("SeqNum", int)  # 1 .. EXISTS
ModSeq = NewType("ModSeq", int)  # 1 .. 2**63 - 1, RFC 7162 §3.1
UidValidity = NewType("UidValidity", int)

MAX_UID = Uid(2**32 - 1)
UNSEEN_SIZE = -1


@dataclass(frozen=True, slots=True)
class Message:
    """One message as its mailbox tells it, without its octets.

    `flags` holds system flags as `\\Seen`, `\\Deleted` … in RFC 3501 spelling and keywords as they were
    first written in this mailbox; never `\\Recent`, which belongs to a session. `size` counts octets
    with CRLF line ends; `told_size` those of the message as base IMAP is told it, where that is another (it has NUL), 0
    where it is not, `UNSEEN_SIZE` where nobody has looked. `internal_date` and `save_date` are aware datetimes.
    """

    uid: Uid
    flags: frozenset[str]
    internal_date: datetime
    size: int
    modseq: ModSeq
    save_date: datetime | None = None
    email_id: str = ""  # RFC 8474; "" where the store has none
    thread_id: str = ""
    told_size: int = 0

    @property
    def rfc822_size(self) -> int:
        """What clients are told, which need not be the number of octets."""
        return self.told_size if self.told_size > 0 else self.size


class Flagged(NamedTuple):
    """A message of which only the flags are asked: a tuple, for there may be a million."""

    uid: Uid
    flags: frozenset[str]
    modseq: ModSeq


MANY_FLAGS: Final = 4000  # told in one go: a millisecond or two where each set is another


def portion(messages: Sequence[Message | Flagged], most: int = MANY_FLAGS) -> int:
    """How many of the first of these have no more flags than that together: one at least, where there are any."""
    ends = list(accumulate([len(message.flags) for message in messages]))
    if not ends or ends[-1] <= most:
        return len(ends)
    return max(1, bisect_right(ends, most))


M = TypeVar("M", Message, Flagged, Message | Flagged)


def portions(messages: Sequence[M]) -> Iterator[Sequence[M]]:
    """All of them, so that none is much work to tell."""
    while messages:
        size = portion(messages)
        yield messages[:size]
        messages = messages[size:]


@dataclass(frozen=True, slots=True)
class MailboxStatus:
    """The counts that SELECT and STATUS show (RFC 3501 §6.3.10, RFC 8438, RFC 7162, RFC 9051)."""

    messages: int
    unseen: int
    deleted: int
    size: int  # sum of all RFC822.SIZE
    uid_next: Uid
    uid_validity: UidValidity
    highest_modseq: ModSeq
    recent: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened in a mailbox after a mod-sequence: RFC 7162 §3.2.5's answer, as values.

    `changed` holds new messages and those with new flags, in UID order; `vanished` the UIDs expunged,
    ascending (a UID that appeared and vanished since is in neither or in `vanished` only).
    `complete` is False where the store no longer remembers that far back: the caller then compares with
    `Mailbox.uids()`. Where much has changed `changed` is empty and `many` has the UIDs of all of it, ascending: who wants
    the messages asks for some at a time; they may have changed again by then, or gone.
    """

    highest_modseq: ModSeq
    changed: Sequence[Message]
    vanished: Sequence[Uid]
    complete: bool = True
    many: Sequence[Uid] = ()
