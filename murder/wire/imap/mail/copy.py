"""COPY, MOVE, UID EXPUNGE, and the codes COPYUID and APPENDUID (RFC 3501 §6.4.7, RFC 6851, RFC 4315).

And UID XREMOVE, which our backends offer as X-REMOVE: what a frontend ends a MOVE to another backend with. It removes these
messages whatever their flags, and says which ones *this* command has removed, where others move them at the same time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from murder.errors import BadSyntax
from murder.model.message import ModSeq, Uid, UidValidity
from murder.model.seqset import SeqSet, compress_in_order, expand
from murder.wire.imap.seqset import format_ranges, parse_seqset, read_ranges
from murder.wire.token import Scanner

REMOVES: Final = b"X-REMOVE"  # the capability
_REMOVED: Final = b"X-REMOVED"  # the response code
MAX_DIGITS: Final = 20  # of a mod-sequence


@dataclass(frozen=True, slots=True)
class CopyRequest:
    sequence: SeqSet
    mailbox: bytes  # as the client wrote it


@dataclass(frozen=True, slots=True)
class CopyUid:
    """What COPYUID tells: the n-th source UID has become the n-th target UID."""

    uid_validity: UidValidity
    sources: Sequence[Uid]
    targets: Sequence[Uid]


# copy = "COPY" SP sequence-set SP mailbox; move and their UID forms likewise
def parse_copy(scanner: Scanner) -> CopyRequest:
    """All arguments of COPY, MOVE, UID COPY, UID MOVE."""
    scanner.space()
    sequence = parse_seqset(scanner)
    scanner.space()
    mailbox = scanner.astring()
    scanner.end()
    return CopyRequest(sequence, mailbox)


# uid-expunge = "UID" SP "EXPUNGE" SP sequence-set
def parse_uid_expunge(scanner: Scanner) -> SeqSet:
    """The UIDs (RFC 4315 §2.1)."""
    scanner.space()
    sequence = parse_seqset(scanner)
    scanner.end()
    return sequence


def format_copyuid(
    uid_validity: UidValidity, sources: Sequence[Uid], targets: Sequence[Uid]
) -> bytes:
    """The inside of the brackets. Both sets are in pair order, which RFC 4315 §3 makes ascending."""
    return b"COPYUID %d %s %s" % (
        uid_validity,
        format_ranges(compress_in_order(sources)),
        format_ranges(compress_in_order(targets)),
    )


def format_appenduid(uid_validity: UidValidity, uids: Sequence[Uid]) -> bytes:
    """The inside of the brackets; several UIDs after MULTIAPPEND."""
    return b"APPENDUID %d %s" % (uid_validity, format_ranges(compress_in_order(uids)))


# resp-code-copy = "COPYUID" SP nz-number SP uid-set SP uid-set
def parse_copyuid(code: bytes, most: int = 100_000) -> CopyUid:
    """The inside of the brackets, as another server wrote it; at most `most` UIDs."""
    scanner = Scanner(code)
    if not scanner.accept_word(b"COPYUID"):
        raise scanner.bad("COPYUID")
    scanner.space()
    uid_validity = UidValidity(scanner.number())
    scanner.space()
    sources = _uids(scanner.octets[scanner.at :].partition(b" ")[0], most)
    targets = _uids(scanner.octets[scanner.at :].partition(b" ")[2], most)
    if len(sources) != len(targets):
        raise BadSyntax("COPYUID has two sets of different size")
    return CopyUid(uid_validity, sources, targets)


# resp-code-apnd = "APPENDUID" SP nz-number SP append-uid
def parse_appenduid(code: bytes, most: int = 100_000) -> tuple[UidValidity, list[Uid]]:
    """The inside of the brackets, as another server wrote it."""
    scanner = Scanner(code)
    if not scanner.accept_word(b"APPENDUID"):
        raise scanner.bad("APPENDUID")
    scanner.space()
    uid_validity = UidValidity(scanner.number())
    scanner.space()
    return uid_validity, _uids(scanner.rest(), most)


def format_removed(modseq: ModSeq, uids: Sequence[Uid]) -> bytes:
    """The inside of the brackets of UID XREMOVE's OK: the mailbox's mod-sequence and what was removed, as in `X-REMOVED 12
    5:7`; without a set where nothing was."""
    return (b"%s %d " % (_REMOVED, modseq) + format_ranges(compress_in_order(uids))).rstrip()


def parse_removed(code: bytes, most: int = 100_000) -> tuple[ModSeq, list[Uid]]:
    """The inside of the brackets."""
    word, *rest = code.split(b" ")
    is_number = len(rest) in (1, 2) and rest[0].isdigit() and len(rest[0]) <= MAX_DIGITS
    if word.upper() != _REMOVED or not is_number:
        raise BadSyntax("UID XREMOVE's answer has no X-REMOVED")
    return ModSeq(int(rest[0])), _uids(rest[1], most) if len(rest) == 2 else []


def _uids(octets: bytes, most: int) -> list[Uid]:
    """A uid-set without `*`: counted before it is expanded, since a peer wrote it."""
    ranges = read_ranges(octets)
    if any(first == 0 or last == 0 for first, last in ranges):
        raise BadSyntax("a UID set has no `*`")
    ordered = [(min(ends), max(ends)) for ends in ranges]
    if sum(high - low + 1 for low, high in ordered) > most:
        raise BadSyntax(f"a UID set of more than {most} UIDs")
    return [Uid(uid) for uid in expand(ordered)]
