"""What STATUS can be asked for (RFC 3501 §6.3.10 and its extensions), as values."""

from enum import Enum


class StatusItem(Enum):
    """One STATUS item; the value is its word on the wire."""

    __hash__ = object.__hash__  # of C: looked up for each item of each mailbox

    MESSAGES = "MESSAGES"
    RECENT = "RECENT"
    UIDNEXT = "UIDNEXT"
    UIDVALIDITY = "UIDVALIDITY"
    UNSEEN = "UNSEEN"
    HIGHESTMODSEQ = "HIGHESTMODSEQ"  # RFC 7162 §3.1.7
    SIZE = "SIZE"  # RFC 8438
    DELETED = "DELETED"  # RFC 9051 §6.3.11
    DELETED_STORAGE = "DELETED-STORAGE"  # RFC 9208 §4.1.4
    MAILBOXID = "MAILBOXID"  # RFC 8474 §4.3
    APPENDLIMIT = "APPENDLIMIT"  # RFC 7889 §3.2
