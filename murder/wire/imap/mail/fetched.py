"""FETCH answers as another server wrote them, read item by item; a body may stream past (RFC 3501 §7.4.2).

fetched = Fetched()
pending = parse_fetched(Scanner(octets, start), fetched)     # start: behind "* n FETCH"
while pending is not None:                                   # its octets come as a stream, then the rest
    pending = parse_fetched(Scanner(rest), fetched, begun=True)
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from murder.model.flag import RECENT
from murder.model.message import ModSeq, Uid
from murder.wire.imap.date import parse_date_time
from murder.wire.imap.mail.append import LiteralHead
from murder.wire.literal import LITERAL
from murder.wire.token import Scanner

MAX_DEPTH: Final = 1000  # of parentheses in an item that we do not read
MAX_DIGITS: Final = 10

_NAME: Final = re.compile(rb"[A-Za-z0-9.-]+(?:\[[^]]*\])?(?:<[0-9]+>)?")
_PLAIN: Final = re.compile(rb"[^ ()\"{\r\n]+")


@dataclass(slots=True)
class Fetched:
    """What has been read so far. Flags keep the server's spelling, without `\\Recent`. `sections` holds each string item
    (`BODY[]`, `RFC822.HEADER` …) by its name in upper case; None is NIL."""

    uid: Uid | None = None
    flags: frozenset[str] | None = None
    internal_date: datetime | None = None
    size: int | None = None
    modseq: ModSeq | None = None
    sections: dict[bytes, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PendingLiteral:
    """A section whose octets are not in place: they follow as a stream."""

    name: bytes
    literal: LiteralHead


# msg-att = "(" (msg-att-dynamic / msg-att-static) *(SP …) ")"
def parse_fetched(scanner: Scanner, fetched: Fetched, begun: bool = False) -> PendingLiteral | None:
    """Read items into `fetched` until the answer ends (None), or until a literal is announced at the very end of the
    octets. `begun`: this goes on behind such a literal. Items that are not known are skipped."""
    if not begun:
        scanner.space()
        scanner.open()
    elif scanner.accept(b")"):
        scanner.end()
        return None
    else:
        scanner.space()
    while True:
        match = _NAME.match(scanner.octets, scanner.at)
        if match is None:
            raise scanner.bad("a FETCH item")
        name = match.group().upper()
        scanner.at = match.end()
        scanner.space()
        announced = LITERAL.match(scanner.octets, scanner.at)
        is_last = announced is not None and announced.end() == len(scanner.octets)
        if announced is not None and is_last and int(announced.group(2)):
            literal = LiteralHead(int(announced.group(2)), bool(announced.group(1)))
            return PendingLiteral(name, literal)
        _parse_value(scanner, name, fetched)
        if scanner.accept(b")"):
            scanner.end()
            return None
        scanner.space()


def parse_fetch_response(response: bytes) -> Fetched | None:
    """A `* n FETCH` (or UIDFETCH, RFC 9586 §3.3) as values; None for any other response. Raises BadSyntax."""
    number, _, rest = response[2:].partition(b" ")
    word = rest[:9].upper()
    if (
        not number.isdigit()
        or len(number) > MAX_DIGITS
        or not word.startswith((b"FETCH ", b"UIDFETCH "))
    ):
        return None
    fetched = Fetched()
    width = word.index(b" ")
    scanner = Scanner(response, len(response) - len(rest) + width)
    if parse_fetched(scanner, fetched) is not None:
        raise scanner.bad("a whole literal")
    if width == len(b"UIDFETCH"):
        fetched.uid = Uid(int(number))
    return fetched


def _parse_value(scanner: Scanner, name: bytes, fetched: Fetched) -> None:
    match name:
        case b"UID":
            fetched.uid = Uid(scanner.number())
        case b"RFC822.SIZE":
            fetched.size = scanner.number(2**63 - 1)
        case b"INTERNALDATE":
            fetched.internal_date = parse_date_time(scanner)
        case b"FLAGS":
            fetched.flags = _parse_flags(scanner)
        case b"MODSEQ":
            scanner.open()
            fetched.modseq = ModSeq(scanner.number(2**63 - 1))
            scanner.close()
        case _ if scanner.is_string_next() or scanner.peek(3).upper() == b"NIL":
            fetched.sections[name] = scanner.nstring()
        case _:
            _skip_value(scanner)


def _parse_flags(scanner: Scanner) -> frozenset[str]:
    scanner.open()
    flags = set()
    while not scanner.accept(b")"):
        flags.add(scanner.flag().decode("ascii"))
        if scanner.peek() != b")":
            scanner.space()
    return frozenset(flag for flag in flags if flag.lower() != RECENT.lower())


def _skip_value(scanner: Scanner) -> None:
    """Any value: an atom, a string, or parentheses with anything in them."""
    depth = 0
    while True:
        if scanner.accept(b"("):
            depth += 1
            if depth > MAX_DEPTH:
                raise scanner.bad(f"at most {MAX_DEPTH} parentheses")
            continue
        if depth and scanner.accept(b")"):
            depth -= 1
        elif scanner.is_string_next():
            scanner.string()
        else:
            match = _PLAIN.match(scanner.octets, scanner.at)
            if match is None:
                raise scanner.bad("a value")
            scanner.at = match.end()
        if not depth:
            return
        while scanner.accept(b" "):
            pass
