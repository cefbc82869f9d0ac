"""The lists in which two Cyrus servers talk of mailboxes (replication, and XFER with it): octets <-> values.

`%(KEY value …)` is a mapping, `(value …)` a list, the rest words: atoms, quoted strings, literals `{n+}`; a message comes as
`%{partition digest n}`, a line end and n octets. Known from what a Cyrus 3.6 says; no RFC describes it. Knows no sockets.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from murder.errors import BadSyntax

_ANNOUNCED: Final = re.compile(rb"(%?)\{([^{}\s]+(?: [^{}\s]+)*)\}$")
# What is longer than these pieces is none of a Cyrus: it sends 1,024 octets and more as a literal
_TOKEN: Final = re.compile(
    rb'\s{0,1000}+(?:(%?\()|(\))|"([^"\\]{0,8192}+(?:\\.[^"\\]{0,8192}+){0,1024}+)"|([^\s()"]{1,8192}+)(?![^\s()"]))',
    re.DOTALL,
)
MAX_ANNOUNCEMENT: Final = 16 * 1024  # octets, at the end of a line
_ATOM: Final = re.compile(rb"[A-Za-z0-9.:_/@+-]+\Z")
NIL: Final = b"NIL"
MAX_DEPTH: Final = 20  # a Cyrus nests four deep
MAX_OCTETS: Final = 2**32 - 1  # of a message, as in IMAP
MAX_DIGITS: Final = 10
_DIGEST: Final = re.compile(r"[0-9a-f]{1,128}")


@dataclass(frozen=True, slots=True)
class Octets:
    """A literal is announced: so many octets follow the line. `waits`: the peer wants to be asked for them."""

    length: int
    waits: bool


@dataclass(frozen=True, slots=True)
class MessageOctets:
    """A message is announced: where it lies there, the SHA-1 of its octets, their number."""

    partition: str
    digest: str
    length: int


Value = bytes | MessageOctets | list["Value"] | dict[str, "Value"] | None


@dataclass(frozen=True, slots=True)
class Held:
    """What a literal held."""

    octets: bytes


def announced_by(line: bytes) -> tuple[bytes, Octets | MessageOctets] | None:
    """The line without the literal that it announces at its end, and that; None where it announces none. Raises
    BadSyntax."""
    match = _ANNOUNCED.search(line, max(0, len(line) - MAX_ANNOUNCEMENT))
    if match is None:
        return None
    words = match.group(2).split()
    try:
        if not match.group(1):
            (word,) = words
            number = word.removesuffix(b"+")
            return line[: match.start()], Octets(_size(number), not word.endswith(b"+"))
        partition, raw_digest, length = words
        place, digest = partition.decode("utf-8", "replace"), raw_digest.decode("ascii")
        if not _DIGEST.fullmatch(digest):
            raise ValueError("the digest is none")
        message = MessageOctets(place, digest, _size(length))
    except (ValueError, UnicodeDecodeError) as error:
        raise BadSyntax(f"that announces no literal: {error}") from None
    return line[: match.start()], message


def _size(word: bytes) -> int:
    """Raises ValueError: what is no number would be read for ever, or not at all."""
    if not word.isdigit() or len(word) > MAX_DIGITS or int(word) > MAX_OCTETS:
        raise ValueError(f"a literal has 0 to {MAX_OCTETS} octets")
    return int(word)


def parse_values(parts: Iterable[bytes | Held | MessageOctets]) -> list[Value]:
    """The values of a command, in order: its texts with the literals between them. Raises BadSyntax."""
    top: list[Value] = []
    stack: list[tuple[list[Value], bool]] = [(top, False)]
    for part in parts:
        if isinstance(part, Held):
            stack[-1][0].append(part.octets)
        elif isinstance(part, MessageOctets):
            stack[-1][0].append(part)
        else:
            _parse_text(part, stack)
    if len(stack) != 1:
        raise BadSyntax("a list is not closed")
    return top


def _parse_text(text: bytes, stack: list[tuple[list[Value], bool]]) -> None:
    position, end = 0, len(text.rstrip())
    match = _TOKEN.match
    while position < end:
        token = match(text, position)
        if token is None:
            raise BadSyntax("that is no list", position)
        position = token.end()
        opening, closing, quoted, atom = token.groups()
        if atom is not None:
            stack[-1][0].append(None if atom == NIL else atom)
        elif quoted is not None:
            stack[-1][0].append(re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL))
        elif opening:
            if len(stack) > MAX_DEPTH:
                raise BadSyntax(f"lists are nested more than {MAX_DEPTH} deep", position)
            stack.append(([], opening == b"%("))
        elif closing:
            if len(stack) == 1:
                raise BadSyntax("a list is closed that was not opened", position)
            values, is_mapping = stack.pop()
            stack[-1][0].append(_mapping(values) if is_mapping else values)


def _mapping(values: list[Value]) -> dict[str, Value]:
    if len(values) % 2:
        raise BadSyntax("a key has no value")
    fields: dict[str, Value] = {}
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, bytes):
            raise BadSyntax("a key is no word")
        fields[key.decode("ascii", "replace").upper()] = value
    return fields


def format_value(value: Value | int | str | Sequence[Value] | Mapping[str, Value]) -> bytes:
    """The reverse; a message is only announced, its octets follow."""
    match value:
        case None:
            return NIL
        case int():
            return b"%d" % value
        case str():
            return format_value(value.encode())
        case bytes():
            return _format_word(value)
        case MessageOctets():
            place = f"%{{{value.partition} {value.digest} {value.length}}}\r\n"
            return place.encode()
        case Mapping():
            pairs = (key.encode() + b" " + format_value(inner) for key, inner in value.items())
            return b"%(" + b" ".join(pairs) + b")"
        case _:
            return b"(" + b" ".join(map(format_value, value)) + b")"


def _format_word(word: bytes) -> bytes:
    if _ATOM.match(word) and word != NIL:
        return word
    if not re.search(rb'["\\\x00\r\n\x80-\xff]', word) and len(word) < 1000:
        return b'"' + word + b'"'
    return b"{%d+}\r\n" % len(word) + word
