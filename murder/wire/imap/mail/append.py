"""APPEND and REPLACE, message by message (RFC 3501 §6.3.11, RFC 3502 MULTIAPPEND, 4469 CATENATE, 3516, 6855, 8508).

A message's literal may be in place (a small one) or stream past behind the octets parsed here; so the arguments are
parsed in steps, and the caller takes the octets itself:

    parse_append_mailbox, then for each message parse_append_head, its literal, parse_append_end.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from murder.model.message import SeqNum, Uid
from murder.wire.imap.date import parse_date_time
from murder.wire.imap.flag import parse_flag_list
from murder.wire.literal import LITERAL
from murder.wire.token import Scanner


class AppendForm(Enum):
    """How the octets of a message are given."""

    LITERAL = "literal"
    UTF8 = "UTF8"  # RFC 6855 §4: in parentheses, headers may be UTF-8
    CATENATE = "CATENATE"  # RFC 4469: parts, of text and of URLs


@dataclass(frozen=True, slots=True)
class LiteralHead:
    """An announced literal; its `size` octets follow where the scanner stands, unless they are streamed."""

    size: int
    is_binary: bool = False


@dataclass(frozen=True, slots=True)
class AppendHead:
    """What stands before the octets of a message. `literal` is None for CATENATE: ask `parse_catenate_part`."""

    flags: frozenset[str]
    internal_date: datetime | None
    form: AppendForm = AppendForm.LITERAL
    literal: LiteralHead | None = None


# append = "APPEND" SP mailbox 1*append-message
def parse_append_mailbox(scanner: Scanner) -> bytes:
    """The mailbox, from the SP behind the name; the scanner then stands before the SP of the first message."""
    scanner.space()
    return scanner.astring()


def parse_localappend_mailbox(scanner: Scanner) -> bytes:
    """Cyrus' LOCALAPPEND, which its frontends send for APPEND: the mailbox, and a unique id that may be empty."""
    scanner.space()
    mailbox = scanner.astring()
    scanner.space()
    scanner.astring()
    return mailbox


# replace = "REPLACE" SP seq-number SP mailbox append-message
def parse_replace_target(scanner: Scanner) -> tuple[SeqNum | Uid, bytes]:
    """The message to be replaced and the mailbox, of REPLACE and UID REPLACE."""
    scanner.space()
    number = scanner.number()
    if not number:
        raise scanner.bad("a number from 1")
    scanner.space()
    return Uid(number), scanner.astring()


# append-message = [SP flag-list] [SP date-time] [SP append-ext] SP append-data
def parse_append_head(scanner: Scanner) -> AppendHead:
    """From the SP before a message to behind its literal's announcement (or behind `CATENATE (`)."""
    scanner.space()
    flags: frozenset[str] = frozenset()
    internal_date: datetime | None = None
    if scanner.peek() == b"(":
        flags = parse_flag_list(scanner)
        scanner.space()
    if scanner.peek() == b'"':
        internal_date = parse_date_time(scanner)
        scanner.space()
    if scanner.accept_word(b"CATENATE"):
        scanner.space()
        scanner.open()
        return AppendHead(flags, internal_date, AppendForm.CATENATE)
    if scanner.accept_word(b"UTF8"):
        scanner.space()
        scanner.open()
        return AppendHead(flags, internal_date, AppendForm.UTF8, parse_literal_head(scanner))
    return AppendHead(flags, internal_date, AppendForm.LITERAL, parse_literal_head(scanner))


def parse_literal_head(scanner: Scanner) -> LiteralHead:
    """`{n}`, `{n+}` or `~{n}` with its line end."""
    match = LITERAL.match(scanner.octets, scanner.at)
    if match is None:
        raise scanner.bad("a literal")
    scanner.at = match.end()
    return LiteralHead(int(match.group(2)), bool(match.group(1)))


def take_literal(scanner: Scanner, literal: LiteralHead) -> bytes:
    """The octets of a literal that is in place."""
    end = scanner.at + literal.size
    if end > len(scanner.octets):
        raise scanner.bad("a whole literal")
    octets = scanner.octets[scanner.at : end]
    scanner.at = end
    return octets


# catenate = "CATENATE" SP "(" cat-part *(SP cat-part) ")"
# cat-part = ("URL" SP astring) / ("TEXT" SP literal)
def parse_catenate_part(scanner: Scanner, first: bool = False) -> bytes | LiteralHead | None:
    """A URL's octets, the announcement of a text, or None at the closing parenthesis, which is taken."""
    if not first:
        if scanner.accept(b")"):
            return None
        scanner.space()
    if scanner.accept_word(b"URL"):
        scanner.space()
        return scanner.astring()
    if scanner.accept_word(b"TEXT"):
        scanner.space()
        return parse_literal_head(scanner)
    raise scanner.bad("URL or TEXT")


def parse_append_end(scanner: Scanner, form: AppendForm) -> bool:
    """What follows the octets of a message: whether another message does (its head is then next, from the SP)."""
    if form is AppendForm.UTF8:
        scanner.close()
    if scanner.at_end():
        scanner.end()
        return False
    if scanner.peek() != b" ":
        raise scanner.bad("another message or the end of the command")
    return True
