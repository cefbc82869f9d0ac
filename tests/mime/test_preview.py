"""A message's first words."""

import time

import pytest

from murder.mime.preview import MAX_PREVIEW, preview_of
from murder.mime.structure import parse_structure


def preview(mail: bytes) -> str:
    octets = mail.replace(b"\n", b"\r\n")
    return preview_of(octets, parse_structure(octets))


@pytest.mark.parametrize(
    ("mail", "text"),
    [
        (b"\nHello,\n\n  world \n", "Hello, world"),
        (b"\n> quoted\nanswer\n", "answer"),
        (
            b"Content-Type: text/html\n\n<head><title>x</title></head><style>p {}</style><p>a&amp;b<!-- c --> <b>d</b>",
            "a&b d",
        ),
        (
            b"Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>h\n"
            b"--b\n\nplain\n--b--\n",
            "plain",
        ),
        (
            b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: image/png\n\nx\n"
            b"--b\nContent-Disposition: attachment\n\nattached\n--b--\n",
            "",
        ),
        (
            b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nR3LDvMOfZQ==\n",
            "Grüße",
        ),
        (b"", ""),
    ],
)
def test_the_first_words(mail: bytes, text: str) -> None:
    assert preview(mail) == text


def test_it_is_short() -> None:
    assert len(preview(b"\n" + b"word " * 10_000)) <= MAX_PREVIEW


@pytest.mark.parametrize("piece", [b"<style", b"<style>", b"<!--", b"<", b"&", b"<a "])
def test_broken_markup_takes_no_time(piece: bytes) -> None:
    begin = time.process_time()
    preview(b"Content-Type: text/html\n\n" + piece * 100_000)
    assert time.process_time() - begin < 1.0
