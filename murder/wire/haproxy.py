"""The PROXY protocol, versions 1 and 2: a load balancer tells whom it speaks for, before anything else
(haproxy.org/download/3.0/doc/proxy-protocol.txt).

What follows the header may be TLS, so nothing of that may be read with it: `octets_wanted` says how many octets can be
read for certain.
"""

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

from murder.errors import BadSyntax
from murder.model.address import address_in

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = struct.Struct("!12sBBH")  # of version 2
SHORTEST: Final = len(b"PROXY UNKNOWN\r\n")
MAX_LINE: Final = 107  # of version 1, its end included
MAX_BLOCK: Final = 4096  # of version 2: addresses and extensions
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21


@dataclass(frozen=True, slots=True)
class Origin:
    """The client behind the balancer; address "" where it speaks for itself (a health check) or does not know."""

    address: str = ""
    port: int = 0


def octets_wanted(header: bytes) -> int:
    """How many octets more the header has at least; 0: it is whole. Raises BadSyntax."""
    if not header:
        return SHORTEST
    if not header.startswith(b"P"):
        if not SIGNATURE.startswith(header[: len(SIGNATURE)]):
            raise BadSyntax("no PROXY header, which this address must begin with")
        if len(header) < _FIXED.size:
            return _FIXED.size - len(header)
        length = _FIXED.unpack_from(header)[3]
        if length > MAX_BLOCK:
            raise BadSyntax("a PROXY header may have 4096 octets")
        return int(_FIXED.size + length - len(header))
    if not b"PROXY ".startswith(header[:6]):
        raise BadSyntax("no PROXY header, which this address must begin with")
    if header.endswith(b"\r\n"):
        return 0
    if len(header) >= MAX_LINE:
        raise BadSyntax("a PROXY line may have 107 octets")
    if len(header) < SHORTEST:
        return SHORTEST - len(header)
    return 1 if header.endswith(b"\r") else 2


def parse_header(header: bytes) -> Origin:
    """A whole one. Raises BadSyntax."""
    return _parse_line(header) if header.startswith(b"P") else _parse_block(header)


def _parse_line(line: bytes) -> Origin:
    words = line.rstrip(b"\r\n").split(b" ")
    if words[:2] == [b"PROXY", b"UNKNOWN"]:
        return Origin()
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6") or not words[4].isdigit():
        raise BadSyntax("that PROXY line says nothing")
    try:
        address = ipaddress.ip_address(words[2].decode("ascii", "replace"))
    except ValueError:
        raise BadSyntax("that PROXY line has no address") from None
    if b"%" in words[2] or address.version != int(words[1][3:]) or int(words[4]) > 65535:
        raise BadSyntax("that PROXY line does not fit together")
    return Origin(str(address), int(words[4]))


def _parse_block(block: bytes) -> Origin:
    _, command, family, _ = _FIXED.unpack_from(block)
    if command not in (_LOCAL, _PROXY):
        raise BadSyntax("a PROXY header of a version or command not known here")
    rest = block[_FIXED.size :]
    size = {_TCP4: 4, _TCP6: 16}.get(family, 0)
    if command == _LOCAL or not size:
        return Origin()
    if len(rest) < 2 * size + 4:
        raise BadSyntax("a PROXY header without its addresses")
    address = ipaddress.ip_address(rest[:size])
    (port,) = struct.unpack_from("!H", rest, 2 * size)
    return Origin(str(address), port)


def format_header(version: int, source: tuple[str, int], target: tuple[str, int]) -> bytes:
    """Who connects to whom. Addresses of two families, or none, become "unknown"."""
    try:
        addresses = [address_in(endpoint[0]) for endpoint in (source, target)]
    except ValueError:
        addresses = []
    known = len({address.version for address in addresses}) == 1
    if version == 1:
        if not known:
            return b"PROXY UNKNOWN\r\n"
        words = (addresses[0].version, *addresses, source[1], target[1])
        return b"PROXY TCP%d %s %s %d %d\r\n" % (
            words[0],
            str(words[1]).encode(),
            str(words[2]).encode(),
            words[3],
            words[4],
        )
    if not known:
        return _FIXED.pack(SIGNATURE, _LOCAL, 0, 0)
    family = _TCP4 if addresses[0].version == 4 else _TCP6
    block = addresses[0].packed + addresses[1].packed + struct.pack("!HH", source[1], target[1])
    return _FIXED.pack(SIGNATURE, _PROXY, family, len(block)) + block
