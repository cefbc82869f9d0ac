"""What a trace sees of a session: where commands begin, and nothing of what they say."""

import pytest

from murder.serve.watched import MAX_LINE, Commands
from murder.trail.figures import Figures
from murder.trail.spans import MAX_BATCH, Kind, Span, Spans, token_in

SAID = [
    (b"a LOGIN u secret\r\n", [(b"a", "LOGIN")]),
    (b"a1 uid fetch 1 X\r\na2 NOOP\r\n", [(b"a1", "UID FETCH"), (b"a2", "NOOP")]),
    (
        b"a APPEND x {9}\r\nb NOOP\r\n  {3+}\r\nc X\r\nd NOOP\r\n",
        [(b"a", "APPEND"), (b"d", "NOOP")],
    ),
    (
        b"a AUTHENTICATE PLAIN\r\nAHUAcA==\r\nb IDLE\r\nDONE\r\n",
        [(b"a", "AUTHENTICATE"), (b"b", "IDLE")],
    ),
    (
        b"a SEARCH TEXT " + b"x" * 3 * MAX_LINE + b" {1}\r\n\r\r\nb NOOP\r\n",
        [(b"a", "SEARCH"), (b"b", "NOOP")],
    ),
    (b"\r\n \xff\r\n", []),
]


@pytest.mark.parametrize(("octets", "expected"), SAID)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_where_commands_begin_is_found_however_octets_come(
    octets: bytes, expected: list[tuple[bytes, str]], step: int
) -> None:
    found: list[tuple[bytes, str]] = []
    commands = Commands(lambda tag, name: found.append((tag, name)))
    for at in range(0, len(octets), step):
        commands.feed(octets[at : at + step])
    assert found == expected


def test_so_many_spans_wait_and_the_others_are_counted() -> None:
    figures = Figures()
    spans = Spans(figures)
    span = Span("0123456789abcdef", "1" * 16, "", "x", Kind.SERVER, 1.0, 2.0)
    spans.add(span)
    assert len(spans) == 0 and not spans.sample()
    spans.configure(1.0, MAX_BATCH + 3)
    for _ in range(MAX_BATCH + 5):
        spans.add(span)
    assert [len(spans.take()) for _ in range(3)] == [MAX_BATCH, 3, 0]
    assert figures.numbers["spans"] == {("dropped",): 2}
    spans.add(span)
    spans.configure(0.5, 0)
    assert len(spans) == 0


def test_a_token_stands_behind_the_id_of_a_session() -> None:
    spans = Spans(Figures())
    spans.configure(1.0, 10)
    token = spans.sample()
    assert token_in(f"7b2f-1f7-{token}") == token
    assert token_in("7b2f-1f7") == token_in(f"{token}") == token_in(f"7b2f-{token}x") == ""
