"""FETCH and UID FETCH: arguments and answers (RFC 3501 §6.4.5 and §7.4.2, RFC 3516, 7162, 8474, 8514, 8970, 9394)."""

import functools
import re
from datetime import datetime
from typing import Final

from murder.errors import BadSyntax
from murder.model.message import ModSeq
from murder.model.query.fetch import (
    ALL,
    FAST,
    FULL,
    Attribute,
    BodyItem,
    FetchItem,
    FetchRequest,
    Form,
    Preview,
    Section,
    SectionText,
)
from murder.wire.imap.date import format_date_time
from murder.wire.imap.partial import parse_partial
from murder.wire.imap.seqset import parse_seqset
from murder.wire.token import Scanner, astring, literal, nstring

MAX_PART_DEPTH: Final = 100  # as deep as `mime` looks
# of one command: header and body of each part of a message of a hundred parts
MAX_ITEMS: Final = 250
MAX_FIELDS: Final = 250  # of one section
MAX_MODSEQ: Final = 2**63 - 1
# of what is asked for: a mail program asks for the same of message after message
REMEMBERED_OCTETS: Final = 200
MOST_REMEMBERED: Final = 256

_LAZY: Final = re.compile(rb" *+\( *+LAZY *+\)", re.IGNORECASE)
_NAME: Final = re.compile(rb"[A-Za-z0-9.]+")
# possessive: a group that may give back remembers each of its turns, half a million in a line of 1 MB
_PART: Final = re.compile(
    rb"[1-9][0-9]{0,8}+(?:\.[1-9][0-9]{0,8}+){0,%d}+(?=[].])" % MAX_PART_DEPTH
)
_SECTION_TEXT: Final = re.compile(rb"[A-Za-z.]*")
# without a number of octets (to the end) Dovecot takes it, too, and its clients rely on it
_PARTIAL: Final = re.compile(rb"<([0-9]{1,10})(?:\.([0-9]{1,10}))?>")
_TO_THE_END: Final = 2**32 - 1  # octets; no message has more

_MACROS: Final = {b"ALL": ALL, b"FAST": FAST, b"FULL": FULL}
_ATTRIBUTES: Final = {attribute.value.encode(): attribute for attribute in Attribute}
_OLD_NAMES: Final = {
    b"RFC822": BodyItem(form=Form.RFC822),
    b"RFC822.PEEK": BodyItem(peek=True, form=Form.RFC822),  # what Cyrus 3.6 frontends send to copy
    b"RFC822.HEADER": BodyItem(
        Section(text=SectionText.HEADER), peek=True, form=Form.RFC822_HEADER
    ),
    b"RFC822.TEXT": BodyItem(Section(text=SectionText.TEXT), form=Form.RFC822_TEXT),
}
_SECTIONED: Final = {  # name before "[" -> (form, peek)
    b"BODY": (Form.BODY, False),
    b"BODY.PEEK": (Form.BODY, True),
    b"BINARY": (Form.BINARY, False),
    b"BINARY.PEEK": (Form.BINARY, True),
    b"BINARY.SIZE": (Form.BINARY_SIZE, True),
}
_SECTION_TEXTS: Final = {text.value.encode(): text for text in SectionText}


