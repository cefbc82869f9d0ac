"""Decoding: transfer encodings, encoded words, character sets, dates; and what SEARCH finds."""

import base64
import quopri
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import Code, Refusal
from murder.mime.decode import decode_base64, decode_text, text_pieces
from murder.mime.header import decode_value, parse_date
from murder.mime.structure import parse_structure
from murder.mime.text import (
    body_has,
    fold,
    folded_pieces,
    header_has,
    part_pieces,
    plain_text,
    text_has,
)
from tests.rooms.mime.whole import decode_transfer, decoded_octets

VALUES = [
    (b"plain", "plain"),
    (b"a\r\n b", "a b"),
    (b"=?ISO-8859-1?Q?a?=", "a"),
    (b"=?ISO-8859-1?Q?a?= b", "a b"),
    (b"=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
    (b"=?ISO-8859-1?Q?a?=\r\n   =?ISO-8859-2?Q?b?=", "ab"),
    (b"=?ISO-8859-1?Q?a_b?=", "a b"),
    (b"x =?utf-8?B?w7w=?= y", "x ü y"),
    (b"=?utf-8*de?q?=C3=BC?=", "ü"),
    # a character cut in two
    (b"=?utf-8?B?ww==?= =?utf-8?B?vA==?=", "ü"),
    (b"=?utf-8?q?=C3?= =?UTF-8?q?=BC?=", "ü"),
    (b"=?x-none?q?abc?=", "abc"),
    (b"=?utf-8?b?not base64?=", decode_text(decode_base64(b"not base64"), "utf-8")),
    (b"=?broken", "=?broken"),
    (b"\xc3\xbc", "ü"),
    (b"\xfc", "ü"),
    (b"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
    (b"", ""),
]


@pytest.mark.parametrize(("value", "text"), VALUES)
def test_encoded_words_are_decoded(value: bytes, text: str) -> None:
    assert decode_value(value) == text


BODIES = [
    (b"YWJj\r\nZGVm\r\n", b"BASE64", b"abcdef"),
    (b"YQ==\r\nYg==", b"BASE64", b"ab"),
    (b"YW!Jj", b"BASE64", b"abc"),
    (b"YWJjZ", b"BASE64", b"abc"),
    (b"YWI", b"BASE64", b"ab"),
    (b"a=20b=\r\nc  \r\n=zz", b"QUOTED-PRINTABLE", b"a bc\r\n=zz"),
    (b"\x00\xff", b"BINARY", b"\x00\xff"),
]


@pytest.mark.parametrize(("body", "encoding", "octets"), BODIES)
def test_transfer_encodings_are_undone(body: bytes, encoding: bytes, octets: bytes) -> None:
    assert decode_transfer(body, encoding) == octets


@given(st.binary(max_size=200))
def test_encodings_of_the_standard_library_are_undone(octets: bytes) -> None:
    assert decode_transfer(base64.encodebytes(octets), b"BASE64") == octets
    assert decode_transfer(quopri.encodestring(octets), b"QUOTED-PRINTABLE") == octets


@given(st.binary(max_size=100))
def test_no_octets_raise(octets: bytes) -> None:
    decode_transfer(octets, b"BASE64")
    decode_transfer(octets, b"QUOTED-PRINTABLE")
    decode_value(octets)
    decode_value(b"=?utf-8?b?" + octets + b"?=")
    parse_date(octets)
    for charset in ("utf-7", "utf-16", "iso-2022-jp", "hz", "gb2312", "x"):
        decode_text(octets, charset)


TEXTS = [
    # one damaged place among whole characters: also a surrogate, or an overlong form, of three octets
    ("Grüße aus Köln".encode() + b" \xff", "Grüße aus Köln \ufffd"),
    ("Grüße".encode() + b" \xed\xa0\x80", "Grüße \ufffd\ufffd\ufffd"),
    ("ü".encode() + b" \xe0\x80\xaf", "ü \ufffd\ufffd\ufffd"),
    ("Grüße".encode("latin-1"), "Grüße"),
    ("ÄÖÜ äöü ß".encode("latin-1"), "ÄÖÜ äöü ß"),
    ("café – naïve".encode("cp1252"), "café – naïve"),
]


@pytest.mark.parametrize("charset", ["", "x-unknown", "unknown-8bit", "us-ascii", "x-nobodys"])
@pytest.mark.parametrize(("octets", "text"), TEXTS)
def test_text_without_a_character_set_is_utf_8_or_latin_1(
    octets: bytes, text: str, charset: str
) -> None:
    assert decode_text(octets, charset) == text
    assert "".join(text_pieces([octets], charset)) == text


DATES = [
    (
        b"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)",
        datetime(1996, 7, 17, 2, 23, 25, tzinfo=timezone(-timedelta(hours=7))),
    ),
    (b"17 Jul 96 02:23 GMT", datetime(1996, 7, 17, 2, 23, tzinfo=UTC)),
    (b"Mon, 1 Jan 2024 00:00:60 +0000", datetime(2024, 1, 1, 0, 0, 59, tzinfo=UTC)),
    (b"nonsense", None),
    (b"", None),
    (b"Wed, 99 Jul 1996 02:23:25 -0700", None),
    (b"Wed, 17 Jul 1996 02:23:25 +99999", None),
]


@pytest.mark.parametrize(("value", "moment"), DATES)
def test_dates_are_read_or_not(value: bytes, moment: datetime | None) -> None:
    assert parse_date(value) == moment


@pytest.mark.parametrize("marks", range(1, 41))
def test_a_text_of_nothing_but_marks_is_searched(marks: int) -> None:
    octets = b"\r\n" + ("\u0323" * marks).encode()
    assert body_has(octets, parse_structure(octets), "\u0323")
    assert not body_has(octets, parse_structure(octets), "x")


def test_folding_forgets_case_and_how_accents_are_made() -> None:
    assert fold("STRASSE") == fold("straße")
    assert fold("Ü") == fold("u\u0308")
    assert fold("ﬁ") == fold("FI")
    assert fold("abc") == "abc"
    assert fold("ΟΔΟΣ") == fold("οδος")


MAIL = b"""\
From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>
Subject: Gr\xc3\xbc\xc3\x9fe
 aus Berlin
X-Empty:
Content-Type: multipart/mixed; boundary=b

preamble words
--b
Content-Type: text/plain; charset=koi8-r
Content-Transfer-Encoding: base64

8NLJ18XU
--b
Content-Type: message/rfc822

Subject: Inner =?utf-8?q?S=C3=BCbject?=

inner body
--b
Content-Type: application/octet-stream

attachment words
--b
Content-Type: text/plain
Content-Transfer-Encoding: x-strange

strange words
--b--
""".replace(b"\n", b"\r\n")
ROOT = parse_structure(MAIL)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("from", "jürgen", True),
        ("FROM", "EXAMPLE", True),
        ("subject", "grüsse aus", True),
        ("subject", "nothing", False),
        ("x-empty", "", True),
        ("x-missing", "", False),
    ],
)
def test_header_search(name: str, text: str, found: bool) -> None:
    assert header_has(MAIL, ROOT, name, text) is found


