"""The parts of a message by octet offsets, in one pass: RFC 2045, RFC 2046, exact on hostile mail.

Never raises. Time is linear in the size of the message whatever its nesting: every octet is searched once for
boundaries and once for blank lines, however many boundaries are open. Limits (`mime.bounds`): what lies deeper is left
whole, what comes behind so many parts is one last part, and of headers so many octets in all are read.
"""

import re
from collections.abc import Collection
from itertools import accumulate
from typing import Final

from murder.mime.bounds import HEADERS, bounds
from murder.mime.envelope import envelope_of
from murder.mime.field import (
    known_fields,
    parameter_value,
    parse_disposition,
    parse_languages,
    parse_media,
    parse_token,
)
from murder.model.part import RFC822, Parameters, Part

MAX_BOUNDARY_OCTETS: Final = 1000  # RFC 2046 §5.1.1 has 70; lines are compared with every open one
COUNTED_OCTETS: Final = 4096  # a block whose line ends are counted once
# in which is searched at once: meanwhile no other thread runs. The longest that is looked for has three octets
WINDOW: Final = 256 * 1024

_TEXT: Final = (b"TEXT", b"PLAIN")
_TEXT_PARAMETERS: Final[Parameters] = ((b"CHARSET", b"us-ascii"),)
_OCTETS: Final = (b"APPLICATION", b"OCTET-STREAM")
_HAS_PARTS: Final = (b"MULTIPART", b"MESSAGE")
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")

_CONTENT_FIELDS: Final = frozenset(
    b"CONTENT-TYPE CONTENT-TRANSFER-ENCODING CONTENT-ID CONTENT-DESCRIPTION CONTENT-DISPOSITION"
    b" CONTENT-LANGUAGE CONTENT-LOCATION CONTENT-MD5".split()
)
_MESSAGE_FIELDS: Final = _CONTENT_FIELDS | frozenset(
    b"DATE SUBJECT FROM SENDER REPLY-TO TO CC BCC IN-REPLY-TO MESSAGE-ID REFERENCES".split()
)


def parse_structure(octets: bytes | memoryview) -> Part:
    """The whole message as a part, with its envelope and all that is in it."""
    parser = _Parser(octets if isinstance(octets, bytes) else bytes(octets))
    return parser.entity(0, 0, is_message=True)


def parse_parts(octets: bytes, names: Collection[bytes]) -> Part:
    """As `parse_structure`, for who looks for parts: without their numbers of lines, and of envelopes the fields of these
    names (upper case)."""
    parser = _Parser(octets, _CONTENT_FIELDS.union(names), counts_lines=False)
    return parser.entity(0, 0, is_message=True)


class _Delimiter:
    """A line that is a boundary of an open multipart. `level` counts from the outermost; `text_end` is where the
    octets before it end, without their last line end; `next_start` begins the line behind."""

    __slots__ = ("is_last", "level", "line_start", "next_start", "text_end")

    def __init__(
        self, level: int, text_end: int, line_start: int, next_start: int, is_last: bool
    ) -> None:
        self.level = level
        self.text_end = text_end
        self.line_start = line_start
        self.next_start = next_start
        self.is_last = is_last


