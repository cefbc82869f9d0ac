"""STATUS (RFC 3501 §6.3.10 and §7.2.4, RFC 5819, 7162, 7889, 8438, 8474, 9208), both directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from murder.model.query.status import StatusItem
from murder.wire.token import Scanner, astring

MAX_COUNT: Final = 2**63 - 1  # RFC 7162 §7, RFC 8438 §4: number64
MAX_ITEMS: Final = 100  # with those that are named again
_ITEMS: Final = {item.value.encode(): item for item in StatusItem}


@dataclass(frozen=True, slots=True)
class StatusRequest:
    mailbox: bytes  # as the client wrote it
    items: tuple[StatusItem, ...]  # in the order asked for, each once


# status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")"
def parse_status(scanner: Scanner) -> StatusRequest:
    """Raises BadSyntax for an item that is not known."""
    scanner.space()
    mailbox = scanner.astring()
    scanner.space()
    items = parse_status_items(scanner)
    scanner.end()
    return StatusRequest(mailbox, items)


def parse_status_items(scanner: Scanner) -> tuple[StatusItem, ...]:
    """The items in their parentheses; also in LIST RETURN (STATUS (…))."""
    scanner.open()
    items: dict[StatusItem, None] = {}
    words = 0
    while True:
        start = scanner.at
        item = _ITEMS.get(scanner.word())
        if item is None:
            scanner.at = start
            raise scanner.bad("a STATUS item")
        items[item] = None
        words += 1
        if words > MAX_ITEMS:
            raise scanner.bad(f"at most {MAX_ITEMS} items")
        if scanner.accept(b")"):
            return tuple(items)
        scanner.space()


# mailbox-data =/ "STATUS" SP mailbox SP "(" [status-att-list] ")"
def parse_counts(octets: bytes) -> dict[StatusItem, int]:
    """One answer, of which these octets follow `* STATUS `, to who has asked for numbers only. Raises BadSyntax."""
    scanner = Scanner(octets)
    scanner.astring()
    scanner.space()
    scanner.open()
    counts: dict[StatusItem, int] = {}
    while not scanner.accept(b")"):
        item = _ITEMS.get(scanner.word())
        scanner.space()
        count = scanner.number(MAX_COUNT)
        if item is not None:
            counts[item] = count
        if scanner.peek() != b")":
            scanner.space()
    return counts


StatusValue = int | str | None


def format_status(mailbox: bytes, values: Mapping[StatusItem, StatusValue]) -> bytes:
    """`* STATUS mailbox (…)CRLF`. A string is an object id; None (of APPENDLIMIT) is NIL."""
    pieces = [_format_value(item, value) for item, value in values.items()]
    return b"* STATUS %s (%s)\r\n" % (astring(mailbox), b" ".join(pieces))


def _format_value(item: StatusItem, value: StatusValue) -> bytes:
    match value:
        case None:
            text = b"NIL"
        case int():
            text = b"%d" % value
        case str():
            text = b"(" + value.encode("ascii") + b")"
    return item.value.encode() + b" " + text
