"""What SEARCH looks through: a message's text decoded and case-folded.

RFC 3501 §6.4.4; folding as i;unicode-casemap has it (RFC 5051), with Unicode's full case folding. Never raises. Text is
found in text parts and in the headers of the message and of messages within it; not in other parts (as Cyrus).

All texts of a search are looked for in one pass, in which a message is decoded and folded once and piece by piece: what
that costs goes with the message and not with the number of keys, and no more than a few pieces are in memory.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from murder.mime.bounds import bounds
from murder.mime.decode import (
    AS_IT_IS,
    ASCII_CODECS,
    PIECE_OCTETS,
    decoded_pieces,
    text_pieces,
)
from murder.mime.envelope import MISSING_HOST
from murder.mime.field import MAX_VALUE_OCTETS, fields_in, parameter_value
from murder.mime.header import decode_value
from murder.model.charset import codec_of
from murder.model.part import Address, Envelope, Part

MAX_TEXT_OCTETS: Final = 16 * 1024 * 1024  # of one part: more than any mail people have written
FIELDS_AT_ONCE: Final = 50  # of a header, in one step of work
TEXTS_AT_ONCE: Final = 10  # looked for in one step: each may be compared at every place
LINES_AT_ONCE: Final = 200  # of a header without any code, in one step
# What makes a header more than lines of text: an encoded word, NUL, what is not ASCII, a CR alone, a blank before a colon
_NOT_PLAIN: Final = re.compile(rb"=\?|[\x00\x80-\xff]|\r(?!\n)|^[!-9;-~]++[ \t]++:", re.MULTILINE)
_FOLDED: Final = re.compile(r"\n(?=[ \t])")
# combining marks behind one letter that are put in order: UAX #15 §13 (Stream-Safe Text)
MAX_MARKS: Final = 30
_IN_ENVELOPE: Final = frozenset({"subject"})  # of the fields that are looked through as they are
FOLD_CHARACTERS: Final = 512  # Putting marks in order takes time with the square of their number


def fold(text: str) -> str:
    """The form in which texts are compared: two texts that differ only in case or in how accents are composed have the
    same. Linear in the text: more than `MAX_MARKS` marks behind one letter may be left in the order they have."""
    if text.isascii():
        return text.lower()
    folded = []
    at = 0
    while at < len(text):
        end = at + FOLD_CHARACTERS
        if end < len(text):
            end = cut_before_letter(text, end)
        decomposed = unicodedata.normalize("NFKD", text[at:end]).casefold()
        folded.append(unicodedata.normalize("NFKD", decomposed))
        at = end
    return "".join(folded)


def cut_before_letter(text: str, end: int) -> int:
    """Where a text can be cut at or shortly before `end` without taking marks off their letter."""
    for at in range(end, max(end - MAX_MARKS, -1), -1):
        if at >= len(text) or not unicodedata.combining(text[at]):
            return at
    return end


def sort_form(text: str) -> str:
    """What texts are put in order by: as `fold`, but letters stand where capitals do, before `[` and `_`."""
    return fold(text).upper()


def part_pieces(octets: bytes | memoryview, part: Part) -> Iterator[str]:
    """The text of one part, decoded and not folded, piece by piece."""
    end = min(part.body_end, part.body_start + MAX_TEXT_OCTETS)
    body = memoryview(octets)[part.body_start : end]
    decoded = decoded_pieces(body, part.encoding) or decoded_pieces(body, b"")
    return text_pieces(decoded or (), _charset_of(part))


def plain_text(octets: bytes | memoryview, part: Part) -> str | None:
    """The text of a short part, folded, where its octets are just that; None of any other."""
    if part.body_end - part.body_start > PIECE_OCTETS or part.encoding not in AS_IT_IS:
        return None
    body = bytes(octets[part.body_start : part.body_end])
    if not body.isascii() or codec_of(_charset_of(part)) not in ASCII_CODECS:
        return None
    return body.decode("ascii").lower()


def _charset_of(part: Part) -> str:
    return (parameter_value(part.parameters, b"CHARSET") or b"").decode("ascii", "replace")


def folded_pieces(texts: Iterable[str]) -> Iterator[str]:
    """Pieces of one text folded; what they are together is the text's folded form."""
    held = ""
    for piece in texts:
        text = held + piece
        end = cut_before_letter(text, max(0, len(text) - 1)) if not text.isascii() else len(text)
        held = text[end:]
        yield fold(text[:end])
    if held:
        yield fold(held)


