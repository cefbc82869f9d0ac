"""A message with NUL in it, as those read it who can be sent none (RFC 3501 §9, RFC 3516 §6).

Each part that has one goes in base64, and says so; its octets are all there. What can have no encoding (headers, what is
between parts, an encoding that is not known) has 0x80 in place of NUL, as Dovecot has it. Structure, sizes in it and
octets are told of the result and agree; quota is by what is stored.
"""

import base64
from collections.abc import Iterator
from mmap import mmap
from typing import Final

from murder.mime.decode import decode_transfer
from murder.mime.field import fields_in
from murder.mime.structure import parse_structure
from murder.model.part import Part

REPLACED: Final = bytes.maketrans(b"\x00", b"\x80")


def has_nul(octets: memoryview, start: int = 0, end: int | None = None) -> bool:
    """Whether there is one between these; without a copy, where the octets are mapped or whole."""
    end = len(octets) if end is None else min(end, len(octets))
    whole = octets.obj
    if isinstance(whole, bytes | bytearray | mmap) and len(whole) == len(octets):
        return whole.find(b"\x00", start, end) >= 0
    return b"\x00" in bytes(octets[start:end])


def told_size(octets: memoryview | bytes) -> int:
    """How many octets it is told with, where it has NUL; 0 where it has none, and is told as it is."""
    if not has_nul(memoryview(octets)):
        return 0
    whole = bytes(octets)
    return len(without_nul(whole, parse_structure(whole)))


def without_nul(octets: bytes, root: Part) -> bytes:
    """The message as it is told."""
    pieces: list[bytes] = []
    at = 0
    for start, end, instead in _edits(octets, root):
        pieces += (octets[at:start].translate(REPLACED), instead)
        at = end
    pieces.append(octets[at:].translate(REPLACED))
    return b"".join(pieces)


def _edits(octets: bytes, root: Part) -> Iterator[tuple[int, int, bytes]]:
    """Places and what comes there, in the order of the message."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        has_one = octets.find(b"\x00", part.body_start, part.body_end) >= 0
        if part.children:
            waiting.extend(reversed(part.children))
            if has_one and part.encoding == b"BINARY":
                yield part.header_start, part.body_start, _header(octets, part, b"8bit")
            continue
        body = octets[part.body_start : part.body_end] if has_one else b""
        decoded = decode_transfer(body, part.encoding)
        if has_one and decoded is not None:
            yield part.header_start, part.body_start, _header(octets, part, b"base64")
            yield part.body_start, part.body_end, _encoded(bytes(decoded), body)


def _header(octets: bytes, part: Part, encoding: bytes) -> bytes:
    """A part's header with another Content-Transfer-Encoding."""
    header = octets[part.header_start : part.body_start]
    kept = [
        whole
        for name, _, whole in fields_in(header, 0, len(header))
        if name != b"CONTENT-TRANSFER-ENCODING"
    ]
    if kept and not kept[-1].endswith(b"\n"):
        kept[-1] += b"\r\n"
    kept.append(b"Content-Transfer-Encoding: %b\r\n\r\n" % encoding)
    return b"".join(kept).translate(REPLACED)


def _encoded(decoded: bytes, body: bytes) -> bytes:
    """In lines of 76; with a line end behind the last one if the body had one."""
    text = base64.encodebytes(decoded).replace(b"\n", b"\r\n")
    return text if body.endswith(b"\n") else text[:-2]
