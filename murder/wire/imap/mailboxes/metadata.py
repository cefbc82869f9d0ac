"""GETMETADATA, SETMETADATA and their answers (RFC 5464)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from murder.errors import Code, Refusal
from murder.model.annotation import MAX_ENTRIES_OF_COMMAND, Depth, is_entry_name
from murder.wire.token import Scanner, astring, literal, nstring

_OPTIONS: Final = re.compile(rb"\( *+[A-Za-z]")
MAX_OPTIONS: Final = 10  # there are two
_DEPTHS: Final = {depth.value.upper().encode(): depth for depth in Depth}


@dataclass(frozen=True, slots=True)
class GetMetadataRequest:
    """`mailbox` is b"" for the server. Entries are in lower case. `max_size` counts octets of a value."""

    mailbox: bytes
    entries: tuple[str, ...]
    max_size: int | None = None
    depth: Depth = Depth.ZERO


@dataclass(frozen=True, slots=True)
class SetMetadataRequest:
    """Values by entry; None removes one."""

    mailbox: bytes
    values: Mapping[str, bytes | None]


# getmetadata = "GETMETADATA" [SP getmetadata-options] SP mailbox SP entries
def parse_getmetadata(scanner: Scanner) -> GetMetadataRequest:
    """Options are taken before the mailbox, as the RFC's grammar has them, or behind it, as its errata and Cyrus do."""
    scanner.space()
    options: dict[bytes, int | Depth] = {}
    if scanner.peek() == b"(":
        _parse_options(scanner, options)
        scanner.space()
    mailbox = scanner.astring()
    scanner.space()
    if _OPTIONS.match(scanner.octets, scanner.at):  # entries begin with "/" or a string
        _parse_options(scanner, options)
        scanner.space()
    entries = _parse_entries(scanner)
    scanner.end()
    size, depth = options.get(b"MAXSIZE"), options.get(b"DEPTH", Depth.ZERO)
    return GetMetadataRequest(
        mailbox,
        entries,
        size if isinstance(size, int) else None,
        depth if isinstance(depth, Depth) else Depth.ZERO,
    )


# getmetadata-options = "(" getmetadata-option *(SP getmetadata-option) ")"
# getmetadata-option = "MAXSIZE" SP number / "DEPTH" SP ("0" / "1" / "infinity")
def _parse_options(scanner: Scanner, options: dict[bytes, int | Depth]) -> None:
    scanner.open()
    words = 0
    while True:
        words += 1
        if words > MAX_OPTIONS:
            raise scanner.bad(f"at most {MAX_OPTIONS} options")
        if scanner.accept_word(b"MAXSIZE"):
            scanner.space()
            options[b"MAXSIZE"] = scanner.number()
        elif scanner.accept_word(b"DEPTH"):
            scanner.space()
            start = scanner.at
            depth = _DEPTHS.get(scanner.word())
            if depth is None:
                scanner.at = start
                raise scanner.bad("0, 1 or infinity")
            options[b"DEPTH"] = depth
        else:
            raise scanner.bad("MAXSIZE or DEPTH")
        if scanner.accept(b")"):
            return
        scanner.space()


def asked_of(entry: str, depth: Depth) -> tuple[str, Depth]:
    """An entry of GETMETADATA without its wildcard, and how far below it is looked: `/shared/*` is all below `/shared`,
    `/shared/%` one level (not in the RFC: cyradm's `info` asks so, and Cyrus answers)."""
    if entry.endswith("/*"):
        return entry[:-2], Depth.INFINITY
    if entry.endswith("/%"):
        return entry[:-2], Depth.ONE
    return entry, depth


# entries = entry / "(" entry *(SP entry) ")"
def _parse_entries(scanner: Scanner) -> tuple[str, ...]:
    if not scanner.accept(b"("):
        return (_parse_entry(scanner, or_root=True),)
    entries = [_parse_entry(scanner, or_root=True)]
    while not scanner.accept(b")"):
        scanner.space()
        entries.append(_parse_entry(scanner, or_root=True))
        if len(entries) > MAX_ENTRIES_OF_COMMAND:
            raise scanner.bad(f"at most {MAX_ENTRIES_OF_COMMAND} entries")
    return tuple(dict.fromkeys(entries))


# entry = astring ; slash-separated path, starts with /private or /shared
def _parse_entry(scanner: Scanner, or_root: bool = False) -> str:
    """In lower case; with `or_root` also `/private` and `/shared`, below which everything can be asked for."""
    start = scanner.at
    entry = scanner.astring().decode("latin-1").lower()
    asked = asked_of(entry, Depth.ZERO)[0] if or_root else entry
    if not is_entry_name(asked) and not (or_root and asked in ("/private", "/shared")):
        scanner.at = start
        raise scanner.bad("an entry below /private or /shared")
    return entry


# setmetadata = "SETMETADATA" SP mailbox SP entry-values; entry-values = "(" entry-value *(SP entry-value) ")"
# entry-value = entry SP value; value = nstring / literal8
def parse_setmetadata(scanner: Scanner) -> SetMetadataRequest:
    """An entry with NIL is to be removed; one that stands twice counts at its last place."""
    scanner.space()
    mailbox = scanner.astring()
    scanner.space()
    scanner.open()
    values: dict[str, bytes | None] = {}
    words = 0
    while True:
        words += 1
        entry = _parse_entry(scanner)
        scanner.space()
        values[entry] = scanner.nstring()
        if words > MAX_ENTRIES_OF_COMMAND:
            raise scanner.bad(f"at most {MAX_ENTRIES_OF_COMMAND} entries")
        if scanner.accept(b")"):
            break
        scanner.space()
    scanner.end()
    return SetMetadataRequest(mailbox, values)


# metadata-resp = "METADATA" SP mailbox SP (entry-values / entry-list)
def format_metadata(mailbox: bytes, values: Mapping[str, bytes | None]) -> bytes:
    """`* METADATA mailbox (entry value …)CRLF`; None is NIL. A value with NUL goes as a literal8."""
    pieces = [piece for entry, value in values.items() for piece in (_entry(entry), _value(value))]
    return b"* METADATA %s (%s)\r\n" % (astring(mailbox), b" ".join(pieces))


def format_metadata_changed(mailbox: bytes, entries: Iterable[str]) -> bytes:
    """The unsolicited form, which names changed entries only: `* METADATA mailbox entry …CRLF`."""
    return b"* METADATA %s %s\r\n" % (astring(mailbox), b" ".join(map(_entry, entries)))


def _entry(entry: str) -> bytes:
    return astring(entry.encode("ascii"))


def _value(value: bytes | None) -> bytes:
    if value is not None and b"\x00" in value:
        return b"~" + literal(value)
    return nstring(value)


def refuse_value_too_big(limit: int) -> Refusal:
    """RFC 5464 §4.3: the code tells how many octets a value may have."""
    return Refusal(Code.METADATA, f"A value may have {limit} octets", f"MAXSIZE {limit}")


def refuse_too_many() -> Refusal:
    """RFC 5464 §4.3: a new entry would be one too many."""
    return Refusal(Code.METADATA, "There are too many entries here", "TOOMANY")


def format_long_entries(longest: int) -> bytes:
    """The inside of the brackets in the tagged OK where MAXSIZE left values out: the largest has `longest` octets."""
    return b"METADATA LONGENTRIES %d" % longest
