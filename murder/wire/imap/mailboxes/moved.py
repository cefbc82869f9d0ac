"""What a client knows of its selected mailbox, as one server of this murder hands it to another when the mailbox moves.

Not of any RFC: between our own nodes, and only where the peer has said by ID (`FIELD`) that it can go on from there.

    * BYE [X-MOVED 1700000001 90 41 57 1] The selected mailbox has moved
    * BYE [X-MOVED IDLING 1700000001 90 41 57 1 9:12,30] The selected mailbox has moved
    m1 SELECT INBOX (X-VIEW (1700000001 90 41 57 1 9:12,30))

An asterisk in place of the UIDs: they are too many to go along. Of a mailbox that is not selected, but watched (NOTIFY),
the name is enough, as the client writes it; to peers that have said so by ID (`WATCHES_TOO`):

    * OK [X-LEFT] INBOX/Sub
"""

import re
from dataclasses import dataclass
from typing import Final

from murder.model.message import MAX_UID, ModSeq, Uid, UidValidity
from murder.model.seqset import Ranges
from murder.wire.imap.seqset import format_ranges, parse_seqset
from murder.wire.token import Scanner

FIELD: Final = "x-follows-moves"  # of ID: the client is a frontend that can go on elsewhere
WATCHES_TOO: Final = "2"  # its value, where it goes on with what is watched, too
LEFT: Final = b"* OK [X-LEFT] "
MOVED: Final = b"[X-MOVED"
GONE: Final = b"NONEXISTENT"  # the code of a BYE: the selected mailbox has been deleted
# of the UIDs that `$` stands for; they are read at once, in about a millisecond
MOST_SAVED_OCTETS: Final = 16 * 1024
MAX_MODSEQ: Final = 2**63 - 1
_MOVED: Final = re.compile(
    rb"\* BYE \[X-MOVED (IDLING )?((?:[0-9]{1,20} ){4}[01](?: (?:[*]|[0-9:,]{1,%d}))?)\]"
    % MOST_SAVED_OCTETS,
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class SeenView:
    """The client has been told of all changes up to `modseq`, of `exists` messages, the last of which is `last_uid` (0:
    none). `condstore`: mod-sequences are told. `saved`: the UIDs that `$` stands for (RFC 5182), None where they are too
    many to go along."""

    uid_validity: UidValidity
    modseq: ModSeq
    exists: int
    last_uid: Uid
    condstore: bool
    saved: Ranges | None = ()

    def __bytes__(self) -> bytes:
        numbers = (self.uid_validity, self.modseq, self.exists, self.last_uid, self.condstore)
        words = [b"%d" % number for number in numbers]
        if self.saved is None:
            words.append(b"*")
        elif self.saved:
            words.append(format_ranges(self.saved))
        return b" ".join(words)


# x-view = uidvalidity SP mod-sequence-value SP exists SP (uniqueid / "0") SP ("0" / "1") [SP (uid-set / "*")]
def parse_view(scanner: Scanner) -> SeenView:
    """Raises BadSyntax."""
    uid_validity = UidValidity(scanner.number())
    scanner.space()
    modseq = ModSeq(scanner.number(MAX_MODSEQ))
    scanner.space()
    exists = scanner.number()
    scanner.space()
    last_uid = Uid(scanner.number())
    scanner.space()
    condstore = bool(scanner.number())
    saved: Ranges | None = ()
    if scanner.accept(b" "):
        saved = None if scanner.accept(b"*") else parse_seqset(scanner).resolved(MAX_UID)
    return SeenView(uid_validity, modseq, exists, last_uid, condstore, saved)


def is_of_deleted(bye: bytes) -> bool:
    """Whether a server's last word says that the selected mailbox has been deleted."""
    return bye[:7].upper() == b"* BYE [" and bye[7:].upper().startswith(GONE + b"]")


def view_in(bye: bytes) -> tuple[bytes, bool]:
    """The view that a server's last word hands over, as `X-VIEW` takes it (b"" where it hands over none), and whether that
    came in an IDLE which had its continuation."""
    match = _MOVED.match(bye)
    return (match[2], match[1] is not None) if match is not None else (b"", False)
