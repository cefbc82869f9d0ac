"""Header fields by octets: where a header ends, its fields, and the grammar of structured ones (RFC 5322, RFC 2045).

Never raises: mail is as it is. Everything is linear in the header's size, and what is looked at is bounded: mail can say
that it has a header of any size.
"""

import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from murder.mime.bounds import bounds
from murder.model.part import Parameters

# One field with its continuation lines; a line without a colon is a field without a name.
# Possessive throughout, so that no size of header costs memory or time for stepping back.
_FIELD: Final = re.compile(
    rb"^(?:([!-9;-~]++)[ \t]*+:)?([^\n]*+(?:\n[ \t][^\n]*+)*+)(?:\n|\Z)", re.MULTILINE
)
_COMMENT_INSIDE: Final = re.compile(rb"[^()\\]+")
# Something matches everywhere, so that no octet is looked at from several starts.
_PARAMETER: Final = re.compile(
    rb'[ \t;]++|([^ \t;=()"]++)[ \t]*+(?:=[ \t]*+("[^"\\]*+(?:\\.[^"\\]*+)*+"?|[^ \t;]*+))?+|.',
    re.DOTALL,
)
_NO_COMMENT: Final = re.compile(rb'(?:[^("]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"?)++', re.DOTALL)
_TOKEN: Final = re.compile(rb'[^ \t\x00-\x1f()<>@,;:\\"/\[\]?=]+')
ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)

MAX_VALUE_OCTETS: Final = 64 * 1024  # of a field with parameters or other tokens
MAX_PARAMETERS: Final = 200


def fields_in(octets: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Each field of the header `[start, end)`: its name in upper case (b"" for a line that has none), the raw value with
    its folding, and the field's whole octets with its line end. The blank line is left out."""
    for match in _FIELD.finditer(octets, start, end):
        whole = match.group()
        if whole not in (b"\r\n", b"\n", b""):
            yield (match.group(1) or b"").upper(), match.group(2), whole


# Fields that a message has once, and some have twice (RFC 5322 §3.6): as Cyrus and Dovecot have it, or one of them
LISTS: Final = frozenset(b"FROM SENDER REPLY-TO TO CC BCC".split())  # the addresses of all
_LAST: Final = frozenset(b"DATE SUBJECT IN-REPLY-TO MESSAGE-ID".split())


def known_fields(
    octets: bytes, start: int, end: int, wanted: Collection[bytes]
) -> dict[bytes, bytes]:
    """The fields of the wanted names (upper case), unfolded and trimmed; the first, if there are several, but for those
    above. What lies behind `Bounds.header_octets` is not looked at."""
    end = min(end, start + bounds().header_octets)
    fields: dict[bytes, bytes] = {}
    more: dict[bytes, list[bytes]] = {}
    for match in _FIELD.finditer(octets, start, end):
        name = match.group(1)
        if name is None or (name := name.upper()) not in wanted:
            continue
        if name not in fields or name in _LAST:
            fields[name] = unfold(match.group(2))
        elif name in LISTS:
            more.setdefault(name, []).append(unfold(match.group(2)))
    for name, values in more.items():
        fields[name] = b", ".join((fields[name], *values))
    return fields


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
    return ESCAPE.sub(rb"\1", inside) if b"\\" in inside else inside


def parse_media(value: bytes) -> tuple[tuple[bytes, bytes], Parameters] | None:
    """A Content-Type: type and subtype in upper case, and the parameters; None where it is none (RFC 2045 §5.2: the
    default then holds)."""
    value = without_comments(value[:MAX_VALUE_OCTETS]).strip()
    main, slash, rest = value.partition(b"/")
    main = main.strip()
    match = _TOKEN.match(rest.lstrip())
    if not slash or match is None or _TOKEN.fullmatch(main) is None:
        return None
    rest = rest.lstrip()[match.end() :]
    return (main.upper(), match.group().upper()), parse_parameters(rest)


def parse_disposition(value: bytes) -> tuple[bytes, Parameters] | None:
    """A Content-Disposition (RFC 2183)."""
    value = without_comments(value[:MAX_VALUE_OCTETS]).strip()
    match = _TOKEN.match(value)
    if match is None:
        return None
    return match.group().upper(), parse_parameters(value[match.end() :])


def parse_parameters(value: bytes) -> Parameters:
    """`; name=value; name="value"`, leniently; names in upper case, the first of a name counts. What RFC 2231 §3 has in
    pieces (`name*0`, `name*1*`) is put together."""
    parameters: dict[bytes, bytes] = {}
    for match in _PARAMETER.finditer(value[:MAX_VALUE_OCTETS]):
        name, raw = match.group(1), match.group(2)
        if raw is not None:
            parameters.setdefault(name.upper(), unquote(raw))
            if len(parameters) >= MAX_PARAMETERS:
                break
    if any(name.endswith((b"*0", b"*0*")) for name in parameters):
        parameters = _put_together(parameters)
    return tuple(parameters.items())


def _put_together(parameters: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """RFC 2231 §4.1: with an encoded piece all of the value is (`name*`), and a `%` in a plain piece is encoded too."""
    whole: dict[bytes, bytes] = {}
    taken: set[bytes] = set()
    for name, value in parameters.items():
        stem = name.removesuffix(b"*").removesuffix(b"*0")
        if name not in (stem + b"*0", stem + b"*0*"):
            if name not in taken:
                whole.setdefault(name, value)
            continue
        pieces: list[tuple[bytes, bool]] = []
        while True:
            plain = b"%s*%d" % (stem, len(pieces))
            key = plain + b"*" if plain + b"*" in parameters else plain
            if key not in parameters:
                break
            taken.add(key)
            pieces.append((parameters[key], key is not plain))
        if any(encoded for _, encoded in pieces):
            joined = [
                piece if encoded else piece.replace(b"%", b"%25") for piece, encoded in pieces
            ]
            whole.setdefault(stem + b"*", b"".join(joined))
        else:
            whole.setdefault(stem, b"".join(piece for piece, _ in pieces))
    return {name: value for name, value in whole.items() if name not in taken}


def parameter_value(parameters: Parameters, name: bytes) -> bytes | None:
    """A parameter's value, decoded where RFC 2231 has it encoded (`name*`); its character set and language are left off.
    `name` in upper case."""
    by_name = dict(parameters)
    if name in by_name:
        return by_name[name]
    if name + b"*" in by_name:
        return unquote_to_bytes(by_name[name + b"*"].split(b"'", 2)[-1])
    return None


def parse_token(value: bytes) -> bytes:
    """The token, in upper case; b"" if it is none, or has more behind it (Content-Transfer-Encoding)."""
    match = _TOKEN.fullmatch(without_comments(value[:MAX_VALUE_OCTETS]).strip())
    return match.group().upper() if match is not None else b""


def parse_languages(value: bytes) -> tuple[bytes, ...]:
    """A Content-Language (RFC 3282): tags between commas."""
    tags = (tag.strip() for tag in without_comments(value[:MAX_VALUE_OCTETS]).split(b","))
    return tuple(tag for tag in tags if tag)[:MAX_PARAMETERS]
