"""The first words of a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.mime.preview import MAX_CHARACTERS, preview_of
from murder.mime.structure import parse_structure

CASES = [
    (b"Subject: a\r\n\r\nHello   there,\r\n\r\nAna\r\n", "Hello there, Ana"),
    (b"Subject: a\r\n\r\n> quoted\r\nanswer\r\n-- \r\n", "answer"),
    (
        b"Content-Type: text/html\r\n\r\n<style>b{}</style><p>Gr&uuml;&szlig;e<br>an alle",
        "Grüße an alle",
    ),
    (
        b"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<b>x</b>"
        b"\r\n--b\r\n\r\nplain\r\n--b--\r\n",
        "plain",
    ),
    (
        b"Content-Type: text/html\r\n\r\n<p>&#" + b"9" * 5000 + b"; a &#" + b"0" * 9 + b"65",
        "\ufffd a A",
    ),
    (b"Content-Type: image/png\r\n\r\nabc", ""),
    (b"\r\n" + b"word " * 100, ("word " * 100)[:MAX_CHARACTERS]),
]


@pytest.mark.parametrize(("octets", "preview"), CASES)
def test_a_preview_is_the_first_words(octets: bytes, preview: str) -> None:
    assert preview_of(octets, parse_structure(octets)) == preview


@given(st.binary(max_size=500))
def test_any_octets_have_a_preview(octets: bytes) -> None:
    assert len(preview_of(octets, parse_structure(octets))) <= MAX_CHARACTERS
