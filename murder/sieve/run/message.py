"""The message that a script looks at, and its later versions, when the script edits it (RFC 5293).

Never raises: mail is as it is. The body's octets are shared by all versions.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from murder.mime.bounds import bounds
from murder.mime.field import fields_in, unfold
from murder.mime.header import decode_value
from murder.mime.structure import parse_structure
from murder.model.part import Part
from murder.sieve.match.comparators import fold_ascii
from murder.sieve.run.addresses import Address, addresses_in, part_of

FIELDS_AT_ONCE: Final = 100  # read in one step
MAX_FIELDS: Final = 10_000  # that are looked at; each takes about 250 octets in memory
MAX_EDITED: Final = 256 * 1024  # octets of a header that is written again; each time costs as much
TEXT_A_STEP: Final = 64  # octets that are decoded in a step
ENCODED_A_STEP: Final = 5  # with encoded words
LOOK_OCTETS: Final = 64 * 1024  # in which the end of the header is looked for at once
DIGESTED_FIELDS: Final = 10
DIGESTED_OCTETS: Final = 4096  # of each; a line has 998 (RFC 5322 §2.1.1)
_BLANK_LINE: Final = re.compile(rb"(?:\A|\n)\r?\n")
_NAME: Final = re.compile(rb"([!-9;-~]++)[ \t]*+:")
Octets = bytes | memoryview


@dataclass(slots=True)
class Field:
    """A header field. `name` in lower case; `whole` with its line end. `text` is its value, decoded, on first use."""

    name: str
    whole: bytes = field(repr=False)
    raw_value: bytes = field(repr=False)
    _text: str | None = None
    _addresses: list[Address] | None = None
    _pair: tuple[str, str] | None = None

    @property
    def value(self) -> bytes:
        """Unfolded and trimmed."""
        return unfold(self.raw_value)

    @property
    def text(self) -> str:
        """Decoded, unfolded, without blanks at its ends (RFC 5228 §5.7)."""
        if self._text is None:
            self._text = decode_value(unfolded_tabs(self.raw_value)).strip(" \t")
        return self._text

    def beginning(self, octets: int) -> str:
        """`text`, of so many octets at most."""
        if self._text is None and len(self.raw_value) > octets:
            return decode_value(unfolded_tabs(self.raw_value[:octets])).strip(" \t")
        return self.text

    @property
    def steps(self) -> int:
        """What it takes to decode `text`."""
        if self._text is not None:
            return 1
        return 1 + len(self.raw_value) // (
            ENCODED_A_STEP if b"=?" in self.raw_value else TEXT_A_STEP
        )

    @property
    def addresses(self) -> list[Address]:
        """Those in it, on first use."""
        if self._addresses is None:
            self._addresses = addresses_in(self.value)
        return self._addresses

    @property
    def pair(self) -> tuple[str, str]:
        """`text` as i;ascii-casemap compares it, and as it is."""
        if self._pair is None:
            self._pair = (fold_ascii(self.text), self.text)
        return self._pair

    def parts(self, part: str) -> list[tuple[str, str]]:
        """That part of each address, such as `localpart`, as i;ascii-casemap compares it and as it is; of a field that has
        no address, all of it (RFC 5228 §2.7.4)."""
        valid = [address for address in self.addresses if address.is_valid]
        if part == "all" and not valid:
            return [self.pair]
        texts = [part_of(address, part, "") or "" for address in valid]
        return [(fold_ascii(text), text) for text in texts]


def unfolded_tabs(value: bytes) -> bytes:
    """A tab by which a field is folded is read as the blank that it stands for, as Pigeonhole does; any other is one."""
    return value.replace(b"\n\t", b"\n ") if b"\t" in value else value


def read_fields(octets: Octets, start: int, end: int) -> Iterator[Field]:
    """The fields of a header; a line that is none has no name."""
    end = min(end, start + bounds().header_octets)
    for name, value, whole in fields_in(octets, start, end):  # type: ignore[arg-type] # any buffer can be searched
        yield Field(name.decode("ascii").lower(), whole, value)


def field_of(whole: bytes) -> Field:
    """A field of its octets; without a name where it is none."""
    match = _NAME.match(whole)
    if match is None:
        return Field("", whole, whole)
    return Field(match[1].decode("ascii").lower(), whole, whole[match.end() :])


class Message:
    """One version. `read` is to be walked through before anything is asked of a header."""

    __slots__ = (
        *("_body_start", "_by_name", "_is_read", "_looked", "_octets", "_structure", "_whole"),
        *("fields", "is_cut", "known", "line_end"),
    )

    def __init__(self, octets: Octets) -> None:
        self._octets = octets
        self._whole: Octets | None = octets
        self._body_start = len(octets)
        self._is_read = False
        self._looked = 0  # so far no header has ended; beyond the end: that is known
        self._look()
        self.fields: list[Field] = []
        self.is_cut = False  # it has more fields than are looked at
        self._by_name: dict[str, list[Field]] = {}
        self.known: dict[str, Any] = {}  # what tests have made of the fields, by a word of theirs
        self._structure: Part | None = None
        head = bytes(octets[:1000])
        self.line_end = b"\n" if b"\n" in head and b"\r\n" not in head else b"\r\n"

    def _look(self) -> None:
        """Look for the blank line a bit further on."""
        end = self._looked + LOOK_OCTETS
        match = _BLANK_LINE.search(self._octets, self._looked, end)
        if match is not None:
            self._body_start = match.end()
        is_known = match is not None or end >= len(self._octets)
        self._looked = len(self._octets) if is_known else end - 2  # a line end may be cut in two

    def look(self) -> Iterator[None]:
        """Where the header ends."""
        while self._looked < len(self._octets):
            self._look()
            yield

    def read(self) -> Iterator[None]:
        """Its fields; once."""
        yield from self.look()
        if self._is_read:
            return
        self._is_read = True
        fields, by_name = self.fields, self._by_name
        for number, header_field in enumerate(read_fields(self._octets, 0, self._body_start), 1):
            if number > MAX_FIELDS:
                self.is_cut = True
                return
            fields.append(header_field)
            if header_field.name in by_name:
                by_name[header_field.name].append(header_field)
            elif header_field.name:
                by_name[header_field.name] = [header_field]
            if not number % FIELDS_AT_ONCE:
                yield

    def edited(self, fields: Sequence[Field]) -> "Message":
        """A version with this header, and the same body."""
        other = Message.__new__(Message)
        other._octets = self._octets
        other._whole = None
        other._body_start = self._body_start
        other._is_read = True
        other._looked = self._looked
        other._structure = None
        other.is_cut = False
        other.line_end = self.line_end
        other.fields = list(fields)
        other._by_name = {}
        other.known = {}
        for header_field in fields:
            if not header_field.name:
                continue
            other._by_name.setdefault(header_field.name, []).append(header_field)
        return other

    def named(self, name: str) -> Sequence[Field]:
        """Fields of a name in lower case, in order."""
        return self._by_name.get(name, ())

    @property
    def is_known(self) -> bool:
        """Whether all of its header was read, so that it can be written again."""
        most = min(bounds().header_octets, MAX_EDITED)
        return self._body_start <= most and not self.is_cut

    @property
    def header_size(self) -> int:
        """Octets before the body."""
        return self.size - len(self.body)

    @property
    def body(self) -> memoryview:
        return memoryview(self._octets)[self._body_start :]

    @property
    def size(self) -> int:
        """Octets, as the script has altered it."""
        if self._whole is not None:
            return len(self._whole)
        blank = len(self.line_end)
        return sum(len(header_field.whole) for header_field in self.fields) + blank + len(self.body)

    @property
    def octets(self) -> Octets:
        if self._whole is None:
            header = b"".join(header_field.whole for header_field in self.fields)
            self._whole = b"".join((header, self.line_end, self.body))
        return self._whole

    @property
    def structure(self) -> Part:
        """Its parts, by offsets into `octets`. Takes as long as the message is large."""
        if self._structure is None:
            self._structure = parse_structure(self.octets)
        return self._structure

    @property
    def pieces(self) -> tuple[Octets, ...]:
        """Its octets, in order; not joined, for a body may be large."""
        if self._whole is not None:
            return (self._whole,)
        header = b"".join(header_field.whole for header_field in self.fields)
        return (header, self.line_end, self.body)

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    def let_go(self) -> None:
        """Of what can be made anew: nothing but its octets is asked for from here on, if these."""
        if self._whole is not self._octets:
            self._whole = None
        self._structure = None
        self._by_name = {}
        self.known = {}

    def digested(self, name: str) -> bytes:
        """The fields of a name in lower case, for a digest: as much of them as takes no time, whatever they are."""
        values = [header_field.raw_value for header_field in self.named(name)[:DIGESTED_FIELDS]]
        return b"".join(unfold(value[:DIGESTED_OCTETS]) + b"\0" for value in values)

    def key(self) -> str:
        """The same for the same message when its sender tries again: trace fields do not count."""
        digest = hashlib.sha256()
        names = ("message-id",) if self.named("message-id") else ("date", "from", "to", "subject")
        for name in names:
            digest.update(self.digested(name))
        if len(names) > 1:
            digest.update(self.body[: 64 * 1024])
        return digest.hexdigest()[:32]