# fetch = "FETCH" SP sequence-set SP ("ALL" / "FULL" / "FAST" / fetch-att / "(" fetch-att *(SP fetch-att) ")")
#         [SP fetch-modifiers]
def parse_fetch(
    scanner: Scanner, by_uid: bool = False, *, implies_uid: bool = True
) -> FetchRequest:
    """All arguments, from the SP behind the name to the line end. UID is among the items of every UID FETCH (unless
    not `implies_uid`: RFC 9586 §3.3), MODSEQ among those of one with CHANGEDSINCE; an item named twice stands once."""
    scanner.space()
    sequence = parse_seqset(scanner)
    scanner.space()
    octets, with_uid = scanner.octets, by_uid and implies_uid
    if len(octets) - scanner.at <= REMEMBERED_OCTETS:
        known = _items_alone(octets[scanner.at :], with_uid)
        if known:
            scanner.at = len(octets)
            return FetchRequest(sequence, known)
    items = _parse_asked(scanner, with_uid)
    changed_since: ModSeq | None = None
    vanished = False
    partial: tuple[int, int] | None = None
    if not scanner.at_end():
        scanner.space()
        scanner.open()
        while True:
            if scanner.accept_word(b"CHANGEDSINCE"):
                scanner.space()
                changed_since = ModSeq(scanner.number(MAX_MODSEQ))
                items.setdefault(Attribute.MODSEQ, None)
            elif by_uid and scanner.accept_word(b"VANISHED"):
                vanished = True
            elif by_uid and scanner.accept_word(b"PARTIAL"):
                scanner.space()
                partial = parse_partial(scanner)
            else:
                raise scanner.bad("a FETCH modifier")
            if scanner.accept(b")"):
                break
            scanner.space()
    if vanished and changed_since is None:
        raise scanner.bad("CHANGEDSINCE with VANISHED")
    scanner.end()
    return FetchRequest(sequence, tuple(items), changed_since, vanished, partial)


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def _items_alone(octets: bytes, with_uid: bool) -> tuple[FetchItem, ...]:
    """What a command without modifiers asks for, by its octets from there on; nothing where it has some, or is none."""
    scanner = Scanner(octets)
    try:
        items = _parse_asked(scanner, with_uid)
        scanner.end()
    except BadSyntax:
        return ()
    return tuple(items)


def _parse_asked(scanner: Scanner, with_uid: bool) -> dict[FetchItem, None]:
    items: dict[FetchItem, None] = {Attribute.UID: None} if with_uid else {}
    if scanner.accept(b"("):
        _parse_items(scanner, items)
    else:
        items.update(dict.fromkeys(_parse_macro_or_item(scanner)))
    return items


# "(" fetch-att *(SP fetch-att) ")"
def parse_item_list(scanner: Scanner) -> tuple[FetchItem, ...]:
    """Items in parentheses, each once; also in NOTIFY."""
    scanner.open()
    items: dict[FetchItem, None] = {}
    _parse_items(scanner, items)
    return tuple(items)


def _parse_items(scanner: Scanner, items: dict[FetchItem, None]) -> None:
    """Items up to and with the closing parenthesis."""
    while True:
        items[_parse_item(scanner)] = None
        if len(items) > MAX_ITEMS:
            raise scanner.bad(f"at most {MAX_ITEMS} FETCH items")
        if scanner.accept(b")"):
            return
        scanner.space()


def _parse_macro_or_item(scanner: Scanner) -> tuple[FetchItem, ...]:
    for word, items in _MACROS.items():
        if scanner.accept_word(word):
            return items
    return (_parse_item(scanner),)


# fetch-att = "ENVELOPE" / "FLAGS" / … / "BODY" section ["<" number "." nz-number ">"] / …
def _parse_item(scanner: Scanner) -> FetchItem:
    match = _NAME.match(scanner.octets, scanner.at)
    if match is None:
        raise scanner.bad("a FETCH item")
    name = match.group().upper()
    if scanner.octets.startswith(b"[", match.end()):
        if name in _SECTIONED:
            scanner.at = match.end()
            return _parse_body_item(scanner, *_SECTIONED[name])
    elif name in _ATTRIBUTES:
        scanner.at = match.end()
        return _ATTRIBUTES[name]
    elif name in _OLD_NAMES:
        scanner.at = match.end()
        return _OLD_NAMES[name]
    elif name == b"PREVIEW":
        scanner.at = match.end()
        lazy = _LAZY.match(scanner.octets, scanner.at)
        if lazy is not None:
            scanner.at = lazy.end()
        return Preview(lazy is not None)
    raise scanner.bad("a FETCH item")


def _parse_body_item(scanner: Scanner, form: Form, peek: bool) -> BodyItem:
    """BINARY of a header or a text is in no grammar (RFC 3516 §7 has part numbers only): it is told as BODY is, as Dovecot
    does."""
    scanner.expect(b"[")
    section = parse_section(scanner)
    partial = None
    match = _PARTIAL.match(scanner.octets, scanner.at)
    if match is not None and form is not Form.BINARY_SIZE:
        partial = (int(match.group(1)), int(match.group(2) or _TO_THE_END))
        scanner.at = match.end()
    return BodyItem(section, partial, peek, form)


