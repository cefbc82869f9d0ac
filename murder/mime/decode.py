"""Undoing a part's transfer encoding and its character set (RFC 2045 §6). Never raises: what is damaged is read as well
as it goes."""

import binascii
import re
from typing import Final

from murder.model.charset import codec_of

_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]+")
_AS_IT_IS: Final = frozenset({b"7BIT", b"8BIT", b"BINARY", b""})
_TRAILING_SPACE: Final = re.compile(rb"[ \t]+(?=\r?\n|\Z)")


def decode_transfer(body: memoryview | bytes, encoding: bytes) -> memoryview | bytes | None:
    """The body without its encoding (name in upper case), or None where that is not known."""
    if encoding in _AS_IT_IS:
        return body
    if encoding == b"BASE64":
        return decode_base64(bytes(body))
    if encoding == b"QUOTED-PRINTABLE":
        return binascii.a2b_qp(_TRAILING_SPACE.sub(b"", bytes(body)))
    return None


def decode_base64(octets: bytes) -> bytes:
    """Foreign octets are skipped; padding in the middle ends one run and begins the next, as concatenated encodings
    have it; a rest that is no whole octet is dropped."""
    compact = octets.translate(None, b"\r\n \t")
    try:
        return binascii.a2b_base64(compact, strict_mode=True)
    except binascii.Error:
        pass
    pieces = []
    for run in compact.split(b"="):
        clean = _NOT_BASE64.sub(b"", run)
        clean = clean[: len(clean) - (len(clean) % 4 == 1)]
        pieces.append(binascii.a2b_base64(clean + b"=" * (-len(clean) % 4)))
    return b"".join(pieces)


def decode_text(octets: memoryview | bytes, charset: str) -> str:
    """Text of a character set. One that is not known, or a wrong one, is taken for UTF-8, and what is not even that for
    Latin-1: so that something can still be found in it."""
    octets = bytes(octets)
    codec = codec_of(charset) if charset else None
    if codec is None or codec in ("ascii", "utf-8"):
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            return octets.decode("cp1252", "replace")
    try:
        return octets.decode(codec, "replace")
    except (UnicodeError, LookupError):
        return octets.decode("latin-1")
