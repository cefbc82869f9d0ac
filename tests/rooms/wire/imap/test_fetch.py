"""FETCH: what may be asked, and how it is answered."""

import tracemalloc
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from murder.model.seqset import SAVED, STAR, SeqSet
from murder.wire.imap.mail.fetch import (
    cut,
    format_body,
    format_body_head,
    format_id_piece,
    item_name,
    parse_fetch,
    parse_section,
)
from murder.wire.token import Scanner
from tests.rooms.wire.imap.grammar import check_row, check_survives

ONE = SeqSet(((1, 1),))
HEADER = Section(text=SectionText.HEADER)

ROWS: list[tuple[bytes, FetchRequest]] = [
    (b" 1 FLAGS", FetchRequest(ONE, (Attribute.FLAGS,))),
    (b" 2:4 all", FetchRequest(SeqSet(((2, 4),)), ALL)),
    (b" $ FAST", FetchRequest(SAVED, FAST)),
    (b" 1,3:* FULL", FetchRequest(SeqSet(((1, 1), (3, STAR))), FULL)),
    (b" 1 (FLAGS UID flags)", FetchRequest(ONE, (Attribute.FLAGS, Attribute.UID))),
    (b" 1 RFC822.SIZE", FetchRequest(ONE, (Attribute.RFC822_SIZE,))),
    (b" 1 RFC822", FetchRequest(ONE, (BodyItem(form=Form.RFC822),))),
    (
        b" 1:2 (Rfc822.peek)",
        FetchRequest(SeqSet(((1, 2),)), (BodyItem(peek=True, form=Form.RFC822),)),
    ),
    (
        b" 1 RFC822.HEADER",
        FetchRequest(ONE, (BodyItem(HEADER, peek=True, form=Form.RFC822_HEADER),)),
    ),
    (b" 1 BODY", FetchRequest(ONE, (Attribute.BODY,))),
    (b" 1 BODY[]", FetchRequest(ONE, (BodyItem(),))),
    (b" 1 BODY.PEEK[]<0.2048>", FetchRequest(ONE, (BodyItem(partial=(0, 2048), peek=True),))),
    (b" 1 body[header]", FetchRequest(ONE, (BodyItem(HEADER),))),
    (b" 1 BODY[1.2.3]", FetchRequest(ONE, (BodyItem(Section((1, 2, 3))),))),
    (b" 1 BODY[4.MIME]", FetchRequest(ONE, (BodyItem(Section((4,), SectionText.MIME)),))),
    (b" 1 BODY[4.1.TEXT]", FetchRequest(ONE, (BodyItem(Section((4, 1), SectionText.TEXT)),))),
    (
        b' 1 BODY.PEEK[HEADER.FIELDS (From "To" {4+}\r\nDate)]',
        FetchRequest(
            ONE,
            (
                BodyItem(
                    Section((), SectionText.HEADER_FIELDS, (b"From", b"To", b"Date")), peek=True
                ),
            ),
        ),
    ),
    (
        b" 1 (UID BODY[2.HEADER.FIELDS.NOT (Received)]<5.6>)",
        FetchRequest(
            ONE,
            (
                Attribute.UID,
                BodyItem(Section((2,), SectionText.HEADER_FIELDS_NOT, (b"Received",)), (5, 6)),
            ),
        ),
    ),
    (
        b" 1 BINARY.PEEK[1]<0.5>",
        FetchRequest(ONE, (BodyItem(Section((1,)), (0, 5), True, Form.BINARY),)),
    ),
    (
        b" 1 BODY.PEEK[1]<15>",
        FetchRequest(ONE, (BodyItem(Section((1,)), (15, 2**32 - 1), True),)),
    ),
    (
        b" 1 BINARY[2.TEXT]",
        FetchRequest(ONE, (BodyItem(Section((2,), SectionText.TEXT), form=Form.BINARY),)),
    ),
    (
        b" 1 BINARY.SIZE[1]",
        FetchRequest(ONE, (BodyItem(Section((1,)), None, True, Form.BINARY_SIZE),)),
    ),
    (b" 1 (PREVIEW EMAILID)", FetchRequest(ONE, (Preview(), Attribute.EMAILID))),
    (b" 1 (PREVIEW (LAZY) SAVEDATE)", FetchRequest(ONE, (Preview(True), Attribute.SAVEDATE))),
    (
        b" 1 FLAGS (CHANGEDSINCE 12345)",
        FetchRequest(ONE, (Attribute.FLAGS, Attribute.MODSEQ), ModSeq(12345)),
    ),
]

UID_ROWS: list[tuple[bytes, FetchRequest]] = [
    (b" 1 FLAGS", FetchRequest(ONE, (Attribute.UID, Attribute.FLAGS))),
    (
        b" 300:500 (FLAGS) (CHANGEDSINCE 1 VANISHED)",
        FetchRequest(
            SeqSet(((300, 500),)),
            (Attribute.UID, Attribute.FLAGS, Attribute.MODSEQ),
            ModSeq(1),
            True,
        ),
    ),
    (b" 1 UID (PARTIAL -1:-30)", FetchRequest(ONE, (Attribute.UID,), partial=(-1, -30))),
]