@pytest.mark.parametrize(
    ("text", "in_body", "in_text"),
    [
        ("Привет", True, True),
        ("привет", True, True),
        ("inner body", True, True),
        ("inner sübject", True, True),
        ("strange words", True, True),
        ("attachment words", False, False),
        ("Berlin", False, True),
        ("", True, True),
    ],
)
def test_body_and_text_search(text: str, in_body: bool, in_text: bool) -> None:
    assert body_has(memoryview(MAIL), ROOT, text) is in_body
    assert text_has(memoryview(MAIL), ROOT, text) is in_text


def test_binary_sections() -> None:
    assert decoded_octets(MAIL, ROOT, (1,)) == "Привет".encode("koi8-r")
    assert decoded_octets(MAIL, ROOT, ()) == MAIL
    assert decoded_octets(MAIL, ROOT, (9,)) is None
    with pytest.raises(Refusal) as caught:
        decoded_octets(MAIL, ROOT, (4,))
    assert caught.value.code is Code.UNKNOWN_CTE


PIECES = [
    b"a",
    b"B:",
    b"Subject: ",
    b":",
    b" ",
    b"\t",
    b"x  y",
    b"\r\n",
    b"\n",
    b"\r\n ",
    b"\n\t",
    b"\r",
    b"=?utf-8?q?c?=",
]


@given(
    st.lists(st.sampled_from(PIECES)).map(b"".join), st.text("abcsxy: \t", min_size=1, max_size=5)
)
def test_a_header_is_searched_the_same_beside_what_is_not_ascii(header: bytes, wanted: str) -> None:
    """A header of plain lines is looked through without being taken apart."""
    plain, beside = (b"X-Z: %b\r\n%b\r\n\r\n" % (z, header) for z in (b"zz", "ü".encode()))
    assert text_has(plain, parse_structure(plain), wanted) is text_has(
        beside, parse_structure(beside), wanted
    )


CHARSETS = b",us-ascii,utf-8,iso-8859-1,iso-2022-jp,utf-7,utf-16,hz,x".split(b",")
ENCODINGS = b",7bit,base64,quoted-printable,x-other".split(b",")
PLAIN = b",us-ascii,utf-8,iso-8859-1,x".split(b",")
WORDS = [b"Abc", b"\x1b$B", b"+AOk-", b"~{", b"=41", b"\xc3\xa9", b"\xff", b"\r\n", b" "]


@given(st.sampled_from(CHARSETS), st.sampled_from(ENCODINGS), st.lists(st.sampled_from(WORDS)))
def test_a_part_that_is_read_in_one_step_is_the_same_text(
    charset: bytes, encoding: bytes, words: list[bytes]
) -> None:
    head = b"Content-Type: text/plain; charset=%b\r\nContent-Transfer-Encoding: %b\r\n\r\n"
    octets = head % (charset, encoding) + b"".join(words)
    part = parse_structure(octets)
    text = plain_text(octets, part)
    assert text in (None, "".join(folded_pieces(part_pieces(octets, part))))
    assert (text is None) is not (
        octets.isascii() and charset in PLAIN and encoding in ENCODINGS[:2]
    )
