"""A header of any number of fields: of its names some thousands are known, and nothing of it is lost."""

import pytest

from murder.mime import section
from murder.mime.section import HeaderFields, select_fields
from murder.roles.backend.messages.content import HEADER_LOOK, end_of_header, ends_of_header


def test_fields_beyond_a_bound_are_told_with_all_others_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(section, "MAX_FIELDS", 3)
    header = b"".join(b"X%d: a\r\n" % number for number in range(6)) + b"\r\n"
    assert select_fields(header, (b"X2", b"X4"), True) == b"X2: a\r\n\r\n"
    assert select_fields(header, (b"X2", b"X4"), False) == header.replace(b"X2: a\r\n", b"")
    assert select_fields(header, (), False) == header


def test_a_million_fields_are_no_million_objects() -> None:
    header = b"a:\r\n" * 3 * section.MAX_FIELDS
    fields = HeaderFields(header)
    assert sum(1 for _ in fields.read()) == section.MAX_FIELDS  # and no more is looked at
    assert len(fields._wholes) == section.MAX_FIELDS
    assert fields.select((), False) == header + b"\r\n"


@pytest.mark.parametrize("blank_line", [b"\n\n", b"\n\r\n", b"\r\n\r\n"])
def test_the_body_is_found_wherever_pieces_end(blank_line: bytes) -> None:
    for before in range(HEADER_LOOK - 6, HEADER_LOOK + 3):
        octets = memoryview(b"x" * before + blank_line + b"body")
        assert bytes(octets[end_of_header(octets) :]) == b"body"


@pytest.mark.parametrize(
    ("octets", "end"),
    [(b"", 0), (b"x", 1), (b"\n", 1), (b"\r\n", 2), (b"\r\nx", 2), (b"\nx", 1), (b"a\n\nx", 3)],
)
def test_short_messages_and_where_their_headers_end(octets: bytes, end: int) -> None:
    assert end_of_header(memoryview(octets)) == end


def test_a_message_without_a_blank_line_is_looked_through_piece_by_piece() -> None:
    for pieces in (4, 8):
        octets = memoryview(b"x" * (pieces * HEADER_LOOK))
        *before, end = ends_of_header(octets)
        assert end == len(octets) and set(before) == {None}
        assert pieces - 1 <= len(before) <= pieces
