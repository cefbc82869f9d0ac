"""Where `BODY[1.2.HEADER]` and its like are in a message: RFC 3501 §6.4.5, RFC 3516 (BINARY).

Works on a parsed structure; never raises for any section but where a transfer encoding is not known.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from murder.errors import Code, Refusal
from murder.mime.decode import AS_IT_IS, decoded_pieces
from murder.mime.field import fields_in
from murder.model.part import Part
from murder.model.query.fetch import Section, SectionText

MAX_SELECTED_OCTETS: Final = 4 * 1024 * 1024  # of a header in which fields are looked for
# of one header that are known by their names: each takes some 300 octets
MAX_FIELDS: Final = 10_000


def find_part(root: Part, path: tuple[int, ...]) -> tuple[Part, bool] | None:
    """The part of these numbers, and whether it stands for a whole message (only the root of no numbers does).

    A message that is no multipart has one part, 1: its body. Numbers go on inside a message/rfc822 as if it were the
    whole message.
    """
    part, is_root = root, True
    for number in path:
        if not is_root and part.is_message:
            part, is_root = part.children[0], True
        if part.is_multipart:
            if number > len(part.children):
                return None
            part = part.children[number - 1]
        elif not is_root or number != 1:
            return None
        is_root = False
    return part, is_root


def octets_of(octets: memoryview, root: Part, section: Section) -> memoryview | bytes | None:
    """The octets of a section: a slice of the message where they stand together, or assembled (header fields). None:
    there is no such part."""
    place = find_part(root, section.part)
    if place is None:
        return None
    part, is_root = place
    match section.text:
        case SectionText.WHOLE:
            return octets[part.header_start if is_root else part.body_start : part.body_end]
        case SectionText.MIME:
            return octets[part.header_start : part.body_start]
    if not is_root:  # what follows is asked of messages only
        if not part.is_message:
            return None
        part = part.children[0]
    match section.text:
        case SectionText.HEADER:
            return octets[part.header_start : part.body_start]
        case SectionText.TEXT:
            return octets[part.body_start : part.body_end]
        case SectionText.HEADER_FIELDS | SectionText.HEADER_FIELDS_NOT:
            header = bytes(octets[part.header_start : part.body_start])
            wanted = section.text is SectionText.HEADER_FIELDS
            return select_fields(header, section.fields, wanted)


class HeaderFields:
    """The fields of one header by their names, so that much can be asked of a long one."""

    __slots__ = ("_by_name", "_header", "_rest", "_wholes")

    def __init__(self, header: memoryview | bytes) -> None:
        self._header = memoryview(header)
        self._wholes: list[bytes] = []
        self._rest = len(header)  # behind MAX_FIELDS: no field that is asked for begins there
        self._by_name: dict[bytes, list[int]] = {}  # places in `_wholes`

    def read(self) -> Iterator[None]:
        """To be walked through before anything is asked: each step is a field."""
        end = 0
        header = self._header
        for name, _, whole in fields_in(header, 0, len(header)):  # type: ignore[arg-type] # any buffer can be searched
            if len(self._wholes) >= MAX_FIELDS:
                self._rest = end
                return
            self._by_name.setdefault(name, []).append(len(self._wholes))
            self._wholes.append(whole)
            end += len(whole)
            yield

    def select(self, names: tuple[bytes, ...], wanted: bool) -> bytes:
        """The fields of these names (or, not wanted, all others) and a blank line, also where the header has none."""
        chosen = {name.upper().rstrip(b" \t") for name in names}
        places: Iterable[int] = sorted(
            chain.from_iterable(self._by_name.get(name, ()) for name in chosen)
        )
        if not wanted:
            left_out = set(places)
            places = (at for at in range(len(self._wholes)) if at not in left_out)
        pieces = [self._wholes[at] for at in places]
        if not wanted:
            pieces.append(self._unread())
        end = bytes(self._header[-2:])
        pieces.append(b"\n" if end in (b"\n\n", b"\n") else b"\r\n")
        return b"".join(pieces)

    def _unread(self) -> bytes:
        """Without the blank line."""
        rest = bytes(self._header[self._rest :])
        if rest.endswith(b"\n\n"):
            return rest[:-1]
        return rest[:-2] if rest.endswith(b"\n\r\n") else rest


def select_fields(header: bytes, names: tuple[bytes, ...], wanted: bool) -> bytes:
    """As `HeaderFields`, of a short header."""
    fields = HeaderFields(header)
    for _ in fields.read():
        pass
    return fields.select(names, wanted)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What BINARY asks for. `encoding` is empty where the body is as it is."""

    body: memoryview
    encoding: bytes

    def pieces(self) -> Iterator[bytes]:
        """The body without its encoding; each is a bounded step of work."""
        return decoded_pieces(self.body, self.encoding) or iter(())


def encoded_part(octets: memoryview, root: Part, path: tuple[int, ...]) -> Encoded | None:
    """BINARY[path]: the part, whose transfer encoding is to be undone; without numbers the whole message as it is. None:
    there is no such part.

    Raises Refusal(UNKNOWN_CTE) where the encoding is not known (RFC 3516 §4.3).
    """
    place = find_part(root, path)
    if place is None:
        return None
    part, is_root = place
    if is_root:
        return Encoded(octets[part.header_start : part.body_end], b"")
    body = octets[part.body_start : part.body_end]
    if part.children or part.encoding in AS_IT_IS:
        return Encoded(body, b"")
    if decoded_pieces(body, part.encoding) is None:
        raise Refusal(Code.UNKNOWN_CTE, "The transfer encoding of this part is not known here")
    return Encoded(body, part.encoding)