@pytest.mark.parametrize(("octets", "request_"), ROWS)
def test_fetch_is_parsed(octets: bytes, request_: FetchRequest) -> None:
    check_row(parse_fetch, octets, request_)


@pytest.mark.parametrize(("octets", "request_"), UID_ROWS)
def test_uid_fetch_is_parsed(octets: bytes, request_: FetchRequest) -> None:
    check_row(partial(parse_fetch, by_uid=True), octets, request_)


BAD = [
    (b" 0 FLAGS", 1),
    (b" 1:0 FLAGS", 1),
    (b" 4294967296 FLAGS", 1),
    (b" 1,,2 FLAGS", 1),
    (b" 1", 2),
    (b" 1 ", 3),
    (b" 1 ()", 4),
    (b" 1 NONSENSE", 3),
    (b" 1 (FLAGS ALL)", 10),
    (b" 1 BODY[", 8),
    (b" 1 BODY[0]", 8),
    (b" 1 BODY[MIME]", 8),
    (b" 1 BODY[1.]", 10),
    (b" 1 BODY[1.NONSENSE]", 10),
    (b" 1 BODY[HEADER.FIELDS ()]", 23),
    (b" 1 FLAGS[1]", 3),
    (b" 1 FLAGS (VANISHED)", 10),
    (b" 1 FLAGS ()", 10),
]


@pytest.mark.parametrize(("octets", "offset"), BAD)
def test_anything_else_is_bad_at_its_offset(octets: bytes, offset: int) -> None:
    with pytest.raises(BadSyntax) as caught:
        parse_fetch(Scanner(octets + b"\r\n"))
    assert caught.value.offset == offset


def test_deep_parts_and_many_items_are_bounded() -> None:
    with pytest.raises(BadSyntax):
        parse_fetch(Scanner(b" 1 BODY[" + b".".join([b"1"] * 101) + b"]\r\n"))
    items = b" ".join(b"BODY[%d]" % number for number in range(1, 2000))
    with pytest.raises(BadSyntax):
        parse_fetch(Scanner(b" 1 (" + items + b")\r\n"))


NAMES: list[tuple[FetchItem, bytes]] = [
    (BodyItem(), b"BODY[]"),
    (BodyItem(form=Form.RFC822), b"RFC822"),
    (BodyItem(HEADER, peek=True, form=Form.RFC822_HEADER), b"RFC822.HEADER"),
    (BodyItem(Section((1, 2), SectionText.MIME), (7, 9), True), b"BODY[1.2.MIME]<7>"),
    (
        BodyItem(Section((), SectionText.HEADER_FIELDS, (b"From", b"a b"))),
        b'BODY[HEADER.FIELDS (From "a b")]',
    ),
    (BodyItem(Section((1,)), None, True, Form.BINARY_SIZE), b"BINARY.SIZE[1]"),
]


@pytest.mark.parametrize(("item", "name"), NAMES)
def test_an_answer_is_called_as_the_client_asked(item: BodyItem, name: bytes) -> None:
    assert item_name(item) == name


def test_a_piece_says_what_it_is() -> None:
    assert format_id_piece(Attribute.EMAILID, "M1") == b"EMAILID (M1)"
    assert format_id_piece(Attribute.THREADID, "") == b"THREADID NIL"
    assert format_body(BodyItem(), b"a\r\n") == b"BODY[] {3}\r\na\r\n"
    assert format_body(BodyItem(Section((3,))), None) == b"BODY[3] NIL"


def test_large_octets_need_only_a_head() -> None:
    item = BodyItem(partial=(2, 3))
    octets = memoryview(b"abcdefgh")
    left = cut(octets, item.partial)
    assert bytes(left) == b"cde"
    assert format_body_head(item, len(left)) + bytes(left) == format_body(item, left)
    assert bytes(cut(octets, (7, 100))) == b"h"
    assert bytes(cut(octets, (100, 1))) == b""


def test_binary_with_nul_is_a_literal8() -> None:
    item = BodyItem(Section((1,)), form=Form.BINARY)
    assert format_body(item, b"\x00") == b"BINARY[1] ~{1}\r\n\x00"
    assert format_body(item, b"a") == b"BINARY[1] {1}\r\na"


@given(
    st.lists(
        st.sampled_from(
            b' ( ) [ ] < > . 1 * : , BODY FLAGS PEEK HEADER FIELDS \x00 " { }'.split(b" ")
        ),
        max_size=12,
    )
)
def test_no_octets_raise_anything_else(words: list[bytes]) -> None:
    check_survives(parse_fetch, b" 1 " + b"".join(words) + b"\r\n")
    check_survives(parse_fetch, b" " + b" ".join(words) + b"\r\n")


def test_a_part_of_a_megabyte_costs_no_memory() -> None:
    """Each turn of the group was remembered: 49 MiB, and 40 ms that nobody could interrupt."""
    scanner = Scanner(b"1" + b".1" * 500_000 + b"]")
    tracemalloc.start()
    try:
        with pytest.raises(BadSyntax):
            parse_section(scanner)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100_000
