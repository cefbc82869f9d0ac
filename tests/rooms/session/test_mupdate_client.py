"""MUPDATE from the client's side: however a dump is cut and mixed, its rows come out as they were sent, in order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.session.mupdate_client import (
    LINE_OCTETS,
    MAX_BANNER_OCTETS,
    MupdateClientSession,
    Rows,
    State,
)
from murder.wire.mupdate import Kind, Response, Verb, parse_response

TEXT = st.sampled_from(
    [
        b"",
        b"user.ana",
        b"be1!p",
        b"anyone\tlrs\t",
        b'a"b',
        b"a\\b",
        b"\xc3\xa4",
        b"x{3+}",
        b"a" * 900,
        b"\r\nX1 MAILBOX ",
    ]
)
PLAIN = st.sampled_from([b"", b"user.ana", b"be1!p", b"anyone\tlrs\t", b"x{3+}", b"MAILBOX"])
ROW = st.tuples(PLAIN, PLAIN, PLAIN).map(lambda row: b'X1 MAILBOX "%b" "%b" "%b"\r\n' % row)


def literal(octets: bytes) -> bytes:
    return b"{%d+}\r\n%b" % (len(octets), octets)


ODD = st.one_of(
    st.tuples(TEXT, TEXT, TEXT).map(
        lambda row: b"X1 MAILBOX " + b" ".join(map(literal, row)) + b"\r\n"
    ),
    st.tuples(PLAIN, PLAIN).map(lambda row: b'X1 RESERVE "%b" "%b"\r\n' % row),
    st.sampled_from(
        [
            b'X1 DELETE "user.ana"\r\n',
            b'X1 POSITION "a:1:b"\r\n',
            b'N2 OK "Noop done"\r\n',
            b'X2 MAILBOX "a" "b" "c"\r\n',
            b'X1 mailbox "a" "b" "c"\r\n',
            b'X1 MAILBOX "a"  "b" "c" \r\n',
            b'X1 MAILBOX "a" "b" "\\"c"\n',
        ]
    ),
)


@settings(max_examples=300)
@given(st.lists(ROW | ROW | ROW | ODD, max_size=40), st.lists(st.integers(1, 300), min_size=1))
def test_rows_come_out_as_they_were_sent(messages: list[bytes], sizes: list[int]) -> None:
    session = MupdateClientSession()
    session.state = State.AUTHENTICATED
    assert session.send(Verb.UPDATE)[0] == b"X1"
    session.streaming(b"X1")
    stream = b"".join(messages)
    found: list[Response] = []
    at, number = 0, 0
    while at < len(stream):
        size = sizes[number % len(sizes)]
        session.receive(stream[at : at + size])
        at, number = at + size, number + 1
        while (event := session.next_event()) is not None:
            if isinstance(event, Rows):
                found += [Response(b"X1", Kind.MAILBOX, row) for row in event]
            else:
                assert isinstance(event, Response)
                found.append(event)
    assert found == [parse_response(message) for message in messages]


@pytest.mark.parametrize("line", [b"*\r\n", b'* XFOO "%s"\r\n' % (b"x" * 1000)])
def test_a_banner_that_never_ends_is_broken_off(line: bytes) -> None:
    session, lines = MupdateClientSession(), 0
    with pytest.raises(BadSyntax, match="a banner of more than"):
        while session.next_event() is None:
            session.receive(line)
            lines += 1
    assert 10 < lines <= MAX_BANNER_OCTETS // LINE_OCTETS + 1
