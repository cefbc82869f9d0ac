"""MUPDATE from the server's side: a stream is read the same whole, as it is cut, and octet by octet.

Whole commands that arrive at once take a short way, octets that trickle in the long one: they may differ in nothing.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.session.mupdate_server import PLAIN_OCTETS, Event, MupdateServerSession, State, Wrong
from murder.wire.fragment import Fragmenter
from murder.wire.mupdate import Command, Verb, is_plain_write, read_plain
from tests.rooms.session.transitions import check_step

TEXT = st.sampled_from(
    [
        b"",
        b"user.ana",
        b"be1!p",
        b"anyone\tlrs\t",
        b"a {3+}",
        b'a" "b',
        b"a\\b",
        b"\xc3\xa4",
        b"{3+}",
        b"\r\nt NOOP",
        b"a\0b",
        b"x" * 300,
    ]
)
SIZES = st.sampled_from(["{%d+}\r\n", "{0%d+}\r\n", "{%d}\r\n", "{%d+}\n", "{1%d+}\r\n"])
STRING = st.one_of(
    st.tuples(SIZES, TEXT).map(lambda pair: (pair[0] % len(pair[1])).encode() + pair[1]),
    TEXT.map(lambda octets: b"{%d+}\r\n%b" % (len(octets), octets)),
    TEXT.map(lambda octets: b'"%b"' % octets),
    st.sampled_from([b"atom", b"{3+}", b"{4+}\r\nab"]),
)
WORD = st.sampled_from([verb.value for verb in Verb] + [b"find", b"Nonsense", b""])
COMMAND = st.tuples(
    st.sampled_from([b"t", b"A01", b"x" * 14, b"x" * 15, b"", b"*"]),
    WORD,
    st.lists(STRING, max_size=4),
    st.sampled_from([b"\r\n", b"\n", b" \r\n", b"\r\n\r\n"]),
).map(lambda made: b" ".join((made[0], made[1], *made[2])) + made[3])


def events(pieces: Iterable[bytes], max_line: int, max_literal: int) -> list[object]:
    """What a session that is logged in makes of it; an error that ends it is the last."""
    session = MupdateServerSession(max_line, max_literal)
    session.logged_in()
    found: list[object] = []
    for piece in pieces:
        session.receive(piece)
        try:
            while (event := session.next_event()) is not None:
                found += map(_comparable, event if isinstance(event, list) else [event])
        except BadSyntax:
            return [*found, "end"]
    return found


def _comparable(event: Event) -> object:
    return (event.tag, str(event.error)) if isinstance(event, Wrong) else event


@settings(max_examples=400, deadline=None)
@example([b"t FIND {3+}\r\nabc\r\n", b'u ACTIVATE {1+}\r\na "be1!p" {4+}\r\n{3+}\r\n'], 64, 32, [9])
@given(
    st.lists(COMMAND, min_size=1, max_size=6),
    st.sampled_from([16, 64, 8192]),
    st.sampled_from([8, 32, 4096]),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_however_it_arrives_it_is_the_same(
    commands: list[bytes], max_line: int, max_literal: int, cuts: list[int]
) -> None:
    stream = b"".join(commands)
    slowly = events((stream[i : i + 1] for i in range(len(stream))), max_line, max_literal)
    assert events([stream], max_line, max_literal) == slowly
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges) if a < b]
    assert events(pieces, max_line, max_literal) == slowly


def test_commands_as_cyrus_sends_them() -> None:
    octets = b"X0 ACTIVATE {4+}\r\nuser {3+}\r\nbe1 {0+}\r\n\r\nX1 FIND {1+}\r\na\r\n"
    assert events([octets], 8192, 4096) == [
        Command(b"X0", Verb.ACTIVATE, (b"user", b"be1", b"")),
        Command(b"X1", Verb.FIND, (b"a",)),
    ]


WAYS: dict[State, tuple[str, ...]] = {  # to each state
    State.GREETED: (),
    State.AUTHENTICATED: ("logged_in",),
    State.STREAMING: ("logged_in", "streaming"),
    State.LOGOUT: ("ended",),
}
ALLOWED_STEPS = {
    (State.GREETED, "logged_in"): State.AUTHENTICATED,
    (State.AUTHENTICATED, "streaming"): State.STREAMING,
    **{(state, "ended"): State.LOGOUT for state in State},
}


@pytest.mark.parametrize("origin", State)
@pytest.mark.parametrize("step", ["logged_in", "streaming", "ended"])
def test_what_is_no_transition_is_a_misuse_and_changes_nothing(origin: State, step: str) -> None:
    check_step(
        MupdateServerSession(), WAYS[origin], origin, step, ALLOWED_STEPS.get((origin, step))
    )


def test_the_short_way_looks_at_so_many_octets_and_no_more() -> None:
    looked_at: list[int] = []

    class Counting:
        def match(self, octets: bytes, begin: int, end: int) -> None:
            looked_at.append(min(end, len(octets)) - begin)

    fragmenter = Fragmenter(8192, 256 * 1024)
    for size in (PLAIN_OCTETS // 2, 4 * PLAIN_OCTETS, 8 * PLAIN_OCTETS):
        fragmenter.feed(b'a ACTIVATE "x" "be1!p" {%d+}\r\n' % size + b"x" * size)
        pattern = cast(re.Pattern[bytes], Counting())
        assert not fragmenter.take_run(pattern, PLAIN_OCTETS, read_plain, is_plain_write, 9)
        fragmenter.take_rest()
    assert looked_at[0] < PLAIN_OCTETS
    assert looked_at[1:] == [PLAIN_OCTETS] * 2
