"""XUNEXPUNGE, ours, for operators: what was expunged and is kept, and how it comes back; both directions."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from murder.errors import BadSyntax
from murder.model.message import Uid
from murder.model.seqset import EVERYTHING, SeqSet
from murder.wire.imap.seqset import parse_seqset
from murder.wire.token import Scanner, client_astring, string

CAPABILITY: Final = b"X-UNEXPUNGE"
WORD: Final = b"XUNEXPUNGE"
MAX_AGE_S: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class UnexpungeRequest:
    """Of these UIDs, and expunged in the last `within_s` seconds (0: whenever). `restores`: else it is only told."""

    mailbox: bytes
    restores: bool
    uids: SeqSet = EVERYTHING
    within_s: int = 0


@dataclass(frozen=True, slots=True)
class Expunged:
    """A message that may come back, as an operator is shown it; texts are decoded."""

    uid: Uid
    at: datetime
    size: int
    subject: str
    sender: str


# xunexpunge = "XUNEXPUNGE" SP mailbox SP ("LIST" / "RESTORE") SP number SP sequence-set ; seconds, 0: whenever
def parse_unexpunge(scanner: Scanner) -> UnexpungeRequest:
    """Raises BadSyntax."""
    scanner.space()
    mailbox = scanner.astring()
    scanner.space()
    word = scanner.word()
    if word not in (b"LIST", b"RESTORE"):
        raise scanner.bad("LIST or RESTORE")
    scanner.space()
    within_s = scanner.number(MAX_AGE_S)
    scanner.space()
    uids = parse_seqset(scanner)
    scanner.end()
    if uids.is_saved:
        raise BadSyntax("XUNEXPUNGE takes UIDs, no saved result")
    return UnexpungeRequest(mailbox, word == b"RESTORE", uids, within_s)


def format_unexpunge(request: UnexpungeRequest, uids: str) -> bytes:
    """The command, without a tag and CRLF; `uids` is the set as it was written."""
    verb = b"RESTORE" if request.restores else b"LIST"
    mailbox = client_astring(request.mailbox)
    return b"%b %b %b %d %b" % (WORD, mailbox, verb, request.within_s, uids.encode())


# "*" SP "XUNEXPUNGE" SP nz-number SP number64 SP number64 SP string SP string ; UID, Unix time, octets, subject, sender
def format_expunged(expunged: Expunged) -> bytes:
    """With CRLF."""
    texts = b" ".join(
        string(text.encode("utf-8", "replace")) for text in (expunged.subject, expunged.sender)
    )
    at = int(expunged.at.timestamp())
    return b"* %b %d %d %d %b\r\n" % (WORD, expunged.uid, at, expunged.size, texts)


def parse_expunged(octets: bytes) -> Expunged:
    """What follows the word. Raises BadSyntax."""
    scanner = Scanner(octets, 0)
    numbers = []
    for most in (2**32 - 1, 2**40, 2**63 - 1):
        numbers.append(scanner.number(most))
        scanner.space()
    subject = scanner.string().decode("utf-8", "replace")
    scanner.space()
    sender = scanner.string().decode("utf-8", "replace")
    uid, at, size = numbers
    return Expunged(Uid(uid), datetime.fromtimestamp(at, UTC), size, subject, sender)
