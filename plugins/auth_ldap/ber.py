"""As much of BER as LDAP needs (RFC 4511 §5.1): definite lengths, tags of one octet."""

from collections.abc import Iterator
from typing import Final

INTEGER: Final = 0x02
OCTETS: Final = 0x04
ENUMERATED: Final = 0x0A
BOOLEAN: Final = 0x01
SEQUENCE: Final = 0x30


class Malformed(Exception):
    """That is no LDAP."""


def element(tag: int, *contents: bytes) -> bytes:
    """One element of these contents."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content


def integer(value: int, tag: int = INTEGER) -> bytes:
    """Not negative."""
    return element(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def octets(value: bytes, tag: int = OCTETS) -> bytes:
    return element(tag, value)


def boolean(value: bool) -> bytes:
    return element(BOOLEAN, b"\xff" if value else b"\0")


def whole_length(data: bytes | bytearray | memoryview) -> int | None:
    """How long the element at the start is, with tag and length; None where that is not to be seen yet. Raises Malformed."""
    if len(data) < 2:
        return None
    first = data[1]
    if first < 0x80:
        return 2 + first
    size = first & 0x7F
    if not 1 <= size <= 4:
        raise Malformed("a length of more than four octets")
    if len(data) < 2 + size:
        return None
    return 2 + size + int.from_bytes(data[2 : 2 + size], "big")


def read(data: bytes, at: int = 0) -> tuple[int, bytes, int]:
    """Tag and contents of the element there, and where the next one begins. Raises Malformed."""
    length = whole_length(data[at : at + 6])
    if length is None or at + length > len(data):
        raise Malformed("an element ends behind the end")
    first = data[at + 1]
    head = 2 if first < 0x80 else 2 + (first & 0x7F)
    return data[at], data[at + head : at + length], at + length


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """All elements, one behind the other. Raises Malformed."""
    at = 0
    while at < len(data):
        tag, content, at = read(data, at)
        yield tag, content


def number(content: bytes) -> int:
    """The contents of an integer or an enumeration. Raises Malformed."""
    if not 1 <= len(content) <= 8:
        raise Malformed("a number of that length")
    return int.from_bytes(content, "big", signed=True)