def one_spaced(text: str) -> str:
    """Folding leaves white space that nobody sees or would search for; Cyrus and Dovecot disregard it too."""
    return " ".join(text.split())


class Needs(Enum):
    """What has to be known of a message before texts are looked for in it: where its header ends; its parts, too; and
    its envelope, too."""

    HEADER = 1
    PARTS = 2
    ENVELOPE = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """The texts that a search looks for, folded once: `fields` and `addresses` by the field's name in lower case, as
    they were written and as they are compared. `is_little`: so few that a piece is looked through for all in one step.
    `needs`: what has to be known of a message, `envelope`: the fields (upper case) of that which are looked at."""

    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    addresses: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    bodies: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    is_little: bool = False
    needs: Needs = Needs.ENVELOPE
    envelope: frozenset[bytes] = frozenset()

    @property
    def is_in_envelope(self) -> bool:
        """Whether the message's envelope tells all that is asked, where it has the one Subject field."""
        return not self.bodies and self.fields.keys() <= _IN_ENVELOPE


def wanted_texts(
    fields: Iterable[tuple[str, str]] = (),
    addresses: Iterable[tuple[str, str]] = (),
    bodies: Iterable[str] = (),
    texts: Iterable[str] = (),
) -> Wanted:
    """Of names with texts, and texts, as the client has written them."""
    by_field: dict[str, dict[str, str]] = {}
    for name, text in fields:
        by_field.setdefault(name.lower(), {})[text] = one_spaced(fold(text))
    by_address: dict[str, dict[str, str]] = {}
    for name, text in addresses:
        by_address.setdefault(name.lower(), {})[text] = one_spaced(fold(text))
    anywhere = {text: one_spaced(fold(text)) for text in texts}
    within = {text: fold(text) for text in (*bodies, *anywhere)}
    of_fields = [*by_field.values(), *by_address.values()]
    is_little = len(within) + sum(map(len, of_fields)) <= TEXTS_AT_ONCE
    needs = Needs.ENVELOPE if by_address else Needs.PARTS if within else Needs.HEADER
    of_envelope = frozenset(name.upper().encode() for name in by_address)
    return Wanted(by_field, by_address, within, anywhere, is_little, needs, of_envelope)


_ONE_STEP: Final = (None,)


class _Needles:
    """Texts looked for in a haystack that comes in pieces."""

    __slots__ = ("_reach", "_tail", "found", "missing")

    def __init__(self, texts: Iterable[str]) -> None:
        self.missing = set(texts)
        self._reach = max(map(len, self.missing), default=0) - 1
        self._tail = ""
        self.found: set[str] = set()

    def look(self, piece: str, *, goes_on: bool = False) -> Iterable[None]:
        """Each step looks for a few texts. `goes_on`: the next piece is of the same text."""
        window = self._tail + piece if self._tail else piece
        self._tail = window[-self._reach :] if goes_on and self._reach > 0 else ""
        missing = list(self.missing)
        if len(missing) > TEXTS_AT_ONCE:
            return self._look_for(missing, window)
        for text in missing:
            if text in window:
                self._note(text)
        return _ONE_STEP

    def _look_for(self, missing: Sequence[str], window: str) -> Iterator[None]:
        for at in range(0, len(missing), TEXTS_AT_ONCE):
            for text in missing[at : at + TEXTS_AT_ONCE]:
                if text in window:
                    self._note(text)
            yield

    def _note(self, text: str) -> None:
        self.found.add(text)
        self.missing.discard(text)

    def end(self) -> None:
        """What comes next is another text."""
        self._tail = ""


