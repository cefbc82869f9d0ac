"""Modified UTF-7: one form for one text."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax, Refusal
from murder.wire import mutf7
from murder.wire.mutf7 import decode, decode_leniently, encode

SAME = [
    ("", b""),
    ("INBOX", b"INBOX"),
    ("a&b", b"a&-b"),
    ("&", b"&-"),
    ("&&", b"&-&-"),
    ("Entw\u00fcrfe", b"Entw&APw-rfe"),
    ("~peter/mail/\u53f0\u5317/\u65e5\u672c\u8a9e", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
    ("\u00fc&", b"&APw-&-"),
    ("&\u00fc", b"&-&APw-"),
    ("\U0001f4e7", b"&2D3c5w-"),
    ("\t", b"&AAk-"),
    ("a\x7f", b"a&AH8-"),
]


@pytest.mark.parametrize(("text", "octets"), SAME)
def test_text_and_octets_are_one_to_one(text: str, octets: bytes) -> None:
    assert encode(text) == octets
    assert decode(octets) == text
    assert decode_leniently(octets) == text


@pytest.mark.parametrize(
    ("octets", "offset"),
    [
        (b"a&", 1),
        (b"&AP", 0),
        (b"&APw", 0),
        (b"&A-", 0),
        (b"&AA-", 0),  # one octet and bits left over
        (b"&APx-", 0),  # bits left over
        (b"&AGE-", 0),  # an "a", shifted
        (b"&AP/-", 0),
        (b"&A=-", 0),
        (b"&2D0-", 0),  # half of a pair
        (b"&APw-&APw-", 5),  # two shifts that should be one
        (b"a\x80", 1),
        (b"ab\x01", 2),
        (b"x\xc3\xbc", 1),
    ],
)
def test_what_is_not_modified_utf_7_is_bad(octets: bytes, offset: int) -> None:
    with pytest.raises(BadSyntax) as caught:
        decode(octets)
    assert caught.value.offset == offset
    decode_leniently(octets)


def test_lone_surrogates_are_no_text() -> None:
    with pytest.raises(BadSyntax):
        encode("\ud800")


@given(st.text())
def test_any_text_goes_there_and_back(text: str) -> None:
    assert decode(encode(text)) == text


@given(st.text("&-+,ABCw/ \u00fc", max_size=12).map(lambda text: text.encode("latin-1")))
def test_what_decodes_encodes_to_the_same(octets: bytes) -> None:
    try:
        text = decode(octets)
    except BadSyntax:
        return
    assert encode(text) == octets


def test_a_name_of_any_length_is_refused_before_it_is_composed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Composing costs the square of a run of marks: 47 s for 400 kB."""
    composed: list[int] = []
    normalize: Any = unicodedata.normalize

    def count(form: str, text: str) -> str:
        composed.append(len(text))
        return str(normalize(form, text))

    monkeypatch.setattr("murder.wire.mutf7.unicodedata.normalize", count)
    with pytest.raises(Refusal):
        mutf7.from_utf8(b"a" + "\u0301\u0323".encode() * 100_000)
    assert composed == []
    mutf7.from_utf8("a\u0301".encode())
    assert composed == [2]
