"""What passes through a frontend: the tagged line is found wherever it is, BYE is kept back, literals are only counted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.session.imap_client import COPIED_OCTETS, STEPS, ResponseCutter

STREAM = (
    b"* 1 FETCH (BODY[] {18}\r\nA1 OK\r\n* BYE no\r\n\r\n FLAGS ())\r\n* 3 EXISTS\r\n"
    b"* BYE draining\r\nA1 OK done\r\n"
)
PASSED = STREAM.replace(b"* BYE draining\r\n", b"")


def run(pieces: list[bytes]) -> tuple[bytes, list[bytes]]:
    cutter, passed, ends = ResponseCutter(), b"", []
    for piece in pieces:
        while piece or cutter.is_behind:
            cutter.steps = 0
            octets, line, piece = cutter.feed(piece, b"A1")
            passed += octets
            if line is not None:
                ends.append(line)
    return passed, ends


class Searched(bytes):
    """Octets that count how often all of them are searched for a literal."""

    times = 0

    def find(self, what: Any, *within: Any) -> int:
        self.times += what == b"}\r\n"
        return super().find(what, *within)


LINES = (
    b"* 1 FETCH (FLAGS ())\r\n",
    b"* 2 FETCH (BODY[] {4}\r\n* BY)\r\n",
    b"* bye\r\n",
    b"* 3 {x}\r\n",
)


@given(
    st.lists(st.sampled_from([*LINES, b"* A1 \r\n", b"* BAD\r\n", b"+ A2 OK\r\n"]), max_size=60),
    st.integers(1, 2000),
)
def test_many_plain_lines_hide_nothing_that_counts(lines: list[bytes], size: int) -> None:
    stream = b"".join(lines) + b"A1 OK done\r\n"
    expected = b"".join(line for line in lines if line != b"* bye\r\n") + b"A1 OK done\r\n"
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert run(pieces) == (expected, [b"A1 OK done\r\n"])


@given(st.lists(st.integers(1, 9)))
def test_the_tagged_line_is_found_and_a_bye_kept_back_however_it_comes(sizes: list[int]) -> None:
    pieces, at = [], 0
    for size in [*sizes, len(STREAM)]:
        pieces.append(STREAM[at : at + size])
        at += size
    assert run([piece for piece in pieces if piece]) == (PASSED, [b"A1 OK done\r\n"])


def test_a_bye_in_front_of_the_tagged_line_does_not_swallow_it() -> None:
    assert run([b"* BYE going\r\nA1 OK done\r\n"]) == (b"A1 OK done\r\n", [b"A1 OK done\r\n"])


@given(
    st.lists(st.sampled_from(LINES), max_size=60),
    st.lists(st.sampled_from(LINES), max_size=60),
    st.integers(1, 2000),
    st.sampled_from([b"A2 OK\r\n", b"A2  no\r\n", b"*\r\nA2 BAD x\r\n", b"a1 OK\r\n"]),
)
def test_a_line_with_a_tag_that_nobody_waits_for_ends_the_connection(
    before: list[bytes], behind: list[bytes], size: int, alien: bytes
) -> None:
    """The client may wait for that tag from another server."""
    stream = b"".join([*before, alien, *behind]) + b"A1 OK done\r\n"
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    with pytest.raises(BadSyntax, match="nobody asked"):
        run(pieces)


def test_unasked_comes_nothing_but_untagged_responses() -> None:
    assert ResponseCutter().feed(b"* 1 EXISTS\r\n", b"") == (b"* 1 EXISTS\r\n", None, b"")
    for octets in (b"A1 OK\r\n", b"+ go\r\n", b"* 1 EXISTS\r\n" * 90 + b"A1 OK\r\n* 1 EXISTS\r\n"):
        with pytest.raises(BadSyntax):
            ResponseCutter().feed(octets, b"")


@pytest.mark.parametrize("line", [b"\r\n", b"x\r\n", b"* 1 FETCH (BODY[] {1}\r\nx)\r\n"])
def test_lines_that_are_worth_a_look_are_looked_at_a_turn_at_a_time_and_once(line: bytes) -> None:
    """Without end, they are sent by somebody who means ill; and the last one is not whole."""
    stream = Searched(line * 20_000 + b"* " + b"1" * 60_000)
    cutter = ResponseCutter()
    passed, end, rest = cutter.feed(stream, b"A1")
    assert cutter.is_behind and len(passed) <= STEPS * len(line) and (end, rest) == (None, b"")
    assert stream.times < 5
    assert cutter.feed(b"", b"A1") == (b"", None, b"")  # the turn is over
    while cutter.is_behind:
        cutter.steps = 0
        octets, _, _ = cutter.feed(b"", b"A1")
        passed += octets
    assert passed + cutter.held == stream


@pytest.mark.parametrize("line", [b"* BYE bye\r\n", b"A1 OK done\r\n"])
def test_what_is_copied_for_a_line_counts_too(line: bytes) -> None:
    cutter, stream, lines = ResponseCutter(), line * 20_000, 0
    while not cutter.is_behind:
        _, _, stream = cutter.feed(stream, b"A1")
        lines += not cutter.is_behind
    copied = lines * len(line) * 20_000
    assert copied < 2 * STEPS * COPIED_OCTETS
