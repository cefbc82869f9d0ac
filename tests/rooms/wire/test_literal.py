"""One grammar of literals: whoever cuts, reads or passes on the same octets finds the same literal in them, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.session.imap_client import ResponseCutter, non_synchronising
from murder.wire.fragment import Fragmenter, Literal
from murder.wire.imap.mail.append import parse_literal_head
from murder.wire.literal import ENDLESS, announced_at_end, awaited_size
from murder.wire.token import Scanner

SPELT_WRONG = [
    b"{00000000000000000005}",
    b"{05}",
    b"{00}",
    b"{00000000005+}",
    b"{5-}",
    b"{12345678901}",
    b"~{007+}",
    b"{" + b"0" * 5000 + b"5+}",
    b"{" + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("spelt", SPELT_WRONG)
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_a_size_has_one_spelling_for_all_who_read_it(spelt: bytes, line_end: bytes) -> None:
    line = b"a SEARCH SUBJECT " + spelt + line_end
    announced = announced_at_end(line, 0, len(line))
    assert announced is not None and announced.problem is not None
    fragmenter = Fragmenter()
    fragmenter.feed(line)
    literal = fragmenter.next()
    assert isinstance(literal, Literal) and literal.problem is not None
    with pytest.raises(BadSyntax):
        fragmenter.accept()
    for read in (
        lambda: non_synchronising(line + b"hello\r\n"),
        lambda: Scanner(spelt + line_end + b"hello").string(),
        lambda: parse_literal_head(Scanner(spelt + line_end)),
    ):
        with pytest.raises(BadSyntax):
            read()


@pytest.mark.parametrize("spelt", [b"{00000000000000000005}", b"{05}", b"{12345678901}"])
def test_an_answer_with_a_literal_that_clients_read_differently_is_not_passed_on(
    spelt: bytes,
) -> None:
    with pytest.raises(BadSyntax):
        ResponseCutter().feed(b"* 1 FETCH (BODY[] " + spelt + b"\r\nA1 OK\r\n)\r\n", b"A1")


@pytest.mark.parametrize("text", [b"{}", b"{a}", b"{ 5}", b"}", b"{5} ", b"{5}x", b"(5}"])
def test_what_is_no_announcement_is_a_line(text: bytes) -> None:
    line = b"a X " + text + b"\r\n"
    assert announced_at_end(line, 0, len(line)) is None


@given(st.text("{}~+-05x \r", max_size=14), st.booleans())
def test_who_counts_literals_of_answers_finds_the_same_ones(text: str, is_announced: bool) -> None:
    line = text.encode() + (b"}\r\n" if is_announced else b"\r\n")
    announced = announced_at_end(line, 0, len(line))
    if announced is None or not announced.synchronising:
        assert awaited_size(line, 0, len(line)) is None
    elif announced.problem is None:
        assert awaited_size(line, 0, len(line)) == announced.size
    else:
        with pytest.raises(BadSyntax):
            awaited_size(line, 0, len(line))


@given(st.integers(0, 2**40), st.sampled_from([b"", b"+"]), st.booleans())
def test_a_size_of_up_to_ten_digits_is_read(size: int, plus: bytes, binary: bool) -> None:
    line = b"a X %s{%d%s}\r\n" % (b"~" if binary else b"", size, plus)
    announced = announced_at_end(line, 0, len(line))
    assert announced is not None
    assert (announced.problem is None) == (size < 10**10)
    assert announced.size in (size, ENDLESS)
    assert announced.synchronising == (not plus)
    assert announced.is_binary == binary


@given(
    st.lists(
        st.sampled_from(
            [b"a ", b"X", b"{3}\r\nabc", b"{0}\r\n", b"~{1}\n}", b"{1}", b"{03}\r\n", b"}\n", b'"']
        ),
        max_size=8,
    )
)
def test_a_frontend_passes_on_commands_that_end_where_it_saw_them_end(pieces: list[bytes]) -> None:
    """What it has cut, made non-synchronising, is one command to the fragmenter of who gets it, too."""
    fragmenter = Fragmenter()
    fragmenter.feed(b"a X " + b"".join(pieces) + b"\r\n")
    while (message := fragmenter.next()) is not None:
        if isinstance(message, Literal):
            fragmenter.refuse() if message.problem else fragmenter.accept()
            continue
        assert isinstance(message, bytes)
        behind = Fragmenter(collect_octets=1000)
        behind.feed(non_synchronising(message))
        assert isinstance(behind.next(), bytes)
        assert behind.is_between
