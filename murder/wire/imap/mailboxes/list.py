"""LIST, LSUB, RLIST, RLSUB, XLIST and their answers, both directions (RFC 3501 §6.3.8, RFC 5258, 5819, 6154, 8440, 9590).

One grammar for the plain and the extended form: a plain LIST is one pattern and no options.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeVar

from murder.model.annotation import MAX_ENTRIES_OF_COMMAND
from murder.model.query.listing import ListRow, Node
from murder.model.query.status import StatusItem
from murder.wire.imap.mailboxes.status import parse_status_items
from murder.wire.token import Scanner, astring, quoted, string

MAX_PATTERNS: Final = 100
MAX_OPTIONS: Final = 100  # to select by, or to return; there are six

_Word = TypeVar("_Word", bound=Enum)


class Selection(Enum):
    """list-select-opt: which names are meant."""

    __hash__ = object.__hash__  # of C: asked for with each name

    SUBSCRIBED = "SUBSCRIBED"
    REMOTE = "REMOTE"
    RECURSIVEMATCH = "RECURSIVEMATCH"
    SPECIAL_USE = "SPECIAL-USE"


class Return(Enum):
    """return-option: what is told of each name."""

    __hash__ = object.__hash__  # of C: asked for with each name

    SUBSCRIBED = "SUBSCRIBED"
    CHILDREN = "CHILDREN"
    SPECIAL_USE = "SPECIAL-USE"
    STATUS = "STATUS"
    MYRIGHTS = "MYRIGHTS"
    METADATA = "METADATA"


@dataclass(frozen=True, slots=True)
class ListRequest:
    """A LIST or one of its kin. `reference` and `patterns` are octets as the client wrote them.

    `extended`: the client used the syntax of RFC 5258, and so gets `\\NonExistent`, CHILDINFO and the like.
    """

    reference: bytes
    patterns: tuple[bytes, ...]
    extended: bool = False
    selection: frozenset[Selection] = field(default_factory=frozenset)
    returns: frozenset[Return] = field(default_factory=frozenset)
    status_items: tuple[StatusItem, ...] = ()
    metadata_entries: tuple[bytes, ...] = ()

    @property
    def asks_separator(self) -> bool:
        """RFC 3501 §6.3.8: an empty pattern asks for the hierarchy separator and the reference's root."""
        return self.patterns == (b"",) and not self.extended


# list = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts]
# mbox-or-pat = list-mailbox / "(" list-mailbox *(SP list-mailbox) ")"
# list-return-opts = "RETURN" SP "(" [return-option *(SP return-option)] ")"
def parse_list(scanner: Scanner) -> ListRequest:
    """All arguments, from the SP behind the name to the line end. LSUB, RLIST and XLIST have the plain form of it."""
    scanner.space()
    extended = False
    selection: frozenset[Selection] = frozenset()
    if scanner.peek() == b"(":
        extended = True
        selection = _parse_selection(scanner)
        scanner.space()
    reference = scanner.astring()
    scanner.space()
    patterns: tuple[bytes, ...]
    if scanner.accept(b"("):
        extended = True
        patterns = _parse_patterns(scanner)
    else:
        patterns = (scanner.list_mailbox(),)
    if scanner.at_end():
        scanner.end()
        return ListRequest(reference, patterns, extended, selection)
    scanner.space()
    if not scanner.accept_word(b"RETURN"):
        raise scanner.bad("RETURN")
    scanner.space()
    returns = _Returns()
    returns.parse(scanner)
    scanner.end()
    return ListRequest(
        reference,
        patterns,
        True,
        selection,
        frozenset(returns.options),
        returns.status_items,
        returns.metadata_entries,
    )


def _parse_selection(scanner: Scanner) -> frozenset[Selection]:
    start = scanner.at
    scanner.open()
    chosen: set[Selection] = set()
    words = 0
    while not scanner.accept(b")"):
        words += 1
        if words > MAX_OPTIONS:
            raise scanner.bad(f"at most {MAX_OPTIONS} options")
        chosen.add(_parse_word(scanner, Selection, "SUBSCRIBED, REMOTE, RECURSIVEMATCH"))
        if scanner.peek() != b")":
            scanner.space()
    if chosen and chosen <= {Selection.RECURSIVEMATCH, Selection.REMOTE}:
        # RFC 5258 §3: RECURSIVEMATCH needs an option that it can look for below
        if Selection.RECURSIVEMATCH in chosen:
            scanner.at = start
            raise scanner.bad("SUBSCRIBED with RECURSIVEMATCH")
    return frozenset(chosen)


def _parse_patterns(scanner: Scanner) -> tuple[bytes, ...]:
    patterns = [scanner.list_mailbox()]
    while not scanner.accept(b")"):
        scanner.space()
        patterns.append(scanner.list_mailbox())
        if len(patterns) > MAX_PATTERNS:
            raise scanner.bad(f"at most {MAX_PATTERNS} patterns")
    return tuple(patterns)


