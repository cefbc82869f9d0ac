"""Tokens: what each rule takes, where it stops, and what it says when something else is there."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.wire.token import Scanner, astring, client_astring, string

TAKEN: list[tuple[Callable[[Scanner], object], bytes, object, int]] = [
    (Scanner.atom, b"abc def", b"abc", 3),
    (Scanner.word, b"abc)", b"ABC", 3),
    (Scanner.astring, b"a]b c", b"a]b", 3),
    (Scanner.astring, b'"a b" c', b"a b", 5),
    (Scanner.string, b'"a\\"\\\\b"', b'a"\\b', 8),
    (Scanner.string, b"{3}\r\na\r\n x", b"a\r\n", 8),
    (Scanner.string, b"{3+}\r\nabc x", b"abc", 9),
    (Scanner.string, b"~{2}\r\n\x00\x01", b"\x00\x01", 8),
    (Scanner.string, b'""', b"", 2),
    (Scanner.nstring, b"nil)", None, 3),
    (Scanner.nstring, b'"NIL"', b"NIL", 5),
    (Scanner.number, b"4294967295 ", 4294967295, 10),
    (Scanner.list_mailbox, b"a/%*x y", b"a/%*x", 5),
    (Scanner.flag, b"\\Seen)", b"\\Seen", 5),
    (Scanner.flag, b"\\*)", b"\\*", 2),
    (Scanner.flag, b"$Junk ", b"$Junk", 5),
]


@pytest.mark.parametrize(("rule", "octets", "value", "end"), TAKEN)
def test_a_rule_takes_its_token_and_no_more(
    rule: Callable[[Scanner], object], octets: bytes, value: object, end: int
) -> None:
    scanner = Scanner(octets)
    assert rule(scanner) == value
    assert scanner.at == end


REFUSED: list[tuple[Callable[[Scanner], object], bytes]] = [
    (Scanner.atom, b""),
    (Scanner.atom, b"(a"),
    (Scanner.atom, b"\x80"),
    (Scanner.string, b'"abc'),
    (Scanner.string, b'"a\r\nb"'),
    (Scanner.string, b"{5}\r\nabc"),
    (Scanner.string, b"{99999999999}\r\n"),
    (Scanner.number, b"4294967296"),
    (Scanner.number, b"-1"),
    (Scanner.space, b"x"),
    (Scanner.end, b" x\r\n"),
]


@pytest.mark.parametrize(("rule", "octets"), REFUSED)
def test_anything_else_is_bad_syntax_at_its_offset(
    rule: Callable[[Scanner], object], octets: bytes
) -> None:
    scanner = Scanner(b"xx" + octets, 2)
    with pytest.raises(BadSyntax) as caught:
        rule(scanner)
    assert caught.value.offset == 2
    assert scanner.at == 2


@given(st.binary(max_size=1200))
def test_any_octets_are_written_and_read_back(octets: bytes) -> None:
    for write in (string, astring, client_astring):
        scanner = Scanner(write(octets) + b"\r\n")
        assert scanner.astring() == octets
        scanner.end()


@given(st.binary(max_size=60))
def test_no_octets_raise_anything_else(octets: bytes) -> None:
    for rule, _, _, _ in TAKEN:
        try:
            rule(Scanner(octets))
        except BadSyntax:
            pass