class _LineCounter:
    """Line ends of a message between two offsets. Messages within each other have their octets counted once for each that
    is around them, so after some of that the sums of whole blocks are kept."""

    __slots__ = ("_left", "_octets", "_sums")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._left = 2 * len(octets)  # octets that are looked at before there are sums
        self._sums: list[int] = []  # of all blocks before each

    def count(self, start: int, end: int) -> int:
        octets = self._octets
        if not self._sums and self._left >= end - start:
            self._left -= end - start
            if end - start <= WINDOW:
                return octets.count(b"\n", start, end)
            return sum(
                octets.count(b"\n", at, min(end, at + WINDOW)) for at in range(start, end, WINDOW)
            )
        if not self._sums:
            each = (
                octets.count(b"\n", at, at + COUNTED_OCTETS)
                for at in range(0, len(octets), COUNTED_OCTETS)
            )
            self._sums = list(accumulate(each, initial=0))
        first, last = -(-start // COUNTED_OCTETS), end // COUNTED_OCTETS
        if first >= last:
            return octets.count(b"\n", start, end)
        edges = octets.count(b"\n", start, first * COUNTED_OCTETS)
        edges += octets.count(b"\n", last * COUNTED_OCTETS, end)
        return edges + self._sums[last] - self._sums[first]


class _Parser:
    """One walk over a message. `_found` is the delimiter at which the last entity stopped, None at the end of all."""

    __slots__ = (
        "_blank",
        "_boundaries",
        "_bounds",
        "_found",
        "_lengths",
        "_levels",
        "_lines",
        "_message_fields",
        "_octets",
        "_parts",
        "_readable",
    )

    def __init__(
        self,
        octets: bytes,
        message_fields: frozenset[bytes] = _MESSAGE_FIELDS,
        *,
        counts_lines: bool = True,
    ) -> None:
        self._octets = octets
        self._message_fields = message_fields
        self._boundaries: list[bytes] = []  # open ones, outermost first
        self._levels: dict[bytes, int] = {}  # boundary -> its level, the innermost of equal ones
        self._lengths: list[int] = []  # of the open boundaries, ascending, each once
        self._found: _Delimiter | None = None
        self._blank = -1  # start of the last blank line found, so that none is searched for twice
        self._lines = _LineCounter(octets) if counts_lines else None
        self._parts = -1  # within the whole
        self._bounds = bounds()
        # octets of headers that will still be read
        self._readable = HEADERS * self._bounds.header_octets

    def entity(
        self,
        start: int,
        depth: int,
        is_message: bool = False,
        default: tuple[bytes, bytes] = _TEXT,
    ) -> Part:
        """The part whose header begins at `start`, up to the next delimiter of an open multipart."""
        self._parts += 1
        header_end = self._end_of_header(start)
        early = self._next_delimiter(start, header_end) if self._boundaries else None
        body_start = header_end
        if early is not None:
            body_start = max(start, early.text_end)
        known_end = min(body_start, start + min(self._readable, self._bounds.header_octets))
        self._readable -= known_end - start
        names = self._message_fields if is_message else _CONTENT_FIELDS
        fields = known_fields(self._octets, start, known_end, names)
        media, parameters = _media_of(fields, default)
        children: tuple[Part, ...] = ()
        if early is not None:
            self._found = early
        else:
            children = self._children(media, parameters, body_start, depth)
        body_end = len(self._octets)
        if self._found is not None:
            body_end = max(body_start, self._found.text_end)
        if media[0] == b"MULTIPART" and not children and self._is_bounded(depth):
            media, parameters = _TEXT, _TEXT_PARAMETERS
        elif media[0] == b"MULTIPART" and not children:
            children = (_nothing(body_start),)
        elif media == RFC822 and children:
            body_end = max(body_end, children[0].body_end)  # a blank line at a delimiter is in both
        elif media == RFC822:
            media, parameters = _OCTETS, ()
        return self._part(
            fields, media, parameters, start, body_start, body_end, children, is_message
        )

    def _part(
        self,
        fields: dict[bytes, bytes],
        media: tuple[bytes, bytes],
        parameters: Parameters,
        start: int,
        body_start: int,
        body_end: int,
        children: tuple[Part, ...],
        is_message: bool,
    ) -> Part:
        counts_lines = media[0] == b"TEXT" or media == RFC822
        lines = self._lines
        disposition = fields.get(b"CONTENT-DISPOSITION")
        encoding = fields.get(b"CONTENT-TRANSFER-ENCODING")
        languages = fields.get(b"CONTENT-LANGUAGE")
        return Part(
            media,
            parameters,
            start,
            body_start,
            body_end,
            lines.count(body_start, body_end) if lines is not None and counts_lines else 0,
            fields.get(b"CONTENT-ID"),
            fields.get(b"CONTENT-DESCRIPTION"),
            parse_token(encoding) or b"7BIT" if encoding else b"7BIT",
            fields.get(b"CONTENT-MD5"),
            parse_disposition(disposition) if disposition else None,
            parse_languages(languages) if languages else (),
            fields.get(b"CONTENT-LOCATION"),
            children,
            envelope_of(fields) if is_message else None,
        )

    def _is_bounded(self, depth: int) -> bool:
        """Whether nothing further is looked into."""
        return depth >= self._bounds.levels or self._parts >= self._bounds.parts

    def _children(
        self, media: tuple[bytes, bytes], parameters: Parameters, body_start: int, depth: int
    ) -> tuple[Part, ...]:
        """What is in a multipart or message; leaves `_found` at the delimiter behind it."""
        if media[0] in _HAS_PARTS and not self._is_bounded(depth):
            if media == RFC822:
                return (self.entity(body_start, depth + 1, is_message=True),)
            boundary = parameter_value(parameters, b"BOUNDARY")
            if media[0] == b"MULTIPART" and len(boundary or b"") > MAX_BOUNDARY_OCTETS:
                boundary = None
            if media[0] == b"MULTIPART" and boundary is not None:
                default = RFC822 if media[1] == b"DIGEST" else _TEXT
                return self._parts_of(boundary.rstrip(b" \t"), body_start, depth, default)
        if self._levels:
            self._found = self._next_delimiter(body_start, len(self._octets))
        return ()

    def _parts_of(
        self, boundary: bytes, body_start: int, depth: int, default: tuple[bytes, bytes]
    ) -> tuple[Part, ...]:
        level = len(self._boundaries)
        self._boundaries.append(boundary)
        hidden = self._levels.get(boundary)
        self._levels[boundary] = level
        self._lengths = sorted({len(outer) for outer in self._boundaries})
        parts: list[Part] = []
        delimiter = self._next_delimiter(body_start, len(self._octets))
        while delimiter is not None and delimiter.level == level and not delimiter.is_last:
            if self._parts >= self._bounds.parts:
                rest_start = delimiter.next_start
                while delimiter is not None and delimiter.level == level and not delimiter.is_last:
                    delimiter = self._next_delimiter(delimiter.next_start, len(self._octets))
                parts.append(
                    _rest(
                        rest_start, len(self._octets) if delimiter is None else delimiter.text_end
                    )
                )
                break
            parts.append(self.entity(delimiter.next_start, depth + 1, default=default))
            delimiter = self._found
        self._boundaries.pop()
        del self._levels[boundary]
        if hidden is not None:
            self._levels[boundary] = hidden
        self._lengths = sorted({len(outer) for outer in self._boundaries})
        if delimiter is not None and delimiter.level >= level:  # closed (or given up): the epilogue
            delimiter = self._next_delimiter(delimiter.next_start, len(self._octets))
        self._found = delimiter
        return tuple(parts)

    def _end_of_header(self, start: int) -> int:
        """Behind the blank line that ends the header at `start`; the end of the message if there is none."""
        octets = self._octets
        if octets.startswith(b"\r\n", start):
            return start + 2
        if octets.startswith(b"\n", start):
            return start + 1
        if self._blank < start:
            at = start
            match = _BLANK_LINE.search(octets, at, at + WINDOW)
            while match is None and at + WINDOW < len(octets):
                at += WINDOW - 2
                match = _BLANK_LINE.search(octets, at, at + WINDOW)
            self._blank = match.start() if match is not None else len(octets)
        if self._blank >= len(octets):
            return len(octets)
        return octets.index(b"\n", self._blank + 1) + 1

    def _next_delimiter(self, start: int, end: int) -> _Delimiter | None:
        """The first line in `[start, end)` that is a delimiter of an open multipart."""
        if not self._levels:
            return None
        octets = self._octets
        at = self._dashes(max(0, start - 1), end)
        while at >= 0:
            line_end = octets.find(b"\n", at + 1)
            if line_end < 0:
                line_end = len(octets)
            delimiter = self._match(at, octets[at + 3 : line_end], line_end)
            if delimiter is not None:
                return delimiter
            at = self._dashes(line_end, end)
        return None

    def _dashes(self, start: int, end: int) -> int:
        """The first line in `[start, end)` that begins with two of them, its line end before; else -1."""
        while end - start > WINDOW:
            at = self._octets.find(b"\n--", start, start + WINDOW)
            if at >= 0:
                return at
            start += WINDOW - 2
        return self._octets.find(b"\n--", start, end)

    def _match(self, at: int, line: bytes, line_end: int) -> _Delimiter | None:
        """Whether what follows `--` is an open boundary: white space may follow, or `--` and then anything."""
        bare = line.rstrip(b" \t\r")
        level = self._levels.get(bare)
        is_last = False
        if level is None:
            level = self._longer_match(line)
            if level is None:
                return None
            is_last = line.startswith(b"--", len(self._boundaries[level]))
        text_end = at - 1 if at and self._octets[at - 1] == 0x0D else at
        return _Delimiter(level, text_end, at + 1, min(line_end + 1, len(self._octets)), is_last)

    def _longer_match(self, line: bytes) -> int | None:
        """The level of the boundary that the line begins with, outermost first. Costs no more than the line is long."""
        levels = []
        for length in self._lengths:
            if length >= len(line):
                break
            level = self._levels.get(line[:length])
            if level is not None and (
                line.startswith(b"--", length) or line[length : length + 1] in (b" ", b"\t", b"\r")
            ):
                levels.append(level)
        return min(levels, default=None)


def _nothing(at: int) -> Part:
    """The one empty part of a multipart in which there is none: Cyrus and Dovecot have it so, and a multipart without
    parts cannot be told (RFC 3501 §9 body-type-mpart)."""
    return Part(_TEXT, _TEXT_PARAMETERS, at, at, at, 0)


def _rest(start: int, end: int) -> Part:
    """What comes behind the last part that is looked into, with the delimiters in it, as one part."""
    return Part(_OCTETS, (), start, start, max(start, end), 0, encoding=b"BINARY")


def _media_of(
    fields: dict[bytes, bytes], default: tuple[bytes, bytes]
) -> tuple[tuple[bytes, bytes], Parameters]:
    """Type and parameters, or the default's (RFC 2045 §5.2, RFC 2046 §5.1.5)."""
    value = fields.get(b"CONTENT-TYPE")
    parsed = parse_media(value) if value else None
    if parsed is None:
        return default, _TEXT_PARAMETERS if default == _TEXT else ()
    media, parameters = parsed
    if media[0] == b"TEXT" and parameter_value(parameters, b"CHARSET") is None:
        parameters = (*parameters, *_TEXT_PARAMETERS)
    return media, parameters
