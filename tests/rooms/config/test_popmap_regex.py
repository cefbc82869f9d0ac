"""popmap.re as Perdition has it: what its manual says of each example, and what names and files may do to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.config.popmap import Place
from murder.config.popmap_regex import MOST_ROWS, first_place, parse_popmap_regex


def place(text: str, user: str) -> Place | None:
    found = first_place(parse_popmap_regex(text), user)
    return None if found is None else found[0]


@pytest.mark.parametrize(
    ("text", "user", "where"),
    [
        ("^[a-k]: localhost\n^[^a-k]: localhost:110\n", "anna", Place("localhost")),
        ("^[a-k]: localhost\n^[^a-k]: localhost:110\n", "zoe", Place("localhost", 110)),
        ("^user: user2@localhost", "user", Place("localhost", 0, "user2")),
        ("(.*)@(.*): $1_$2@localhost", "user@x.y.z.de", Place("localhost", 0, "user_x.y.z.de")),
        ("flim: localhost", "totallyflimless", Place("localhost")),
        ("^flim$: localhost", "flimstix", None),
        ("^flim$: localhost", "flim", Place("localhost")),
        ("flim localhost", "flim", Place("localhost")),  # the colon may be left out
        ("  flim:\tlocalhost  # the rest", "flim", Place("localhost")),
        ("# flim: localhost", "flim", None),
        (r"a\#b: localhost", "a#b", Place("localhost")),
        ("'a b': localhost", "a b", Place("localhost")),
        (r"a\ b: localhost", "a b", Place("localhost")),
        ('"a#": localhost', "a#", Place("localhost")),
        (r"^a\\.b$: localhost", "a.b", Place("localhost")),
        (r"^a\\.b$: localhost", "axb", None),
        (r"^a\.b$: localhost", "axb", Place("localhost")),  # as Perdition: the \ is gone
        ("^fl\\\nim$: local\\\nhost", "flim", Place("localhost")),
        ("^a'b:': localhost", "ab:", Place("localhost")),  # a colon in quotes is part of it
        ("^(x)?a$: s$1", "a", Place("s")),
        ("a: one\na: two", "a", Place("one")),
        ("ä: one", "\udcc3ä", Place("one")),
    ],
)
def test_it_is_read_as_its_manual_says(text: str, user: str, where: Place | None) -> None:
    assert place(text, user) == where


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a", "line 1: write `expression: server`"),
        ("\na( b", "line 2: .* is no expression"),
        (r"(a)\\1: b", "no expression"),
        ("(a): $2", r"line 1: \$2, but"),
        ("a: b:c:d", "IPv6"),
        ("(a{1000}){1000}: b", "no expression"),
        ("a\\\n b\nc", "line 3"),
        ("a: b\n" * (MOST_ROWS + 1), "more than 1000"),
        ("x" * 1001 + ": b", "1000 characters at most"),
    ],
)
def test_what_is_wrong_says_where(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_popmap_regex(text)


@given(st.text(max_size=60), st.text(max_size=30))
def test_whatever_stands_there_it_is_read_or_refused(text: str, user: str) -> None:
    try:
        rows = parse_popmap_regex(text)
        first_place(rows, user)
    except ValueError:
        pass


def test_what_takes_others_for_ever_takes_no_time() -> None:
    assert place("^(a*)*b$: localhost", "a" * 250) is None
