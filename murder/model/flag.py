"""Message flags: the system flags, keywords, and one spelling for each.

RFC 3501 §2.3.2, RFC 5788 (keywords). Flags are compared without regard to case; a system flag is always spelt as
in the RFC, a keyword as it was first written. Knows no octets of a protocol.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Final

SEEN: Final = "\\Seen"
ANSWERED: Final = "\\Answered"
FLAGGED: Final = "\\Flagged"
DELETED: Final = "\\Deleted"
DRAFT: Final = "\\Draft"
RECENT: Final = "\\Recent"  # a session's, never stored and never set by a client
ANY_KEYWORD: Final = "\\*"  # in PERMANENTFLAGS: new keywords are welcome

SYSTEM_FLAGS: Final = (ANSWERED, FLAGGED, DRAFT, DELETED, SEEN)  # Cyrus' order in FLAGS
_SYSTEM_BY_FOLD: Final[Mapping[str, str]] = {flag.lower(): flag for flag in (*SYSTEM_FLAGS, RECENT)}
_ORDER: Final[Mapping[str, int]] = {flag: at for at, flag in enumerate((RECENT, *SYSTEM_FLAGS))}

MAX_KEYWORD_OCTETS: Final = 255  # the longest registered has 25
MAX_KEYWORDS_OF_MESSAGE: Final = 128  # Cyrus' MAX_USER_FLAGS, there for a whole mailbox
# of all of them together: 128 of the longest registered ones fit
MAX_KEYWORD_OCTETS_OF_MESSAGE: Final = 4096


def canonical(flag: str) -> str | None:
    """The flag in its one spelling; None for a `\\Word` that is no system flag (clients must not invent them)."""
    if not flag.startswith("\\"):
        return flag
    return _SYSTEM_BY_FOLD.get(flag.lower())


def is_keyword(flag: str) -> bool:
    """Whether users choose it: it is none of the system's."""
    return not flag.startswith("\\")


def fits_message(keywords: Collection[str]) -> bool:
    """Whether one message may have all of these: whoever lists a mailbox is told them of each message."""
    octets = sum(map(len, keywords)) + len(keywords)
    return len(keywords) <= MAX_KEYWORDS_OF_MESSAGE and octets <= MAX_KEYWORD_OCTETS_OF_MESSAGE


def fitting(flags: Iterable[str], kept: Collection[str] = ()) -> list[str]:
    """Of these, in order, what one message may have, where it keeps these keywords: of keywords, those that come first."""
    fits: list[str] = []
    keywords, octets = len(kept), sum(map(len, kept)) + len(kept)
    for flag in in_order(flags):
        if is_keyword(flag):
            keywords, octets = keywords + 1, octets + len(flag) + 1
            if keywords > MAX_KEYWORDS_OF_MESSAGE or octets > MAX_KEYWORD_OCTETS_OF_MESSAGE:
                break
        fits.append(flag)
    return fits


def in_order(flags: Iterable[str]) -> list[str]:
    """For showing: system flags first, then keywords by name, so that the same flags look the same."""
    return sorted(flags, key=lambda flag: (_ORDER.get(flag, len(_ORDER)), flag))


def has_flag(flags: frozenset[str], flag: str) -> bool:
    """Whether `flag` is among `flags`, whatever its case."""
    if flag in flags:
        return True
    fold = flag.lower()
    return any(present.lower() == fold for present in flags)


class FlagChange(Enum):
    """What STORE does to the flags (RFC 3501 §6.4.6)."""

    ADD = "+"
    REMOVE = "-"
    REPLACE = ""
