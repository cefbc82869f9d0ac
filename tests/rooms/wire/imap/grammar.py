"""How a table of one grammar's rows is run: whole, with octets in front, and broken in every way."""

from collections.abc import Callable

import pytest

from murder.errors import BadSyntax, Refusal
from murder.wire.token import Scanner

Parse = Callable[[Scanner], object]


def check_row(parse: Parse, octets: bytes, value: object) -> None:
    """The row gives its value, at any offset, with either line end; and its shortenings give a value or BadSyntax."""
    assert parse(Scanner(octets + b"\r\n")) == value
    assert parse(Scanner(octets + b"\n")) == value
    assert parse(Scanner(b"a1 X" + octets + b"\r\n", 4)) == value
    with pytest.raises(BadSyntax):
        parse(Scanner(octets + b" )\r\n"))
    for end in range(len(octets)):
        check_survives(parse, octets[:end] + b"\r\n")
        check_survives(parse, octets[:end] + octets[end + 1 :] + b"\r\n")
        check_survives(parse, octets[:end] + b"\x00" + octets[end:] + b"\r\n")


def check_survives(parse: Parse, octets: bytes) -> None:
    """Whatever the octets: a value, BadSyntax, or a Refusal."""
    try:
        parse(Scanner(octets))
    except (BadSyntax, Refusal):
        pass
