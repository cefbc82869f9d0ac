"""Header fields by octets: where a header ends, its fields, and the grammar of structured ones (RFC 5322, RFC 2045).

Never raises: mail is as it is. Everything is linear in the header's size.
"""

import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from murder.model.part import Parameters

# One field with its continuation lines; a line without a colon is a field without a name.
# Possessive throughout, so that no size of header costs memory or time for stepping back.
_FIELD: Final = re.compile(
    rb"^(?:([!-9;-~]++)[ \t]*+:)?([^\n]*+(?:\n[ \t][^\n]*+)*+)(?:\n|\Z)", re.MULTILINE
)
_COMMENT_INSIDE: Final = re.compile(rb"[^()\\]+")
_PARAMETER: Final = re.compile(
    rb'[ \t;]*([^ \t;=()"]+)[ \t]*(?:=[ \t]*("[^"\\]*+(?:\\.[^"\\]*+)*+"?|[^ \t;]*+))?', re.DOTALL
)
_NO_COMMENT: Final = re.compile(rb'(?:[^("]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"?)++', re.DOTALL)
_TOKEN: Final = re.compile(rb'[^ \t\x00-\x1f()<>@,;:\\"/\[\]?=]+')
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)

MAX_PARAMETERS: Final = 200


def fields_in(octets: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Each field of the header `[start, end)`: its name in upper case (b"" for a line that has none), the raw value with
    its folding, and the field's whole octets with its line end. The blank line is left out."""
    for match in _FIELD.finditer(octets, start, end):
        whole = match.group()
        if whole not in (b"\r\n", b"\n", b""):
            yield (match.group(1) or b"").upper(), match.group(2), whole


def first_fields(
    octets: bytes, start: int, end: int, wanted: Collection[bytes]
) -> dict[bytes, bytes]:
    """The first field of each wanted name (upper case), unfolded and trimmed."""
    found: dict[bytes, bytes] = {}
    for match in _FIELD.finditer(octets, start, end):
        name = match.group(1)
        if name is not None:
            name = name.upper()
            if name in wanted and name not in found:
                found[name] = unfold(match.group(2))
    return found


def unfold(value: bytes) -> bytes:
    """Without line ends, NUL and surrounding white space (RFC 5322 §2.2.3)."""
    return value.translate(None, b"\r\n\x00").strip(b" \t")


def without_comments(value: bytes) -> bytes:
    """A structured field with its `(comments)` taken out; quoted strings stay whole."""
    if b"(" not in value:
        return value
    pieces = []
    at = 0
    while at < len(value):
        if value.startswith(b"(", at):
            at = end_of_comment(value, at)
            pieces.append(b" ")
        else:
            match = _NO_COMMENT.match(value, at)
            end = match.end() if match is not None else at + 1
            pieces.append(value[at:end])
            at = end
    return b"".join(pieces)


def end_of_comment(value: bytes, at: int) -> int:
    """Behind the comment that begins at `at`; comments nest. An unfinished one goes to the end."""
    depth = 0
    while at < len(value):
        octet = value[at]
        if octet == 0x28:
            depth += 1
            at += 1
        elif octet == 0x29:
            depth -= 1
            at += 1
            if not depth:
                return at
        elif octet == 0x5C:
            at += 2
        else:
            inside = _COMMENT_INSIDE.match(value, at)
            at = inside.end() if inside is not None else at + 1
    return len(value)


def unquote(value: bytes) -> bytes:
    """A quoted string's content; anything else as it is."""
    if not value.startswith(b'"'):
        return value
    inside = value[1:-1] if len(value) > 1 and value.endswith(b'"') else value[1:]
    return _ESCAPE.sub(rb"\1", inside) if b"\\" in inside else inside


def parse_media(value: bytes) -> tuple[tuple[bytes, bytes], Parameters] | None:
    """A Content-Type: type and subtype in upper case, and the parameters; None where it is none (RFC 2045 §5.2: the
    default then holds)."""
    value = without_comments(value).strip()
    main, slash, rest = value.partition(b"/")
    main = main.strip()
    match = _TOKEN.match(rest.lstrip())
    if not slash or match is None or _TOKEN.fullmatch(main) is None:
        return None
    rest = rest.lstrip()[match.end() :]
    return (main.upper(), match.group().upper()), parse_parameters(rest)


def parse_disposition(value: bytes) -> tuple[bytes, Parameters] | None:
    """A Content-Disposition (RFC 2183)."""
    value = without_comments(value).strip()
    match = _TOKEN.match(value)
    if match is None:
        return None
    return match.group().upper(), parse_parameters(value[match.end() :])


def parse_parameters(value: bytes) -> Parameters:
    """`; name=value; name="value"`, leniently; names in upper case, the first of a name counts."""
    found: dict[bytes, bytes] = {}
    for match in _PARAMETER.finditer(value):
        name, raw = match.group(1), match.group(2)
        if raw is not None and len(found) < MAX_PARAMETERS:
            found.setdefault(name.upper(), unquote(raw))
    return tuple(found.items())


def parameter_value(parameters: Parameters, name: bytes) -> bytes | None:
    """A parameter's value, put together where RFC 2231 has it in pieces (`name*0`, `name*1*`) or encoded (`name*`); its
    character set and language are left off. `name` in upper case."""
    pieces: list[bytes] = []
    by_name = dict(parameters)
    if name in by_name:
        return by_name[name]
    if name + b"*" in by_name:
        return unquote_to_bytes(by_name[name + b"*"].split(b"'", 2)[-1])
    while True:
        plain = b"%s*%d" % (name, len(pieces))
        if plain in by_name:
            pieces.append(by_name[plain])
        elif plain + b"*" in by_name:
            encoded = by_name[plain + b"*"]
            pieces.append(unquote_to_bytes(encoded if pieces else encoded.split(b"'", 2)[-1]))
        else:
            return b"".join(pieces) if pieces else None


def parse_token(value: bytes) -> bytes:
    """The first token, in upper case; b"" if there is none (Content-Transfer-Encoding)."""
    match = _TOKEN.match(without_comments(value).strip())
    return match.group().upper() if match is not None else b""


def parse_languages(value: bytes) -> tuple[bytes, ...]:
    """A Content-Language (RFC 3282): tags between commas."""
    tags = (tag.strip() for tag in without_comments(value).split(b","))
    return tuple(tag for tag in tags if tag)[:MAX_PARAMETERS]
