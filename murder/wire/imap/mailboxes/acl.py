"""SETACL, DELETEACL, GETACL, LISTRIGHTS, MYRIGHTS and their answers (RFC 4314)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from murder.model.acl import MAX_IDENTIFIER_OCTETS
from murder.wire.token import Scanner, astring

MAX_RIGHTS_OCTETS: Final = 100  # there are 24


class RightsChange(Enum):
    """RFC 4314 §3.1: a `+` or `-` before the rights."""

    ADD = "+"
    REMOVE = "-"
    REPLACE = ""


@dataclass(frozen=True, slots=True)
class SetAclRequest:
    mailbox: bytes  # as the client wrote it
    identifier: str
    change: RightsChange
    rights: str  # letters as written; `model.acl.parse_rights` judges them


@dataclass(frozen=True, slots=True)
class AclRequest:
    """DELETEACL and LISTRIGHTS."""

    mailbox: bytes
    identifier: str


# setacl = "SETACL" SP mailbox SP identifier SP mod-rights; mod-rights = astring
def parse_setacl(scanner: Scanner) -> SetAclRequest:
    """Raises BadSyntax, also for more rights than there could be."""
    scanner.space()
    mailbox = scanner.astring()
    scanner.space()
    identifier = _parse_identifier(scanner)
    scanner.space()
    start = scanner.at
    octets = scanner.astring()
    if len(octets) > MAX_RIGHTS_OCTETS:
        scanner.at = start
        raise scanner.bad(f"rights of {MAX_RIGHTS_OCTETS} letters at most")
    rights = octets.decode("utf-8", "replace")
    scanner.end()
    change = RightsChange.REPLACE
    if rights.startswith(("+", "-")):
        change, rights = RightsChange(rights[0]), rights[1:]
    return SetAclRequest(mailbox, identifier, change, rights)


# deleteacl = "DELETEACL" SP mailbox SP identifier; listrights likewise
def parse_deleteacl(scanner: Scanner) -> AclRequest:
    """The identifier as it stands there, with its `-`."""
    scanner.space()
    mailbox = scanner.astring()
    scanner.space()
    identifier = _parse_identifier(scanner)
    scanner.end()
    return AclRequest(mailbox, identifier)


parse_listrights = parse_deleteacl


def _parse_identifier(scanner: Scanner) -> str:
    """identifier = astring, in UTF-8; no control character, since an access list is kept with TABs."""
    start = scanner.at
    octets = scanner.astring()
    try:
        identifier = octets.decode("utf-8")
    except UnicodeDecodeError:
        identifier = ""
    if len(octets) > MAX_IDENTIFIER_OCTETS:
        scanner.at = start
        raise scanner.bad(f"an identifier of {MAX_IDENTIFIER_OCTETS} octets at most")
    if not identifier or any(ord(letter) < 0x20 or letter == "\x7f" for letter in identifier):
        scanner.at = start
        raise scanner.bad("an identifier in UTF-8 without control characters")
    return identifier


def format_acl(mailbox: bytes, entries: Mapping[str, str]) -> bytes:
    """`* ACL mailbox identifier rights …CRLF`; rights already in order."""
    pieces = [astring(mailbox)]
    for identifier, rights in entries.items():
        pieces += [_text(identifier), _text(rights)]
    return b"* ACL " + b" ".join(pieces) + b"\r\n"


def format_listrights(
    mailbox: bytes, identifier: str, required: str, optional: Iterable[str]
) -> bytes:
    """`* LISTRIGHTS mailbox identifier required optional …CRLF`: rights that always come with it, then groups of rights
    that can only be given together."""
    pieces: Sequence[bytes] = [
        astring(mailbox),
        _text(identifier),
        _text(required),
        *map(_text, optional),
    ]
    return b"* LISTRIGHTS " + b" ".join(pieces) + b"\r\n"


def format_myrights(mailbox: bytes, rights: str) -> bytes:
    """`* MYRIGHTS mailbox rightsCRLF` (RFC 4314 §3.8)."""
    return b"* MYRIGHTS %s %s\r\n" % (astring(mailbox), _text(rights))


def _text(text: str) -> bytes:
    return astring(text.encode("utf-8", "surrogateescape"))