class _Returns:
    """What RETURN (…) gathers."""

    __slots__ = ("metadata_entries", "options", "status_items")

    def __init__(self) -> None:
        self.options: set[Return] = set()
        self.status_items: tuple[StatusItem, ...] = ()
        self.metadata_entries: tuple[bytes, ...] = ()

    def parse(self, scanner: Scanner) -> None:
        scanner.open()
        words = 0
        while not scanner.accept(b")"):
            words += 1
            if words > MAX_OPTIONS:
                raise scanner.bad(f"at most {MAX_OPTIONS} options")
            option = _parse_word(scanner, Return, "a LIST return option")
            self.options.add(option)
            if option is Return.STATUS:
                scanner.space()
                self.status_items = parse_status_items(scanner)
            elif option is Return.METADATA:
                scanner.space()
                self.metadata_entries = _parse_entries(scanner)
            if scanner.peek() != b")":
                scanner.space()


def _parse_entries(scanner: Scanner) -> tuple[bytes, ...]:
    scanner.open()
    entries = [scanner.astring()]
    while not scanner.accept(b")"):
        scanner.space()
        entries.append(scanner.astring())
        if len(entries) > MAX_ENTRIES_OF_COMMAND:
            raise scanner.bad(f"at most {MAX_ENTRIES_OF_COMMAND} entries")
    return tuple(entries)


def _parse_word(scanner: Scanner, words: type[_Word], expected: str) -> _Word:
    start = scanner.at
    word = scanner.word()
    try:
        return words(word.decode("ascii"))
    except ValueError:
        scanner.at = start
        raise scanner.bad(expected) from None


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One LIST (or LSUB) answer. Attributes as on the wire, `\\HasChildren`; `separator` None is NIL.

    `child_info` names the selection options that something below this name fulfils (RFC 5258 §3.5), `old_name` the
    name before a rename (RFC 9051 §6.3.9.7); both as octets of the wire.
    """

    attributes: tuple[str, ...]
    separator: bytes | None
    name: bytes
    child_info: tuple[str, ...] = ()
    old_name: bytes | None = None


def attributes_of(row: ListRow | Node, extended: bool) -> tuple[str, ...]:
    """RFC 3348's children, and what a level that is no mailbox is called."""
    children = "\\HasChildren" if row.has_children else "\\HasNoChildren"
    if row.exists:
        return (children,)
    return ("\\NonExistent" if extended else "\\Noselect", children)


def separator_entry(reference: bytes, separator: bytes) -> ListEntry:
    """RFC 3501 §6.3.8: what an empty pattern asks for, the separator and the root of the reference."""
    root, end, _ = reference.partition(separator)
    return ListEntry(("\\Noselect",), separator, root + end if end else b"")


# mailbox-list = "(" [mbx-list-flags] ")" SP (DQUOTE QUOTED-CHAR DQUOTE / nil) SP mailbox [SP mbox-list-extended]
def format_list(entry: ListEntry, word: bytes = b"LIST") -> bytes:
    """`* LIST (attributes) "/" name …CRLF`; `word` is LSUB or XLIST for these."""
    separator = b"NIL" if entry.separator is None else quoted(entry.separator)
    attributes = " ".join(entry.attributes).encode("ascii")
    line = b"* %s (%s) %s %s" % (word, attributes, separator, astring(entry.name))
    extended = []
    if entry.child_info:
        words = b" ".join(quoted(word.encode("ascii")) for word in entry.child_info)
        extended.append(b'"CHILDINFO" (%s)' % words)
    if entry.old_name is not None:
        extended.append(b'"OLDNAME" (%s)' % string(entry.old_name))
    if extended:
        line += b" (" + b" ".join(extended) + b")"
    return line + b"\r\n"


def parse_list_response(scanner: Scanner) -> ListEntry:
    """What follows `* LIST`, as another server wrote it; extended data that we do not know is skipped."""
    scanner.space()
    scanner.open()
    attributes: list[str] = []
    while not scanner.accept(b")"):
        attributes.append(scanner.flag().decode("ascii"))
        if scanner.peek() != b")":
            scanner.space()
    scanner.space()
    separator = scanner.nstring()
    scanner.space()
    name = scanner.astring()
    child_info: tuple[str, ...] = ()
    old_name: bytes | None = None
    if not scanner.at_end():
        scanner.space()
        scanner.open()
        while not scanner.accept(b")"):
            tag = scanner.astring().upper()
            scanner.space()
            values = _parse_values(scanner)
            if tag == b"CHILDINFO":
                child_info = tuple(value.decode("ascii", "replace") for value in values)
            elif tag == b"OLDNAME" and values:
                old_name = values[0]
            if scanner.peek() != b")":
                scanner.space()
    scanner.end()
    return ListEntry(tuple(attributes), separator, name, child_info, old_name)


# tagged-ext-val = tagged-ext-simple / "(" [tagged-ext-comp] ")"
def _parse_values(scanner: Scanner) -> list[bytes]:
    """A tagged-ext-val, its parentheses flattened."""
    values: list[bytes] = []
    depth = 0
    while True:
        if scanner.accept(b"("):
            depth += 1
            continue
        if depth and scanner.accept(b")"):
            depth -= 1
        else:
            values.append(scanner.astring())
        if not depth:
            return values
        scanner.accept(b" ")
