"""The PROXY protocol's headers, by tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.wire.haproxy import SIGNATURE, Origin, format_header, octets_wanted, parse_header

V2_TCP4 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 10, 0, 0, 1]) + b"\x30\x39\x00\x8f"
GOOD = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 143\r\n", Origin("192.0.2.7", 12345)),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n", Origin("2001:db8::7", 1)),
    (b"PROXY UNKNOWN\r\n", Origin()),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Origin()),
    (V2_TCP4, Origin("192.0.2.7", 12345)),
    (SIGNATURE + b"\x20\x00\x00\x00", Origin()),
    (SIGNATURE + b"\x21\x31\x00\x02ab", Origin()),  # a Unix socket
    (V2_TCP4[:15] + b"\x10" + V2_TCP4[16:] + b"\x04\x00\x01x", Origin("192.0.2.7", 12345)),  # TLV
]
BAD = [
    b"PROXY TCP6 fe80::1%\x1b[2J ::2 4000 143\r\n",
    b"a LOGIN x y\r\n",
    b"POST / HTTP/1.1\r\n",
    b"PROXY TCP4 192.0.2.7\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 1\r\n",
    b"PROXY TCP4 no 10.0.0.1 1 1\r\n",
    b"PROXY " + b"x" * 200,
    SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
    SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
    SIGNATURE + b"\x21\x11\xff\xff",
]


def read(octets: bytes) -> tuple[Origin, bytes]:
    """As a connection does: never more than is wanted."""
    header = b""
    while wanted := octets_wanted(header):
        piece, octets = octets[:wanted], octets[wanted:]
        if not piece:
            raise EOFError
        header += piece
    return parse_header(header), octets


@pytest.mark.parametrize(("octets", "origin"), GOOD)
def test_a_header_is_read_and_nothing_behind_it(octets: bytes, origin: Origin) -> None:
    assert read(octets + b"\x16\x03\x01") == (origin, b"\x16\x03\x01")
    with pytest.raises(EOFError):
        read(octets[:-1])


@pytest.mark.parametrize("octets", BAD)
def test_what_is_no_header_is_refused(octets: bytes) -> None:
    with pytest.raises(BadSyntax):
        read(octets)


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_written_is_read(version: int) -> None:
    for source, target in (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "::1")):
        header = format_header(version, (source, 4000), (target, 143))
        assert read(header) == (Origin(source, 4000), b"")
    for source, target in (("192.0.2.1", "::1"), ("", "")):
        assert read(format_header(version, (source, 1), (target, 2)))[0] == Origin()


@given(st.binary(max_size=200))
def test_arbitrary_octets_raise_nothing_else(octets: bytes) -> None:
    for start in (b"", b"PROXY TCP4 ", SIGNATURE):
        try:
            read(start + octets)
        except (BadSyntax, EOFError):
            pass
