"""SELECT and EXAMINE (RFC 3501 §6.3.1, RFC 7162 §3.1.8 and §3.2.5)."""

from dataclasses import dataclass
from typing import Final

from murder.model.message import ModSeq, UidValidity
from murder.model.seqset import SeqSet
from murder.wire.imap.mailboxes.moved import SeenView, parse_view
from murder.wire.imap.seqset import parse_seqset
from murder.wire.token import Scanner

MAX_MODSEQ: Final = 2**63 - 1
MAX_PARAMETERS: Final = 10  # there are three


@dataclass(frozen=True, slots=True)
class Qresync:
    """What a client remembers of the mailbox. `seq_match`: sequence numbers with the UIDs they had, so that the
    server need not send all that vanished."""

    uid_validity: UidValidity
    modseq: ModSeq
    known_uids: SeqSet | None = None
    seq_match: tuple[SeqSet, SeqSet] | None = None


@dataclass(frozen=True, slots=True)
class SelectRequest:
    mailbox: bytes  # as the client wrote it
    condstore: bool = False
    qresync: Qresync | None = None
    view: SeenView | None = None  # go on with this, and tell nothing anew (`moved`)


# select = "SELECT" SP mailbox [SP "(" select-param *(SP select-param) ")"]
# select-param = "CONDSTORE" / ("QRESYNC" SP "(" uidvalidity SP mod-sequence-value [SP known-uids]
#                [SP "(" known-sequence-set SP known-uid-set ")"] ")")
def parse_select(scanner: Scanner) -> SelectRequest:
    """Also of EXAMINE."""
    scanner.space()
    mailbox = scanner.astring()
    condstore = False
    qresync: Qresync | None = None
    view: SeenView | None = None
    if not scanner.at_end():
        scanner.space()
        scanner.open()
        words = 0
        while True:
            words += 1
            if words > MAX_PARAMETERS:
                raise scanner.bad(f"at most {MAX_PARAMETERS} parameters")
            if scanner.accept_word(b"CONDSTORE"):
                condstore = True
            elif scanner.accept_word(b"QRESYNC"):
                scanner.space()
                qresync = _parse_qresync(scanner)
            elif scanner.accept_word(b"X-VIEW"):
                scanner.space()
                scanner.open()
                view = parse_view(scanner)
                scanner.close()
            else:
                raise scanner.bad("CONDSTORE or QRESYNC")
            if scanner.accept(b")"):
                break
            scanner.space()
    scanner.end()
    return SelectRequest(mailbox, condstore, qresync, view)


def _parse_qresync(scanner: Scanner) -> Qresync:
    scanner.open()
    uid_validity = UidValidity(scanner.number())
    scanner.space()
    modseq = ModSeq(scanner.number(MAX_MODSEQ))
    known_uids: SeqSet | None = None
    seq_match: tuple[SeqSet, SeqSet] | None = None
    if not scanner.accept(b")"):
        scanner.space()
        if scanner.peek() != b"(":
            known_uids = _parse_plain_set(scanner)
            if scanner.peek() != b")":
                scanner.space()
        if scanner.accept(b"("):
            numbers = _parse_plain_set(scanner)
            scanner.space()
            seq_match = (numbers, _parse_plain_set(scanner))
            scanner.close()
        scanner.close()
    return Qresync(uid_validity, modseq, known_uids, seq_match)


def _parse_plain_set(scanner: Scanner) -> SeqSet:
    """known-uids: a set without `*` or `$`, for the client speaks of what it has seen."""
    start = scanner.at
    sequence = parse_seqset(scanner)
    if sequence.is_saved or sequence.has_star:
        scanner.at = start
        raise scanner.bad("a set without `*`")
    return sequence
