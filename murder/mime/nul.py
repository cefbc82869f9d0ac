"""A message with NUL in it, as those read it who can be sent none (RFC 3501 §9, RFC 3516 §6).

Each part that has one goes in base64, and says so; its octets are all there. What can have no encoding (headers, what is
between parts, an encoding that is not known) has 0x80 in place of NUL, as Dovecot has it. Structure, sizes in it and
octets are told of the result and agree; quota is by what is stored.
"""

import base64
from collections.abc import Iterable, Iterator
from itertools import chain
from mmap import mmap
from typing import Final

from murder.mime.decode import decoded_pieces
from murder.mime.field import fields_in
from murder.mime.structure import parse_structure
from murder.model.part import Part

REPLACED: Final = bytes.maketrans(b"\x00", b"\x80")
PIECE_OCTETS: Final = 64 * 1024
LOOK_OCTETS: Final = 1024 * 1024  # looked through at once
LINE_END: Final = 0x0A
LINE_OCTETS: Final = 57  # in base64 76 letters


def has_nul(octets: memoryview, start: int = 0, end: int | None = None) -> bool:
    """Whether there is one between these; without a copy, where the octets are mapped or whole."""
    end = len(octets) if end is None else min(end, len(octets))
    whole = octets.obj
    if isinstance(whole, bytes | bytearray | mmap) and len(whole) == len(octets):
        return whole.find(b"\x00", start, end) >= 0
    return b"\x00" in bytes(octets[start:end])


def told_size(octets: memoryview | bytes) -> int:
    """How many octets it is told with, where it has NUL; 0 where it has none, and is told as it is."""
    whole = memoryview(octets)
    if not any(has_nul(whole, at, at + LOOK_OCTETS) for at in range(0, len(whole), LOOK_OCTETS)):
        return 0
    return sum(map(len, told_pieces(whole, parse_structure(octets))))


def told_pieces(octets: memoryview, root: Part) -> Iterator[bytes]:
    """The message as it is told, some octets at a time."""
    at = 0
    for start, end, instead in _edits(octets, root):
        yield from _plain(octets[at:start])
        yield from instead
        at = end
    yield from _plain(octets[at:])


def _plain(octets: memoryview) -> Iterator[bytes]:
    for at in range(0, len(octets), PIECE_OCTETS):
        yield bytes(octets[at : at + PIECE_OCTETS]).translate(REPLACED)


def _edits(octets: memoryview, root: Part) -> Iterator[tuple[int, int, Iterable[bytes]]]:
    """Places and what comes there, in the order of the message."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        has_one = has_nul(octets, part.body_start, part.body_end)
        if part.children:
            waiting.extend(reversed(part.children))
            if has_one and part.encoding == b"BINARY":
                yield part.header_start, part.body_start, (_header(octets, part, b"8bit"),)
            continue
        body = octets[part.body_start : part.body_end]
        decoded = decoded_pieces(body, part.encoding) if has_one else None
        if decoded is not None:
            yield part.header_start, part.body_start, (_header(octets, part, b"base64"),)
            yield part.body_start, part.body_end, _encoded(decoded, body[-1] == LINE_END)


def _header(octets: memoryview, part: Part, encoding: bytes) -> bytes:
    """A part's header with another Content-Transfer-Encoding."""
    header = bytes(octets[part.header_start : part.body_start])
    kept = [
        whole
        for name, _, whole in fields_in(header, 0, len(header))
        if name != b"CONTENT-TRANSFER-ENCODING"
    ]
    if kept and not kept[-1].endswith(b"\n"):
        kept[-1] += b"\r\n"
    kept.append(b"Content-Transfer-Encoding: %b\r\n\r\n" % encoding)
    return b"".join(kept).translate(REPLACED)


def _encoded(decoded: Iterable[bytes], has_line_end: bool) -> Iterator[bytes]:
    """In lines of 76; `has_line_end`: behind the last one, too, as the body had it."""
    held, begun = b"", False
    for piece in chain(decoded, (None,)):
        held += piece or b""
        end = len(held) if piece is None else len(held) - len(held) % LINE_OCTETS
        if end:
            lines = base64.encodebytes(held[:end]).replace(b"\n", b"\r\n")
            yield (b"\r\n" if begun else b"") + lines[:-2]
            held, begun = held[end:], True
    if begun and has_line_end:
        yield b"\r\n"
