"""FETCH answers of other servers."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.model.message import ModSeq, Uid
from murder.wire.imap.mail.append import LiteralHead
from murder.wire.imap.mail.fetched import Fetched, PendingLiteral, parse_fetched
from murder.wire.token import Scanner


def read(octets: bytes) -> Fetched:
    fetched = Fetched()
    assert parse_fetched(Scanner(octets), fetched) is None
    return fetched


def test_an_answer_is_read_item_by_item() -> None:
    fetched = read(
        b' (FLAGS (\\Recent \\Seen $x) UID 7 INTERNALDATE " 7-Feb-2024 03:04:05 +0000" RFC822.SIZE 310 '
        b'MODSEQ (9) ENVELOPE (NIL "a)" ((NIL NIL {1}\r\n( "h"))) X-NEW atom BODY[1.MIME]<0> {3}\r\nabc'
        b' BODY[2] NIL rfc822.header "h")\r\n'
    )
    assert fetched == Fetched(
        Uid(7),
        frozenset({"\\Seen", "$x"}),
        datetime(2024, 2, 7, 3, 4, 5, tzinfo=UTC),
        310,
        ModSeq(9),
        {b"BODY[1.MIME]<0>": b"abc", b"BODY[2]": None, b"RFC822.HEADER": b"h"},
    )


def test_a_body_may_stream_past() -> None:
    fetched = Fetched()
    pending = parse_fetched(Scanner(b" (UID 7 BODY[] {1000}\r\n"), fetched)
    assert pending == PendingLiteral(b"BODY[]", LiteralHead(1000))
    pending = parse_fetched(Scanner(b" FLAGS (\\Seen) BODY[1] ~{5}\r\n"), fetched, begun=True)
    assert pending == PendingLiteral(b"BODY[1]", LiteralHead(5, True))
    assert parse_fetched(Scanner(b")\r\n"), fetched, begun=True) is None
    assert (fetched.uid, fetched.flags) == (Uid(7), frozenset({"\\Seen"}))


def test_an_empty_literal_is_in_place() -> None:
    assert read(b" (BODY[] {0}\r\n)\r\n").sections == {b"BODY[]": b""}


@pytest.mark.parametrize(
    "octets", [b" ()\r\n", b" (UID x)\r\n", b" (UID 1\r\n", b" (X (a)\r\n", b" (X " + b"(" * 2000]
)
def test_what_is_no_answer_is_bad(octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        read(octets)


@given(
    st.lists(
        st.sampled_from(
            [b" ", b"(", b")", b"UID", b"1", b"FLAGS", b"X", b'"a"', b"{1}\r\n", b"[", b"]"]
        )
    ).map(b"".join)
)
def test_no_octets_raise_anything_else(octets: bytes) -> None:
    try:
        parse_fetched(Scanner(b" (" + octets), Fetched())
    except BadSyntax:
        pass