# Where nothing is looked for
_NOTHING: Final = _Needles(())


class Looking:
    """The texts of a search in one message. `in_header` and then `in_body` are to be walked through, each step a short
    piece of work; None is answered to what is not known yet. `is_short`: all steps together are a short piece of work."""

    __slots__ = (
        "_addresses",
        "_anywhere",
        "_body",
        "_fields",
        "_is_body_known",
        "_is_header_known",
        "_octets",
        "_root",
        "_wanted",
        "is_short",
    )

    def __init__(self, octets: bytes | memoryview, root: Part, wanted: Wanted) -> None:
        self._octets = octets
        self._root = root
        self._wanted = wanted
        self.is_short = wanted.is_little and len(octets) <= PIECE_OCTETS
        self._fields = _needles_of(wanted.fields) if wanted.fields else _NO_NEEDLES
        self._addresses = _needles_of(wanted.addresses) if wanted.addresses else _NO_NEEDLES
        self._anywhere = _Needles(wanted.texts.values()) if wanted.texts else _NOTHING
        self._body = _Needles(wanted.bodies.values()) if wanted.bodies else _NOTHING
        self._is_header_known = self._is_body_known = False

    def in_header(self) -> Iterator[None]:
        """The message's own header."""
        if self._fields:
            by_name = {name.upper().encode(): wanted for name, wanted in self._fields.items()}
            header = self._header_of(self._root)
            for at, (name, value, _) in enumerate(fields_in(header, 0, len(header))):
                needles = by_name.get(name)
                if needles is not None:
                    text = one_spaced(fold(decode_value(value[:MAX_VALUE_OCTETS])))
                    yield from needles.look(text)
                elif not at % FIELDS_AT_ONCE:
                    yield
        if self._anywhere.missing:
            for lines in self._lines_of(self._root):
                yield from self._anywhere.look(lines)
        envelope = self._root.envelope or Envelope()
        for field_name, needles in self._addresses.items():
            for address in _ADDRESSES[field_name](envelope):
                for form in _address_forms(address):
                    yield from needles.look(one_spaced(fold(form)))
        self._is_header_known = True

    def in_body(self) -> Iterator[None]:
        """Text parts, and the headers of embedded messages; for TEXT the headers of all parts."""
        waiting = [self._root]
        while waiting and (self._body.missing or self._anywhere.missing):
            part = waiting.pop()
            is_message = part.envelope is not None
            if part is not self._root and (is_message or self._anywhere.missing):
                for lines in self._lines_of(part):
                    yield from self._anywhere.look(lines)
                    if is_message:
                        yield from self._body.look(lines)
            if part.children:
                waiting.extend(reversed(part.children))
            elif part.media[0] == b"TEXT" and self._body.missing:
                if (text := plain_text(self._octets, part)) is not None:
                    yield from self._body.look(text)
                    continue
                for piece in folded_pieces(part_pieces(self._octets, part)):
                    yield from self._body.look(piece, goes_on=True)
                    yield  # also where nothing is left to look for: a piece was decoded
                self._body.end()
            yield
        self._is_body_known = True

    def _header_of(self, part: Part) -> bytes:
        """What is read of a part's header."""
        end = min(part.body_start, part.header_start + bounds().header_octets)
        return bytes(self._octets[part.header_start : end])

    def _lines_of(self, part: Part) -> Iterable[str]:
        """A part's header as it is searched, some fields at once, one a line."""
        header = self._header_of(part)
        is_short = len(header) <= PIECE_OCTETS and header.count(b"\n") <= LINES_AT_ONCE
        if is_short and _NOT_PLAIN.search(header) is None:
            text = header.decode("ascii").lower().replace("\r\n", "\n")
            return (
                "\n".join([" ".join(line.split()) for line in _FOLDED.sub("", text).split("\n")]),
            )
        return _decoded_lines(header)

    def header_has(self, name: str, text: str) -> bool | None:
        if self._wanted.fields[name][text] in self._fields[name].found:
            return True
        return False if self._is_header_known else None

    def addresses_have(self, name: str, text: str) -> bool | None:
        if self._wanted.addresses[name][text] in self._addresses[name].found:
            return True
        return False if self._is_header_known else None

    def body_has(self, text: str) -> bool | None:
        form = self._wanted.bodies[text]
        if not form or form in self._body.found:
            return True
        return False if self._is_body_known else None

    def text_has(self, text: str) -> bool | None:
        form = self._wanted.texts[text]
        if not form or form in self._anywhere.found:
            return True
        return self.body_has(text)