# section = "[" [section-spec] "]"; section-spec = section-msgtext / (section-part ["." section-text])
def parse_section(scanner: Scanner) -> Section:
    """What stands between the brackets, and the closing one."""
    part: tuple[int, ...] = ()
    dotted = True
    match = _PART.match(scanner.octets, scanner.at)
    if match is not None:
        if match.group().count(b".") >= MAX_PART_DEPTH:
            raise scanner.bad(f"a part at most {MAX_PART_DEPTH} deep")
        part = tuple(map(int, match.group().split(b".")))
        scanner.at = match.end()
        dotted = scanner.accept(b".")
    start = scanner.at
    word = _SECTION_TEXT.match(scanner.octets, start)
    text = _SECTION_TEXTS.get(word.group().upper()) if word is not None and dotted else None
    if not dotted:
        text = SectionText.WHOLE
    elif text is None or (text is SectionText.WHOLE and part):
        raise scanner.bad("HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or MIME")
    elif word is not None:
        scanner.at = word.end()
    if text is SectionText.MIME and not part:
        scanner.at = start
        raise scanner.bad("a part number before MIME")
    fields: tuple[bytes, ...] = ()
    if text in (SectionText.HEADER_FIELDS, SectionText.HEADER_FIELDS_NOT):
        scanner.space()
        fields = _parse_field_names(scanner)
        scanner.blanks()
    scanner.expect(b"]")
    return Section(part, text, fields)


# header-list = "(" header-fld-name *(SP header-fld-name) ")"
def _parse_field_names(scanner: Scanner) -> tuple[bytes, ...]:
    scanner.open()
    names = [scanner.astring()]
    while not scanner.accept(b")"):
        scanner.space()
        names.append(scanner.astring())
        if len(names) > MAX_FIELDS:
            raise scanner.bad(f"at most {MAX_FIELDS} header fields")
    return tuple(names)


def item_name(item: BodyItem) -> bytes:
    """How the answer to an item is called: `BODY[1.HEADER.FIELDS (From)]<0>`, fields as the client wrote them."""
    word = bytes(item.form.value, "ascii")
    if item.form in (Form.RFC822, Form.RFC822_HEADER, Form.RFC822_TEXT):
        return word
    origin = b"" if item.partial is None else b"<%d>" % item.partial[0]
    return b"%s[%s]%s" % (word, format_section(item.section), origin)


def format_section(section: Section) -> bytes:
    """The inside of the brackets."""
    words = [b"%d" % number for number in section.part]
    if section.text is not SectionText.WHOLE:
        words.append(section.text.value.encode())
    text = b".".join(words)
    if section.fields:
        text += b" (" + b" ".join(map(astring, section.fields)) + b")"
    return text


def cut(octets: memoryview | bytes, partial: tuple[int, int] | None) -> memoryview | bytes:
    """What a partial fetch leaves of the octets."""
    if partial is None:
        return octets
    first, most = partial
    return octets[first : first + most]


def format_body_head(item: BodyItem, size: int, *, has_nul: bool = False) -> bytes:
    """`BODY[…] {size}CRLF`: the octets themselves follow (after `cut`); so large ones need no copy. Only BINARY may have
    NUL in them (RFC 3516 §4.3)."""
    tilde = b"~" if has_nul and item.form is Form.BINARY else b""
    return b"%s %s{%d}\r\n" % (item_name(item), tilde, size)


def format_body(item: BodyItem, octets: bytes | memoryview | None) -> bytes:
    """One whole piece of a FETCH answer. None: there is no such part."""
    if octets is None:
        return item_name(item) + b" NIL"
    if item.form is Form.BINARY_SIZE:
        return item_name(item) + b" %d" % len(octets)
    octets = bytes(octets)
    if item.form is Form.BINARY and b"\x00" in octets:
        return item_name(item) + b" ~" + literal(octets)
    return item_name(item) + b" " + literal(octets)


def format_save_date_piece(moment: datetime | None) -> bytes:
    """RFC 8514 §4.3; None where the store does not know it."""
    return b"SAVEDATE " + (b"NIL" if moment is None else format_date_time(moment))


def format_id_piece(attribute: Attribute, object_id: str) -> bytes:
    """EMAILID or THREADID; a store without thread ids tells NIL (RFC 8474 §5.2)."""
    value = b"(%s)" % object_id.encode("ascii") if object_id else b"NIL"
    return attribute.value.encode() + b" " + value


def format_preview_piece(text: str | None) -> bytes:
    """RFC 8970 §3; None where there is none yet."""
    return b"PREVIEW " + nstring(None if text is None else text.encode("utf-8", "replace"))
