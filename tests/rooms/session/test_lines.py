"""Texts between the lines of POP3 and LMTP: however much has come at once, it is given out a piece at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.session import lines
from murder.session.lines import PIECE_OCTETS, Line, LineSession, Text
from murder.wire.dots import canonical

PIECES = st.lists(st.sampled_from([b"\r\n", b".", b"\n", b"\r", b"x", b"..", b"\r\n.y"]))


def given_out(session: LineSession) -> tuple[list[bytes], list[bytes]]:
    """The pieces of the text, and the lines behind it."""
    texts: list[bytes] = []
    behind: list[bytes] = []
    while (event := session.next_event()) is not None:
        if isinstance(event, Text):
            texts.append(event.octets)
        else:
            assert isinstance(event, Line)
            behind.append(event.octets)
    return texts, behind


@pytest.mark.parametrize("pieces", [4, 8])
@pytest.mark.parametrize("filling", [b"\n", b"..\r\n", b"xy"])
@pytest.mark.parametrize("is_counted", [False, True])
def test_a_text_that_has_come_at_once_is_given_out_in_pieces(
    is_counted: bool, filling: bytes, pieces: int
) -> None:
    session = LineSession(1000)
    sent = b"x" + filling * (pieces * PIECE_OCTETS // len(filling))
    if is_counted:
        session.expect_octets(len(sent))
        session.receive(sent + b"NOOP\r\n")
    else:
        session.expect_text()
        session.receive(sent + b"\r\n.\r\nNOOP\r\n")
    texts, behind = given_out(session)
    assert behind == [b"NOOP"]
    assert pieces <= len(texts) <= pieces + 2
    assert max(map(len, texts)) <= 2 * PIECE_OCTETS + 2  # each LF alone has got its CR


@given(PIECES.map(b"".join))
def test_where_a_text_is_cut_makes_no_difference(text: bytes) -> None:
    whole = text.replace(b"\r\n.\r\n", b"") + b"\r\n.\r\nNOOP\r\nQUIT\r\n"
    said = []
    for piece in (1, 2, 3, PIECE_OCTETS):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(lines, "PIECE_OCTETS", piece)
            session = LineSession(1000)
            session.expect_text()
            session.receive(whole)
            texts, behind = given_out(session)
            said.append((b"".join(texts), behind))
    assert said == [said[0]] * 4


@given(PIECES.map(b"".join), st.lists(st.integers(0, 5)))
def test_chunks_may_be_cut_anywhere_too(text: bytes, sizes: list[int]) -> None:
    """And the next text does not go on from them."""
    session = LineSession(1000)
    said: list[bytes] = []
    left = text + b"\r"
    for size in (*sizes, len(left)):
        chunk, left = left[:size], left[size:]
        session.expect_octets(len(chunk), goes_on=bool(said))
        session.receive(chunk)
        said += given_out(session)[0]
    assert b"".join(said) == canonical(text + b"\r")
    session.expect_octets(1)
    session.receive(b"\n")
    assert given_out(session)[0] == [b"\r\n"]
