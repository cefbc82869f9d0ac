"""Where `BODY[1.2.HEADER]` and its like are in a message: RFC 3501 §6.4.5, RFC 3516 (BINARY).

Works on a parsed structure; never raises for any section but where a transfer encoding is not known.
"""

from murder.errors import Code, Refusal
from murder.mime.decode import decode_transfer
from murder.mime.field import fields_in
from murder.model.fetch import Section, SectionText
from murder.model.part import Part


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
    found = find_part(root, section.part)
    if found is None:
        return None
    part, is_root = found
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


def select_fields(header: bytes, names: tuple[bytes, ...], wanted: bool) -> bytes:
    """The fields of these names (or, not wanted, all others) and a blank line, also where the header has none."""
    chosen = {name.upper().rstrip(b" \t") for name in names}
    pieces = [
        whole for name, _, whole in fields_in(header, 0, len(header)) if (name in chosen) == wanted
    ]
    pieces.append(b"\n" if header.endswith(b"\n\n") or header == b"\n" else b"\r\n")
    return b"".join(pieces)


def decoded_octets(
    octets: memoryview, root: Part, path: tuple[int, ...]
) -> memoryview | bytes | None:
    """BINARY[path]: the part with its transfer encoding undone; without numbers the whole message as it is.

    Raises Refusal(UNKNOWN_CTE) where the encoding is not known (RFC 3516 §4.3).
    """
    found = find_part(root, path)
    if found is None:
        return None
    part, is_root = found
    if is_root:
        return octets[part.header_start : part.body_end]
    body = octets[part.body_start : part.body_end]
    if part.children:
        return body
    decoded = decode_transfer(body, part.encoding)
    if decoded is None:
        raise Refusal(Code.UNKNOWN_CTE, "The transfer encoding of this part is not known here")
    return decoded
