"""Dotted text: only CR LF . CR LF ends it, however the octets are cut."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.wire.dots import LineEnds, Stuffer, Unstuffer, canonical

TEXTS = st.lists(st.sampled_from([b"a", b".", b"\r\n", b"\n", b"\r", b"..", b"x" * 9])).map(
    b"".join
)


def cut(octets: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(octets[:size])
        octets = octets[size:]
    return [piece for piece in [*pieces, octets] if piece]


def unstuffed(pieces: list[bytes]) -> tuple[bytes, bytes | None]:
    unstuffer, text = Unstuffer(), b""
    for at, piece in enumerate(pieces):
        more, rest = unstuffer.feed(piece)
        text += more
        if rest is not None:
            return text, rest + b"".join(pieces[at + 1 :])
    return text, None


def stuffed(pieces: list[bytes]) -> bytes:
    stuffer = Stuffer()
    return b"".join(map(stuffer.feed, pieces)) + stuffer.end()


@pytest.mark.parametrize(
    ("octets", "text", "rest"),
    [
        (b".\r\n", b"", b""),
        (b"a\r\n.\r\nQUIT\r\n", b"a\r\n", b"QUIT\r\n"),
        (b"..a\r\n.\r\n", b".a\r\n", b""),
        (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n", b""),
        (b"a\nb\r\n.\r\n", b"a\r\nb\r\n", b""),
        (b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", b""),
        (b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", b""),
        (b"a\r.\r\n\r\n.\r\n", b"a\r.\r\n\r\n", b""),
        (b"\r\n.\r\n", b"\r\n", b""),
        (b"a\r\n.\r", b"a", None),
    ],
)
def test_text_ends_at_a_line_of_one_dot_and_nowhere_else(
    octets: bytes, text: bytes, rest: bytes | None
) -> None:
    assert unstuffed([octets]) == (text, rest)
    assert unstuffed([octets[at : at + 1] for at in range(len(octets))]) == (text, rest)


@given(TEXTS, st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_what_was_stuffed_comes_out_again(text: bytes, first: list[int], second: list[int]) -> None:
    expected = canonical(text)
    if expected and not expected.endswith(b"\r\n"):
        expected += b"\r\n"
    sent = stuffed(cut(text, first))
    assert sent.count(b"\n") == sent.count(b"\r\n")
    got, rest = unstuffed(cut(sent + b"NOOP\r\n", second))
    assert got == (expected or b"") or (text == b"" and got == b"")
    assert rest == b"NOOP\r\n"


@given(TEXTS, st.lists(st.integers(0, 5)))
def test_line_ends_do_not_depend_on_the_cuts(text: bytes, sizes: list[int]) -> None:
    ends = LineEnds()
    got = b"".join(map(ends.feed, cut(text, sizes))) + ends.feed(b"", last=True)
    assert got == canonical(text)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"x"])).map(b"".join))
def test_each_bare_lf_has_its_cr_and_nothing_else_changes(octets: bytes) -> None:
    assert canonical(octets) == re.sub(rb"(?<!\r)\n", b"\r\n", octets)