def _needles_of(wanted: Mapping[str, Mapping[str, str]]) -> dict[str, _Needles]:
    return {name: _Needles(texts.values()) for name, texts in wanted.items()}


_NO_NEEDLES: Final[Mapping[str, _Needles]] = MappingProxyType({})
_ADDRESSES: Final = {
    "from": lambda envelope: envelope.from_,
    "to": lambda envelope: envelope.to,
    "cc": lambda envelope: envelope.cc,
    "bcc": lambda envelope: envelope.bcc,
}


def _decoded_lines(header: bytes) -> Iterator[str]:
    some: list[str] = []
    octets = 0
    for name, value, whole in fields_in(header, 0, len(header)):
        field_octets = name + b":" + value[:MAX_VALUE_OCTETS] if name else whole[:MAX_VALUE_OCTETS]
        some.append(decode_value(field_octets))
        octets += len(field_octets)
        if len(some) >= FIELDS_AT_ONCE or octets >= PIECE_OCTETS:
            yield _folded_lines(some)
            some, octets = [], 0
    if some:
        yield _folded_lines(some)


def _folded_lines(lines: Iterable[str]) -> str:
    return "\n".join([one_spaced(line) for line in fold("\n".join(lines)).split("\n")])


def _address_forms(address: Address) -> Iterator[str]:
    """What can be found of an address: as people write it, with its name decoded. Of a group its name."""
    name = decode_value(address.name) if address.name else ""
    mailbox = decode_value(address.mailbox) if address.mailbox else ""
    if address.host is None:
        yield mailbox + ":" if mailbox else ""
        return
    host = decode_value(address.host)
    route = decode_value(address.route) + ":" if address.route else ""
    place = f"{route}{mailbox}@{host}" if address.host != MISSING_HOST else f"{route}{mailbox}"
    yield f"{name} <{place}>" if name else place
    if name and address.name and b'"' not in address.name:
        yield f'"{name}" <{place}>'
    if not name:
        yield f"<{place}>"


def _look_for(octets: bytes | memoryview, root: Part, wanted: Wanted) -> Looking:
    looking = Looking(octets, root, wanted)
    for _ in looking.in_header():
        pass
    for _ in looking.in_body():
        pass
    return looking


def header_has(octets: bytes | memoryview, root: Part, name: str, text: str) -> bool:
    """SEARCH HEADER: a field of this name contains the text; with empty text, is there."""
    looking = _look_for(octets, root, wanted_texts(fields=[(name, text)]))
    return bool(looking.header_has(name.lower(), text))


def addresses_have(octets: bytes | memoryview, root: Part, name: str, text: str) -> bool:
    """SEARCH FROM, TO, CC, BCC: an address of the envelope contains the text, or its name as it is shown."""
    looking = _look_for(octets, root, wanted_texts(addresses=[(name, text)]))
    return bool(looking.addresses_have(name.lower(), text))


def body_has(octets: bytes | memoryview, root: Part, text: str) -> bool:
    """SEARCH BODY. Empty text is in every message."""
    return bool(_look_for(octets, root, wanted_texts(bodies=[text])).body_has(text))


def text_has(octets: bytes | memoryview, root: Part, text: str) -> bool:
    """SEARCH TEXT: a header, of the message or of any part, or the body contains it."""
    return bool(_look_for(octets, root, wanted_texts(texts=[text])).text_has(text))
