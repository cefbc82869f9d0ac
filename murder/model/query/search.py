"""What SEARCH, SORT and THREAD can ask for: a tree of criteria, and how the answer is wanted.

RFC 3501 §6.4.4 with RFC 4731 (ESEARCH), 5182 (SEARCHRES), 5032 (WITHIN), 7162 (MODSEQ), 8474 (OBJECTID), 8514
(SAVEDATE), 9394 (PARTIAL), 5256 (SORT, THREAD), 5957 (SORT=DISPLAY). Values only: text is decoded, dates are
`date`, flags have their one spelling. Knows no octets of a protocol.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Final

from murder.model.message import ModSeq
from murder.model.query.fetch import FetchItem
from murder.model.seqset import Ranges, SeqSet


@dataclass(frozen=True, slots=True)
class All:
    """Every message."""


@dataclass(frozen=True, slots=True)
class And:
    """Every one of the criteria holds."""

    keys: "tuple[SearchKey, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    first: "SearchKey"
    second: "SearchKey"


@dataclass(frozen=True, slots=True)
class Not:
    key: "SearchKey"


@dataclass(frozen=True, slots=True)
class Fuzzy:
    """RFC 6203: the server may match loosely."""

    key: "SearchKey"


@dataclass(frozen=True, slots=True)
class SeqNumIn:
    sequence: SeqSet


@dataclass(frozen=True, slots=True)
class UidIn:
    sequence: SeqSet


@dataclass(frozen=True, slots=True)
class HasFlag:
    """A system flag or keyword; `\\Recent` included. UNSEEN is Not(HasFlag), NEW is And(Recent, Not(Seen))."""

    flag: str


class DateOf(Enum):
    """Which date is compared."""

    INTERNAL = "INTERNALDATE"
    SENT = "Date"  # of the Date header field
    SAVED = "SAVEDATE"  # RFC 8514; messages without one count with their internal date


class Relation(Enum):
    """How a day stands to the one that is asked for."""

    BEFORE = "BEFORE"
    ON = "ON"
    SINCE = "SINCE"  # that day or later


@dataclass(frozen=True, slots=True)
class DateIs:
    """Compares days, disregarding time and zone (the day as written in the message)."""

    of: DateOf
    relation: Relation
    day: date


@dataclass(frozen=True, slots=True)
class SaveDateSupported:
    """RFC 8514 §4.3: all messages if the mailbox keeps save dates, else none."""


@dataclass(frozen=True, slots=True)
class SizeIs:
    """`larger`: more than `octets`; else fewer."""

    larger: bool
    octets: int


@dataclass(frozen=True, slots=True)
class YoungerThan:
    """RFC 5032: internal date within the last `interval_s` seconds; OLDER is its Not."""

    interval_s: int


@dataclass(frozen=True, slots=True)
class HeaderHas:
    """A field of this name (lower case) contains `text`; with empty text it only has to be there. SUBJECT is this too."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class AddressHas:
    """BCC, CC, FROM, TO (`field`, in lower case): an address of the envelope, as it is written and shown, contains
    `text`."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class BodyHas:
    """In the text of its parts, header fields not counted (RFC 3501 §6.4.4)."""

    text: str


@dataclass(frozen=True, slots=True)
class TextHas:
    """Header or body contains `text`."""

    text: str


@dataclass(frozen=True, slots=True)
class ModSeqFrom:
    """RFC 7162 §3.1.5: mod-sequence is `modseq` or above."""

    modseq: ModSeq


@dataclass(frozen=True, slots=True)
class EmailIdIs:
    """RFC 8474 §6."""

    email_id: str


@dataclass(frozen=True, slots=True)
class ThreadIdIs:
    """RFC 8474 §6."""

    thread_id: str


SearchKey = (
    All
    | And
    | Or
    | Not
    | Fuzzy
    | SeqNumIn
    | UidIn
    | HasFlag
    | DateIs
    | SaveDateSupported
    | SizeIs
    | YoungerThan
    | HeaderHas
    | AddressHas
    | BodyHas
    | TextHas
    | ModSeqFrom
    | EmailIdIs
    | ThreadIdIs
)


def walk(key: SearchKey) -> Sequence[SearchKey]:
    """The key and every key in it, outermost first; without recursion."""
    waiting, keys_in = [key], []
    while waiting:
        present = waiting.pop()
        keys_in.append(present)
        match present:
            case And(keys):
                waiting.extend(reversed(keys))
            case Or(first, second):
                waiting.extend((second, first))
            case Not(inner) | Fuzzy(inner):
                waiting.append(inner)
            case _:
                pass
    return keys_in


def uses_modseq(key: SearchKey) -> bool:
    """Whether the answer must tell a MODSEQ, and CONDSTORE is thereby enabled (RFC 7162 §3.1.5)."""
    for inner in walk(key):  # a loop: these are asked before every search
        if isinstance(inner, ModSeqFrom):
            return True
    return False


def has_numbers(key: SearchKey) -> bool:
    """Whether sequence numbers are asked for: no removal may then be told with the answer (RFC 7162 §3.2.10.2)."""
    for inner in walk(key):
        if isinstance(inner, SeqNumIn) and not inner.sequence.is_saved:
            return True
    return False


def uses_saved(key: SearchKey) -> bool:
    """Whether `$` is asked for (RFC 5182)."""
    for inner in walk(key):
        if isinstance(inner, (SeqNumIn, UidIn)) and inner.sequence.is_saved:
            return True
    return False


def needs_octets(key: SearchKey) -> bool:
    """Whether some criterion looks into the message itself."""
    return any(
        isinstance(inner, HeaderHas | AddressHas | BodyHas | TextHas)
        or (isinstance(inner, DateIs) and inner.of is DateOf.SENT)
        for inner in walk(key)
    )


class ReturnOption(Enum):
    """RFC 4731 §3.1, RFC 5182, RFC 5267, RFC 9394, RFC 6203."""

    MIN = "MIN"
    MAX = "MAX"
    ALL = "ALL"
    COUNT = "COUNT"
    SAVE = "SAVE"
    PARTIAL = "PARTIAL"
    UPDATE = "UPDATE"
    CONTEXT = "CONTEXT"
    RELEVANCY = "RELEVANCY"


class SortKey(Enum):
    """RFC 5256 §3, RFC 5957."""

    ARRIVAL = "ARRIVAL"
    CC = "CC"
    DATE = "DATE"
    FROM = "FROM"
    SIZE = "SIZE"
    SUBJECT = "SUBJECT"
    TO = "TO"
    DISPLAYFROM = "DISPLAYFROM"
    DISPLAYTO = "DISPLAYTO"


@dataclass(frozen=True, slots=True)
class SortOrder:
    """One criterion of SORT (RFC 5256 §3)."""

    key: SortKey
    reverse: bool = False


class ThreadAlgorithm(Enum):
    """RFC 5256 §3."""

    ORDEREDSUBJECT = "ORDEREDSUBJECT"
    REFERENCES = "REFERENCES"


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A SEARCH, or the search in a SORT or THREAD.

    `returns` is None where the client did not say RETURN: the answer is then an untagged SEARCH (or SORT); an empty
    RETURN () has become {ALL}. `partial` is RFC 9394's first and last position (negative: from the end); `update_items`
    what UPDATE wants to be told of new messages that are found (RFC 5465 §7).
    """

    key: SearchKey
    charset: str = "US-ASCII"
    returns: frozenset[ReturnOption] | None = None
    partial: tuple[int, int] | None = None
    sort: tuple[SortOrder, ...] = ()
    thread: ThreadAlgorithm | None = None
    update_items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What an ESEARCH response tells. None: not asked for, or nothing found (MIN, MAX, ALL)."""

    least: int | None = None
    greatest: int | None = None
    count: int | None = None
    all: Ranges | None = None
    modseq: ModSeq | None = None
    partial: tuple[tuple[int, int], Ranges] | None = None


DEFAULT_RETURNS: Final = frozenset({ReturnOption.ALL})
