"""An IMAP server's session: what comes out of which octets, whatever the packets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.session.imap_server import (
    CommandRest,
    Event,
    ImapServerSession,
    Line,
    Owed,
    State,
    Wrong,
)
from murder.wire.fragment import Chunk
from murder.wire.imap.command import Command
from tests.rooms.session.transitions import check_step

STREAMED = frozenset({b"APPEND", b"REPLACE", b"UID REPLACE"})


def told(event: Event) -> object:
    """An event as a short value to compare."""
    match event:
        case Command(tag=tag, name=name, literal=literal):
            return (tag, name) if literal is None else (tag, name, literal.size)
        case Wrong(tag=tag):
            return ("wrong", tag)
        case Owed():
            return "+"
        case Chunk(data=data, last=last):
            return (data, last)
        case CommandRest(octets=octets, literal=literal):
            return ("rest", octets, literal.size if literal else None)
        case Line(octets=octets):
            return ("line", octets)
        case None:
            return None


def run(stream: bytes, sizes: list[int], logged_in: bool = True) -> list[object]:
    session = ImapServerSession(max_line=1000, max_message=20_000, streamed=STREAMED)
    if logged_in:
        session.logged_in()
    found: list[object] = []
    at = 0
    for size in [*sizes, len(stream)]:
        session.receive(stream[at : at + size])
        at += size
        while (event := session.next_event()) is not None:
            found.append(told(event))
            if isinstance(event, Command | CommandRest) and event.literal is not None:
                session.accept_literal(event.literal)
    return found


TABLE: list[tuple[bytes, list[object]]] = [
    (b"a noop\r\nb UID FETCH 1 (FLAGS)\r\n", [(b"a", b"NOOP"), (b"b", b"UID FETCH")]),
    (b"a LOGIN {3}\r\nana {2+}\r\npw\r\n", ["+", (b"a", b"LOGIN")]),
    (b"\r\n", [("wrong", b"*")]),
    (b"a\r\nb NOOP\r\n", [("wrong", b"a"), (b"b", b"NOOP")]),
    (b"* NOOP\r\n+ NOOP\r\n", [("wrong", b"*"), ("wrong", b"*")]),
    (b"a APPEND x {3+}\r\nabc\r\n", [(b"a", b"APPEND")]),
    (
        b"a APPEND {1}\r\nx {9000+}\r\n" + b"y" * 9000 + b"\r\nb NOOP\r\n",
        [
            "+",
            (b"a", b"APPEND", 9000),
            (b"y" * 9000, True),
            ("rest", b"\r\n", None),
            (b"b", b"NOOP"),
        ],
    ),
    (
        b"a X {30000+}\r\n" + b"y" * 30000 + b"\r\nb NOOP\r\n",
        [("wrong", b"a"), (b"b", b"NOOP")],
    ),
    (b"a UID FETCH " + b"1," * 600 + b"1 UID\r\nb NOOP\r\n", [("wrong", b"a"), (b"b", b"NOOP")]),
    (b"a X {05}\r\nb NOOP\r\n", [("wrong", b"a"), (b"b", b"NOOP")]),
    (b"a X {05+}\r\nb\r\nc\r\nd NOOP\r\n", [("wrong", b"a"), (b"d", b"NOOP")]),
    (
        b"a APPEND x {9000+}\r\n" + b"y" * 9000 + b" {09+}\r\n123456789\r\nb NOOP\r\n",
        [(b"a", b"APPEND", 9000), (b"y" * 9000, True), ("wrong", b"*"), (b"b", b"NOOP")],
    ),
]


@pytest.mark.parametrize(("stream", "expected"), TABLE)
def test_events_of_a_stream(stream: bytes, expected: list[object]) -> None:
    assert run(stream, []) == expected


def test_before_login_no_message_is_streamed() -> None:
    assert run(b"a APPEND x {90000+}\r\n" + b"y" * 90000 + b"\r\nb NOOP\r\n", [], False) == [
        ("wrong", b"a"),
        (b"b", b"NOOP"),
    ]


def test_a_literal_that_cannot_be_skipped_ends_the_stream() -> None:
    session = ImapServerSession(streamed=STREAMED)
    session.receive(b"a X {4000000000+}\r\n")
    with pytest.raises(BadSyntax):
        session.next_event()


def test_in_line_mode_a_line_is_a_line() -> None:
    session = ImapServerSession(streamed=STREAMED)
    session.expect_line()
    session.receive(b"DONE\r\n")
    assert session.next_event() == Line(b"DONE")


@given(st.binary(max_size=120), st.lists(st.integers(1, 40)))
def test_any_octets_give_events_or_bad_syntax(stream: bytes, sizes: list[int]) -> None:
    try:
        run(stream, sizes)
    except BadSyntax:
        pass


def test_with_literal_minus_only_small_literals_come_unasked() -> None:
    session = ImapServerSession(streamed=STREAMED)
    session.literal_minus = True
    session.logged_in()
    session.receive(b"a APPEND x {4096+}\r\n" + b"y" * 4096 + b"\r\n")
    assert told(session.next_event()) == (b"a", b"APPEND")
    session.receive(b"b APPEND x {4097+}\r\n" + b"y" * 4097 + b"\r\nc NOOP\r\n")
    assert told(session.next_event()) == ("wrong", b"b")
    assert told(session.next_event()) == (b"c", b"NOOP")
    session.receive(b"d APPEND x {90000}\r\n")
    assert told(session.next_event()) == (b"d", b"APPEND", 90000)


def test_a_line_of_a_megabyte_is_a_command_of_who_has_logged_in() -> None:
    session = ImapServerSession(streamed=STREAMED)
    command = b"a UID FETCH " + b"1," * 500_000 + b"1 UID\r\n"
    session.receive(command)
    assert told(session.next_event()) == ("wrong", b"a")
    assert session.next_event() is None
    session.logged_in()
    session.receive(command + b"b NOOP\r\n")
    assert told(session.next_event()) == (b"a", b"UID FETCH")
    assert told(session.next_event()) == (b"b", b"NOOP")


def test_a_command_of_very_many_literals_is_refused() -> None:
    """Each is a question with all of the command before it: without a limit, that is quadratic."""
    session = ImapServerSession(streamed=STREAMED)
    session.logged_in()
    session.receive(b"a SEARCH TEXT" + b" {1}\r\nx" * 1001 + b"\r\nb NOOP\r\n")
    answers = []
    while (event := session.next_event()) is not None:
        answers.append(told(event))
    assert answers[:1001] == ["+"] * 1000 + [("wrong", b"a")]


def test_literals_that_are_collected_unasked_do_not_nest() -> None:
    session = ImapServerSession(max_message=2**30, streamed=STREAMED)
    session.logged_in()
    session.literal_minus = False
    session.receive(b"a SEARCH TEXT" + (b" {8193+}\r\n" + b"x" * 8193) * 990 + b"\r\n")
    assert told(session.next_event()) == (b"a", b"SEARCH")


STEPS = ("logged_in", "logged_out", "selected", "deselected", "ended")
WAYS: dict[State, tuple[str, ...]] = {  # to each state
    State.NOT_AUTHENTICATED: (),
    State.AUTHENTICATED: ("logged_in",),
    State.SELECTED: ("logged_in", "selected"),
    State.LOGOUT: ("ended",),
}
ALLOWED_STEPS = {
    (State.NOT_AUTHENTICATED, "logged_in"): State.AUTHENTICATED,
    (State.NOT_AUTHENTICATED, "ended"): State.LOGOUT,
    (State.AUTHENTICATED, "logged_out"): State.NOT_AUTHENTICATED,
    (State.AUTHENTICATED, "selected"): State.SELECTED,
    (State.AUTHENTICATED, "ended"): State.LOGOUT,
    (State.SELECTED, "logged_out"): State.NOT_AUTHENTICATED,
    (State.SELECTED, "selected"): State.SELECTED,
    (State.SELECTED, "deselected"): State.AUTHENTICATED,
    (State.SELECTED, "ended"): State.LOGOUT,
}


@pytest.mark.parametrize("origin", State)
@pytest.mark.parametrize("step", STEPS)
def test_what_is_no_transition_is_a_misuse_and_changes_nothing(origin: State, step: str) -> None:
    check_step(ImapServerSession(), WAYS[origin], origin, step, ALLOWED_STEPS.get((origin, step)))
