"""SEARCH, SORT and THREAD: the criteria tree that octets mean, and the answers."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax, Code, Refusal
from murder.model.message import ModSeq
from murder.model.query.fetch import Attribute
from murder.model.query.search import (
    AddressHas,
    All,
    And,
    BodyHas,
    DateIs,
    DateOf,
    EmailIdIs,
    Fuzzy,
    HasFlag,
    HeaderHas,
    ModSeqFrom,
    Not,
    Or,
    Relation,
    ReturnOption,
    SearchKey,
    SearchRequest,
    SearchResult,
    SeqNumIn,
    SizeIs,
    SortKey,
    SortOrder,
    TextHas,
    ThreadAlgorithm,
    UidIn,
    YoungerThan,
)
from murder.model.seqset import SAVED, STAR, SeqSet
from murder.wire.imap.mail.search import (
    format_esearch,
    format_search,
    parse_search,
    parse_sort,
    parse_thread,
)
from murder.wire.token import Scanner
from tests.rooms.wire.imap.grammar import check_row, check_survives

SEEN = HasFlag("\\Seen")

KEYS: list[tuple[bytes, SearchKey]] = [
    (b"ALL", All()),
    (b"unseen", Not(SEEN)),
    (b"NEW", And((HasFlag("\\Recent"), Not(SEEN)))),
    (b"OLD", Not(HasFlag("\\Recent"))),
    (b"1:3,7", SeqNumIn(SeqSet(((1, 3), (7, 7))))),
    (b"$", SeqNumIn(SAVED)),
    (b"*", SeqNumIn(SeqSet(((STAR, STAR),)))),
    (b"UID 5:*", UidIn(SeqSet(((5, STAR),)))),
    (b"NOT (SEEN ALL)", Not(And((SEEN, All())))),
    (b"OR SEEN (ALL)", Or(SEEN, All())),
    (b"SEEN ALL", And((SEEN, All()))),
    (b'FROM "Smith"', AddressHas("from", "Smith")),
    (b"SUBJECT {5+}\r\na b c", HeaderHas("subject", "a b c")),
    (b'HEADER Message-ID ""', HeaderHas("message-id", "")),
    (b"BODY x", BodyHas("x")),
    (b"TEXT x", TextHas("x")),
    (b"KEYWORD $Junk", HasFlag("$Junk")),
    (b"UNKEYWORD $Junk", Not(HasFlag("$Junk"))),
    (b"BEFORE 1-Feb-1994", DateIs(DateOf.INTERNAL, Relation.BEFORE, date(1994, 2, 1))),
    (b'SENTON "01-feb-1994"', DateIs(DateOf.SENT, Relation.ON, date(1994, 2, 1))),
    (b"SAVEDSINCE 29-Feb-2024", DateIs(DateOf.SAVED, Relation.SINCE, date(2024, 2, 29))),
    (b"LARGER 100", SizeIs(True, 100)),
    (b"SMALLER 0", SizeIs(False, 0)),
    (b"YOUNGER 60", YoungerThan(60)),
    (b"OLDER 60", Not(YoungerThan(60))),
    (b"MODSEQ 620162338", ModSeqFrom(ModSeq(620162338))),
    (b'MODSEQ "/flags/\\\\draft" all 620', ModSeqFrom(ModSeq(620))),
    (b"EMAILID M1_-x", EmailIdIs("M1_-x")),
    (b"FUZZY BODY x", Fuzzy(BodyHas("x"))),
]


@pytest.mark.parametrize(("octets", "key"), KEYS)
def test_a_key_is_parsed(octets: bytes, key: SearchKey) -> None:
    check_row(parse_search, b" " + octets, SearchRequest(key))


PROGRAMS: list[tuple[bytes, SearchRequest]] = [
    (b" RETURN () ALL", SearchRequest(All(), returns=frozenset({ReturnOption.ALL}))),
    (
        b' RETURN (MIN COUNT SAVE) CHARSET UTF-8 BODY "\xc3\xbc"',
        SearchRequest(
            BodyHas("\u00fc"),
            "UTF-8",
            frozenset({ReturnOption.MIN, ReturnOption.COUNT, ReturnOption.SAVE}),
        ),
    ),
    (
        b" RETURN (PARTIAL -1:-100) ALL",
        SearchRequest(All(), returns=frozenset({ReturnOption.PARTIAL}), partial=(-1, -100)),
    ),
    (
        b" RETURN (COUNT UPDATE (UID FLAGS) CONTEXT) ALL",
        SearchRequest(
            All(),
            returns=frozenset({ReturnOption.COUNT, ReturnOption.UPDATE, ReturnOption.CONTEXT}),
            update_items=(Attribute.UID, Attribute.FLAGS),
        ),
    ),
    (b' CHARSET "KOI8-R" BODY \xc6', SearchRequest(BodyHas("\u0444"), "KOI8-R")),
]


@pytest.mark.parametrize(("octets", "request_"), PROGRAMS[:4])
def test_options_and_charset_are_parsed(octets: bytes, request_: SearchRequest) -> None:
    check_row(parse_search, octets, request_)


def test_text_is_decoded_by_its_charset() -> None:
    octets = b" CHARSET KOI8-R BODY {1+}\r\n\xc6\r\n"
    assert parse_search(Scanner(octets)) == SearchRequest(BodyHas("\u0444"), "KOI8-R")


def test_sort_and_thread_are_parsed() -> None:
    check_row(
        parse_sort,
        b" (REVERSE DATE SUBJECT) UTF-8 ALL",
        SearchRequest(
            All(), "UTF-8", sort=(SortOrder(SortKey.DATE, True), SortOrder(SortKey.SUBJECT))
        ),
    )
    check_row(
        parse_thread,
        b" REFERENCES US-ASCII SEEN",
        SearchRequest(SEEN, thread=ThreadAlgorithm.REFERENCES),
    )


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b" ",
        b" NONSENSE",
        b" ()",
        b" OR SEEN",
        b" NOT",
        b" BEFORE 30-Feb-2024",
        b" BEFORE 1-Feb-19940",
        b" RETURN (WHAT) ALL",
        b" RETURN (ALL PARTIAL 1:2) ALL",
        b" YOUNGER 0",
        b" KEYWORD \\Nonsense",
        b" " + b"NOT " * 100 + b"ALL",
        b" " + b"(" * 100 + b"ALL" + b")" * 100,
    ],
)
def test_anything_else_is_bad(octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_search(Scanner(octets + b"\r\n"))


def test_an_unknown_charset_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Refusal) as caught:
        parse_search(Scanner(b" CHARSET X-NONE ALL\r\n"))
    assert caught.value.code is Code.BAD_CHARSET
    assert caught.value.detail == "(US-ASCII UTF-8)"


def test_search_answers() -> None:
    assert format_search([]) == b"* SEARCH\r\n"
    assert format_search([2, 5], ModSeq(917162500)) == b"* SEARCH 2 5 (MODSEQ 917162500)\r\n"
    assert format_search([5, 2], word=b"SORT") == b"* SORT 5 2\r\n"


def test_esearch_answers() -> None:
    assert format_esearch(b"A282", False, SearchResult(2, 10, 3)) == (
        b'* ESEARCH (TAG "A282") MIN 2 MAX 10 COUNT 3\r\n'
    )
    result = SearchResult(all=((17, 17), (900, 901)), modseq=ModSeq(5))
    assert format_esearch(b"A285", True, result) == (
        b'* ESEARCH (TAG "A285") UID ALL 17,900:901 MODSEQ 5\r\n'
    )
    assert format_esearch(b"a", True, SearchResult()) == b'* ESEARCH (TAG "a") UID\r\n'
    partial = SearchResult(partial=((-1, -100), ()))
    assert (
        format_esearch(b"a", True, partial) == b'* ESEARCH (TAG "a") UID PARTIAL (-1:-100 NIL)\r\n'
    )


@given(
    st.lists(st.sampled_from([word for octets, _ in KEYS for word in octets.split()]), max_size=8)
)
def test_no_order_of_words_raises_anything_else(words: list[bytes]) -> None:
    for parse in (parse_search, parse_sort, parse_thread):
        check_survives(parse, b" " + b" ".join(words) + b"\r\n")


@given(st.binary(max_size=40))
def test_no_octets_raise_anything_else(octets: bytes) -> None:
    for parse in (parse_search, parse_sort, parse_thread):
        check_survives(parse, octets)


@pytest.mark.parametrize("charset", [b"", b" CHARSET UTF-8"])
def test_text_that_is_no_utf8_is_read_as_latin1(charset: bytes) -> None:
    """JavaMail sends it so where UTF8=ACCEPT is offered."""
    key = parse_search(Scanner(b"%b BODY {1+}\r\n\xfc" % charset)).key
    assert key == BodyHas("\xfc")


def test_criteria_are_bounded() -> None:
    for octets, fine in [
        (b" NOT 1" * 3000, True),
        (b" $" * 9000, True),
        (b" $" * 10_001, False),
        (b" LARGER 5" * 1001, False),
        (b" NOT TEXT a" * 200, True),
        (b" NOT TEXT a" * 201, False),
        (b" TEXT " + b"a" * 8193, False),
        (b" " + b"OR 1 " * 65 + b"1", False),
    ]:
        if fine:
            parse_search(Scanner(octets))
        else:
            with pytest.raises(BadSyntax, match=r"at most|nested"):
                parse_search(Scanner(octets))
