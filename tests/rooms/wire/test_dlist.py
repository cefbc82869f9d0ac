"""Cyrus' lists: what a Cyrus 3.6 was seen to send, there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.wire.dlist import (
    Held,
    MessageOctets,
    Octets,
    Value,
    announced_by,
    format_value,
    parse_values,
)

ROWS: list[tuple[bytes, list[Value]]] = [
    (b"USER user1", [b"USER", b"user1"]),
    (b"SUB %(USERID user1 MBOXNAME user.user1)", [b"SUB", {"USERID": b"user1", "MBOXNAME": b"user.user1"}]),
    (
        b'LOCAL_MAILBOX %(ACL "user1\tlrs\t" RECORD (%(UID 1 FLAGS (\\Seen $Work) X NIL) %(UID 2)))',
        [
            b"LOCAL_MAILBOX",
            {
                "ACL": b"user1\tlrs\t",
                "RECORD": [{"UID": b"1", "FLAGS": [b"\\Seen", b"$Work"], "X": None}, {"UID": b"2"}],
            },
        ],
    ),
    (rb'A "a \"b\" \\ c" ""', [b"A", rb'a "b" \ c', b""]),
    (b"A ()", [b"A", []]),
    (b"A %()", [b"A", {}]),
]  # fmt: skip

BAD = [b"A (", b"A )", b"A %(KEY)", b'A "', b"A %((x) y)", b"A " + b"(" * 30 + b")" * 30]
LYING = [
    b"A {-1}",
    b"A {1.5}",
    b"A {4294967296}",
    b"A {" + b"9" * 5000 + b"}",
    b"A {1 2}",
    b"A {5++}",
]
LYING += [b"(%{default 1e7d9b -5}", b"(%{default 1e7d9b 9999999999}", b"(%{default x/y 5}"]

ANNOUNCED: list[tuple[bytes, tuple[bytes, Octets | MessageOctets] | None]] = [
    (b"MP1 MUPDATEPUSH {14+}", (b"MP1 MUPDATEPUSH ", Octets(14, False))),
    (b"MP1 MUPDATEPUSH {14}", (b"MP1 MUPDATEPUSH ", Octets(14, True))),
    (b"(%{default 1e7d9b 310}", (b"(", MessageOctets("default", "1e7d9b", 310))),
    (b"N01 NOOP", None),
    (b'A "{3}"', None),
]


@pytest.mark.parametrize(("octets", "values"), ROWS)
def test_values(octets: bytes, values: list[Value]) -> None:
    assert parse_values([octets]) == values


@pytest.mark.parametrize("octets", BAD)
def test_what_is_no_list_is_refused(octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_values([octets])


@pytest.mark.parametrize("line", LYING)
def test_a_size_that_is_none_is_refused(line: bytes) -> None:
    with pytest.raises(BadSyntax):
        announced_by(line)


@pytest.mark.parametrize(("line", "found"), ANNOUNCED)
def test_literals_are_announced_at_the_end_of_a_line(
    line: bytes, found: tuple[bytes, Octets | MessageOctets] | None
) -> None:
    assert announced_by(line) == found


@pytest.mark.parametrize("line", [b"A {x+}", b"A %{default 310}", b"A %{default g x}"])
def test_what_announces_no_number_is_refused(line: bytes) -> None:
    with pytest.raises(BadSyntax):
        announced_by(line)


def test_literals_and_messages_stand_where_they_came() -> None:
    message = MessageOctets("default", "ab", 3)
    assert parse_values([b"M (", message, b" ", Held(b'x"y'), b") %(K ", Held(b""), b")"]) == [
        b"M",
        [message, b'x"y'],
        {"K": b""},
    ]


words = st.binary(max_size=12).filter(lambda word: not {10, 13} & set(word))
values = st.recursive(
    words | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.from_regex(r"[A-Z]{1,4}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_there_and_back(value: Value) -> None:
    """A literal stands on a line of its own; the reader puts it back where it was announced."""
    parts: list[bytes | Held | MessageOctets] = []
    rest = format_value(value)
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        announced = announced_by(line)
        if announced is None:
            parts.append(line)
            continue
        text, literal = announced
        assert isinstance(literal, Octets)
        parts += [text, Held(rest[: literal.length])]
        rest = rest[literal.length :]
    assert parse_values(parts) == [value]


LONG = [
    b'A "' + b"a" * 10_000 + b'"',
    b'A "' + b"\\a" * 3000 + b'"',
    b"A " + b"a" * 10_000,
    b"A " + b" " * 3000 + b'"',
]


@pytest.mark.parametrize("octets", LONG)
def test_a_word_that_would_be_a_literal_is_no_word(octets: bytes) -> None:
    """And is not looked through in one step, however long it is."""
    with pytest.raises(BadSyntax):
        parse_values([octets])


def test_a_literal_is_looked_for_at_the_end_of_a_line() -> None:
    line = b"{a " * 100_000
    assert announced_by(line) is None
    assert announced_by(line + b"{3+}") == (line, Octets(3, False))
