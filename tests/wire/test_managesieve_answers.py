"""What a ManageSieve server answers, as a client reads it (RFC 5804 §1.2, §2.7)."""

import pytest

from murder.errors import BadSyntax
from murder.wire.managesieve import parse_script_line, parse_status_text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"OK\r\n", ""),
        (b'OK "Done."\r\n', "Done."),
        (b'NO (QUOTA/MAXSIZE) "Too \\"big\\""\r\n', 'Too "big"'),
        (b'NO (TAG "x")\r\n', ""),
        (b"NO {16}\r\nline 1: x\r\nline2\r\n", "line 1: x\r\nline2"),
        (b"NO (WARNINGS) garbage\r\n", ""),
        (b"OKAY\r\n", ""),
    ],
)
def test_the_words_at_the_end_of_an_answer(line: bytes, text: str) -> None:
    assert parse_status_text(line) == text


def test_a_script_and_whether_it_is_active() -> None:
    assert parse_script_line(b'"a b" ACTIVE\r\n') == ("a b", True)
    assert parse_script_line(b'"ACTIVE"\r\n') == ("ACTIVE", False)
    assert parse_script_line(b"{2}\r\n\xc3\xbc active\r\n") == ("ü", True)
    with pytest.raises(BadSyntax):
        parse_script_line(b"nonsense\r\n")
