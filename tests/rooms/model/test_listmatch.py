"""Patterns of LIST: what `%` and `*` take, and that no pattern is slow."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.model.query.listmatch import compile_pattern, literal_head, simplified


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        (b"*", b"", True),
        (b"*", b"a/b", True),
        (b"%", b"a", True),
        (b"%", b"a/b", False),
        (b"%/%", b"a/b", True),
        (b"a*c", b"a/b/c", True),
        (b"a%c", b"a/b/c", False),
        (b"*%", b"a/b", True),
        (b"%b", b"aab", True),
        (b"%ab%b", b"abbab", True),
        (b"a.b", b"aXb", False),
        (b"*a*b", b"xaabab", True),
    ],
)
def test_a_pattern_fits_a_name(pattern: bytes, name: bytes, fits: bool) -> None:
    assert bool(compile_pattern(pattern, b"/").fullmatch(name)) is fits


_LETTERS = st.text("ab/", max_size=12).map(str.encode)
_PATTERNS = st.text("ab/%*", max_size=9).map(str.encode)


@given(_PATTERNS, _LETTERS)
def test_a_pattern_fits_what_backtracking_says(pattern: bytes, name: bytes) -> None:
    naive = re.escape(pattern).replace(rb"\*", b".*").replace(b"%", b"[^/]*")
    expected = bool(re.compile(naive, re.DOTALL).fullmatch(name))
    assert bool(compile_pattern(pattern, b"/").fullmatch(name)) is expected


@pytest.mark.parametrize("pattern", [b"*a" * 200 + b"b", b"%a" * 200 + b"b", b"*a%a" * 90 + b"/b"])
def test_no_pattern_is_slow(pattern: bytes) -> None:
    compiled = compile_pattern(pattern, b"/")
    begin = time.thread_time()
    compiled.fullmatch(b"a" * 490)
    assert time.thread_time() - begin < 0.5


def test_runs_of_wildcards_are_one() -> None:
    assert simplified(b"a%%b%*%c**") == b"a%b*c*"
    assert literal_head(b"abc%d*") == b"abc"
