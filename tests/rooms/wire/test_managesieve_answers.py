"""What a ManageSieve server answers, as a client reads it (RFC 5804 §1.2, §2.7)."""

import pytest

from murder.errors import BadSyntax
from murder.wire.managesieve import (
    ScriptFault,
    format_faults,
    parse_faults,
    parse_script_line,
    parse_status_text,
)


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


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("line 3, column 5: what", [ScriptFault(3, 5, "what")]),
        ("line 3, column 5: a: line 7: b", [ScriptFault(3, 5, "a: line 7: b")]),
        ("main: line 2: error: unknown", [ScriptFault(2, 0, "error: unknown")]),  # Pigeonhole
        (
            "script errors:\r\nLine 7: no",
            [ScriptFault(0, 0, "script errors:"), ScriptFault(7, 0, "no")],
        ),
        ("line 3", [ScriptFault(0, 0, "line 3")]),
        (
            "outline 3: x\n\nline x: y",
            [ScriptFault(0, 0, "outline 3: x"), ScriptFault(0, 0, "line x: y")],
        ),
        ("line 1234567890: x", [ScriptFault(0, 0, "line 1234567890: x")]),
        ("", []),
    ],
)
def test_what_is_wrong_with_a_script_has_its_place(text: str, faults: list[ScriptFault]) -> None:
    assert parse_faults(text) == faults
    assert parse_faults(format_faults(faults)) == faults
