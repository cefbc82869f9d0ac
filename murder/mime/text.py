"""What SEARCH looks through: a message's text decoded and case-folded.

RFC 3501 §6.4.4; folding as i;unicode-casemap has it (RFC 5051), with Unicode's full case folding. Never raises. Text is
found in text parts and in the headers of the message and of messages within it; not in other parts (as Cyrus).
"""

import unicodedata
from collections.abc import Iterator
from typing import Final

from murder.mime.decode import decode_text, decode_transfer
from murder.mime.field import fields_in, parameter_value
from murder.mime.header import decode_value
from murder.model.part import Part

MAX_TEXT_OCTETS: Final = 16 * 1024 * 1024  # of one part: more than any mail people have written
MAX_MARKS: Final = (
    30  # combining marks behind one letter that are put in order: UAX #15 §13 (Stream-Safe Text)
)
FOLD_CHARACTERS: Final = 256  # Putting marks in order takes time with the square of their number


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
    for at in range(end, end - MAX_MARKS, -1):
        if at >= len(text) or not unicodedata.combining(text[at]):
            return at
    return end


def sort_form(text: str) -> str:
    """What texts are put in order by: as `fold`, but letters stand where capitals do, before `[` and `_`."""
    return fold(text).upper()


def field_values(octets: bytes | memoryview, part: Part, name: str) -> Iterator[str]:
    """The folded values of each field of this name in a part's header."""
    wanted = name.encode("ascii", "replace").upper()
    header = bytes(octets[part.header_start : part.body_start])
    for found, value, _ in fields_in(header, 0, len(header)):
        if found == wanted:
            yield _one_spaced(fold(decode_value(value)))


def header_text(octets: bytes | memoryview, part: Part) -> str:
    """A part's whole header, one field a line, decoded and folded, any white space in it one space."""
    header = bytes(octets[part.header_start : part.body_start])
    lines = [
        _one_spaced(decode_value(name + b":" + value if name else value))
        for name, value, _ in fields_in(header, 0, len(header))
    ]
    return fold("\n".join(lines))


def _one_spaced(text: str) -> str:
    """Folding leaves white space that nobody sees or would search for; Cyrus and Dovecot disregard it too."""
    return " ".join(text.split())


def body_texts(octets: bytes | memoryview, root: Part) -> Iterator[str]:
    """The folded texts in a message's body, one after the other: text parts, and headers of embedded messages."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if part.children:
            if part.is_message:
                yield header_text(octets, part.children[0])
            waiting.extend(reversed(part.children))
        elif part.media[0] == b"TEXT":
            yield fold(part_text(octets, part))


def part_text(octets: bytes | memoryview, part: Part) -> str:
    """The text of one part, decoded and not folded."""
    end = min(part.body_end, part.body_start + MAX_TEXT_OCTETS)
    body = memoryview(octets)[part.body_start : end]
    decoded = decode_transfer(body, part.encoding)
    charset = (parameter_value(part.parameters, b"CHARSET") or b"").decode("ascii", "replace")
    return decode_text(body if decoded is None else decoded, charset)


def header_has(octets: bytes | memoryview, root: Part, name: str, text: str) -> bool:
    """SEARCH HEADER: a field of this name contains the text; with empty text, is there."""
    wanted = _one_spaced(fold(text))
    return any(wanted in value for value in field_values(octets, root, name))


def body_has(octets: bytes | memoryview, root: Part, text: str) -> bool:
    """SEARCH BODY. Empty text is in every message."""
    wanted = fold(text)
    return not wanted or any(wanted in found for found in body_texts(octets, root))


def text_has(octets: bytes | memoryview, root: Part, text: str) -> bool:
    """SEARCH TEXT: a header, of the message or of any part, or the body contains it."""
    wanted = _one_spaced(fold(text))
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if wanted in header_text(octets, part):
            return True
        waiting.extend(part.children)
    return body_has(octets, root, text)
