"""What FETCH can be asked for, as values: RFC 3501 §6.4.5 and its extensions. Knows no octets of a protocol."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from murder.model.message import ModSeq
from murder.model.seqset import SeqSet


class Attribute(Enum):
    """An item without arguments; the value is its word on the wire."""

    __hash__ = object.__hash__  # of C: looked up in every FETCH

    FLAGS = "FLAGS"
    UID = "UID"
    INTERNALDATE = "INTERNALDATE"
    RFC822_SIZE = "RFC822.SIZE"
    ENVELOPE = "ENVELOPE"
    BODY = "BODY"  # BODYSTRUCTURE without its extension data
    BODYSTRUCTURE = "BODYSTRUCTURE"
    MODSEQ = "MODSEQ"  # RFC 7162 §3.1.5
    SAVEDATE = "SAVEDATE"  # RFC 8514 §4
    EMAILID = "EMAILID"  # RFC 8474 §5.1
    THREADID = "THREADID"  # RFC 8474 §5.2


@dataclass(frozen=True, slots=True)
class Preview:
    """RFC 8970 §3. `lazy`: only if it costs nothing."""

    lazy: bool = False


class SectionText(Enum):
    """What of a part is meant; the value is its word on the wire."""

    WHOLE = ""  # the body of a part, or the whole message where there is no part number
    HEADER = "HEADER"
    HEADER_FIELDS = "HEADER.FIELDS"
    HEADER_FIELDS_NOT = "HEADER.FIELDS.NOT"
    TEXT = "TEXT"
    MIME = "MIME"


@dataclass(frozen=True, slots=True)
class Section:
    """`[1.2.HEADER.FIELDS (From To)]`: part numbers from the top, what of that part, which fields as written."""

    part: tuple[int, ...] = ()
    text: SectionText = SectionText.WHOLE
    fields: tuple[bytes, ...] = ()


WHOLE_MESSAGE: Final = Section()


class Form(Enum):
    """How the octets of a section were asked for, and thus how the answer is called."""

    BODY = "BODY"
    RFC822 = "RFC822"  # BODY[] under its old name
    RFC822_HEADER = "RFC822.HEADER"  # BODY.PEEK[HEADER]
    RFC822_TEXT = "RFC822.TEXT"  # BODY[TEXT]
    BINARY = "BINARY"  # RFC 3516: the transfer encoding undone
    BINARY_SIZE = "BINARY.SIZE"  # RFC 3516: only how many octets that would be


@dataclass(frozen=True, slots=True)
class BodyItem:
    """Octets of a message. `partial` is (first octet, how many at most). `peek`: `\\Seen` stays as it is."""

    section: Section = WHOLE_MESSAGE
    partial: tuple[int, int] | None = None
    peek: bool = False
    form: Form = Form.BODY

    @property
    def sets_seen(self) -> bool:
        """Whether fetching it sets \\Seen."""
        return not self.peek and self.form is not Form.BINARY_SIZE


FetchItem = Attribute | BodyItem | Preview

FAST: Final[tuple[FetchItem, ...]] = (
    Attribute.FLAGS,
    Attribute.INTERNALDATE,
    Attribute.RFC822_SIZE,
)
ALL: Final[tuple[FetchItem, ...]] = (*FAST, Attribute.ENVELOPE)
FULL: Final[tuple[FetchItem, ...]] = (*ALL, Attribute.BODY)


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A FETCH or UID FETCH. `changed_since` and `vanished`: RFC 7162 §3.1.4.1 and §3.2.6; `partial`: RFC 9394
    §3.2, first and last position (negative: from the end)."""

    sequence: SeqSet
    items: tuple[FetchItem, ...] = field(default=())
    changed_since: ModSeq | None = None
    vanished: bool = False
    partial: tuple[int, int] | None = None

    @property
    def sets_seen(self) -> bool:
        return any(isinstance(item, BodyItem) and item.sets_seen for item in self.items)

    @property
    def needs_octets(self) -> bool:
        """Whether the message itself (or its cached structure) must be looked at."""
        return any(
            isinstance(item, BodyItem | Preview) or item in _FROM_OCTETS for item in self.items
        )


_FROM_OCTETS: Final = frozenset({Attribute.ENVELOPE, Attribute.BODY, Attribute.BODYSTRUCTURE})
