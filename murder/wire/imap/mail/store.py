"""STORE and UID STORE (RFC 3501 §6.4.6, RFC 7162 §3.1.3)."""

from dataclasses import dataclass
from typing import Final

from murder.model.flag import FlagChange
from murder.model.message import ModSeq
from murder.model.seqset import SeqSet
from murder.wire.imap.flag import parse_flags
from murder.wire.imap.seqset import parse_seqset
from murder.wire.token import Scanner

MAX_MODSEQ: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What to do to which messages' flags. `silent`: the client does not want to be told their new flags."""

    sequence: SeqSet
    change: FlagChange
    flags: frozenset[str]
    silent: bool = False
    unchanged_since: ModSeq | None = None


# store = "STORE" SP sequence-set [SP "(" store-modifier ")"] SP store-att-flags
# store-att-flags = (["+" / "-"] "FLAGS" [".SILENT"]) SP (flag-list / (flag *(SP flag)))
def parse_store(scanner: Scanner) -> StoreRequest:
    """All arguments, from the SP behind the name to the line end."""
    scanner.space()
    sequence = parse_seqset(scanner)
    scanner.space()
    unchanged_since = None
    if scanner.accept(b"("):
        if not scanner.accept_word(b"UNCHANGEDSINCE"):
            raise scanner.bad("UNCHANGEDSINCE")
        scanner.space()
        unchanged_since = ModSeq(scanner.number(MAX_MODSEQ))
        scanner.close()
        scanner.space()
    change = FlagChange.REPLACE
    if scanner.accept(b"+"):
        change = FlagChange.ADD
    elif scanner.accept(b"-"):
        change = FlagChange.REMOVE
    silent = scanner.accept_word(b"FLAGS.SILENT")
    if not silent and not scanner.accept_word(b"FLAGS"):
        raise scanner.bad("FLAGS or FLAGS.SILENT")
    scanner.space()
    flags = parse_flags(scanner)
    scanner.end()
    return StoreRequest(sequence, change, flags, silent, unchanged_since)
