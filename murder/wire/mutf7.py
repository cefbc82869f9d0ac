"""Modified UTF-7, the form of mailbox names on the wire (RFC 3501 §5.1.3), to and from text.

Strict both ways: one text has one form, so that no two mailboxes look the same. Octets that are not modified UTF-7 are
BadSyntax; who must show such names nevertheless (a real Cyrus may hold any) uses `decode_leniently`.
"""

import binascii
import re
import unicodedata
from typing import Final

from murder.errors import BadSyntax, Code, Refusal

MAX_UTF8_OCTETS: Final = 2000  # a name has a quarter; as long as a pattern may be

_DIRECT: Final = re.compile(r"[\x20-\x25\x27-\x7e]+")
_PIECES: Final = re.compile(r"&|[\x20-\x25\x27-\x7e]++|[^\x20-\x7e]++")
_TO_MODIFIED: Final = bytes.maketrans(b"/", b",")
_TO_BASE64: Final = bytes.maketrans(b",/", b"/,")  # a "/" in the input becomes invalid on purpose
_INDIRECT: Final = re.compile(rb"[^\x20-\x7e]")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+,]+")


def encode(name: str) -> bytes:
    """Text as modified UTF-7. Raises BadSyntax for a lone surrogate, which no Unicode text has."""
    if _DIRECT.fullmatch(name):
        return name.encode("ascii")
    return b"".join(map(_piece, _PIECES.findall(name)))


def _piece(text: str) -> bytes:
    if text == "&":
        return b"&-"
    return text.encode("ascii") if _DIRECT.fullmatch(text) else b"&" + _shift(text) + b"-"


def _shift(text: str) -> bytes:
    try:
        octets = text.encode("utf-16-be")
    except UnicodeEncodeError as error:
        raise BadSyntax("a mailbox name must be Unicode text", error.start) from None
    return binascii.b2a_base64(octets, newline=False).rstrip(b"=").translate(_TO_MODIFIED)


def decode(octets: bytes) -> str:
    """Modified UTF-7 as text. Raises BadSyntax with the offset for: 8-bit or control octets, an unfinished or invalid
    shift, characters shifted that should not be, two shifts in a row, lone surrogates, bits left over."""
    if b"&" not in octets:
        return _direct(octets, 0)
    pieces = []
    at = 0
    shift_ended_at = -1
    while at < len(octets):
        begin = octets.find(b"&", at)
        if begin < 0:
            pieces.append(_direct(octets[at:], at))
            break
        pieces.append(_direct(octets[at:begin], at))
        end = octets.find(b"-", begin)
        if end < 0:
            raise BadSyntax("a shift in a mailbox name has no end", begin)
        if end == begin + 1:
            pieces.append("&")
        elif begin == shift_ended_at:
            raise BadSyntax("two shifts in a row in a mailbox name", begin)
        else:
            pieces.append(_unshift(octets[begin + 1 : end], begin))
            shift_ended_at = end + 1
        at = end + 1
    return "".join(pieces)


def _direct(octets: bytes, offset: int) -> str:
    indirect = _INDIRECT.search(octets)
    if indirect is not None:
        at = offset + indirect.start()
        raise BadSyntax("a mailbox name has an octet that must be encoded", at)
    return octets.decode("ascii")


def _unshift(shifted: bytes, offset: int) -> str:
    if not _BASE64.fullmatch(shifted) or len(shifted) % 4 == 1:
        raise BadSyntax("a shift in a mailbox name is not modified base64", offset)
    padded = shifted.translate(_TO_BASE64) + b"=" * (-len(shifted) % 4)
    raw = binascii.a2b_base64(padded)
    if len(raw) % 2 or not raw:
        raise BadSyntax("a shift in a mailbox name is not UTF-16", offset)
    try:
        text = raw.decode("utf-16-be")
    except UnicodeDecodeError:
        raise BadSyntax("a shift in a mailbox name is not UTF-16", offset) from None
    if _shift(text) != shifted:
        raise BadSyntax("a shift in a mailbox name has bits left over", offset)
    if any(" " <= character <= "~" for character in text):
        raise BadSyntax("a mailbox name encodes a character that stands for itself", offset)
    return text


def decode_leniently(octets: bytes) -> str:
    """For showing names that exist already: what is not modified UTF-7 is read as UTF-8, or octet by octet."""
    try:
        return decode(octets)
    except BadSyntax:
        return octets.decode("utf-8", "surrogateescape")


def from_utf8(octets: bytes) -> bytes:
    """A name (or pattern) in UTF-8 as modified UTF-7, composed as RFC 5198 wants it. Raises BadSyntax, or Refusal(LIMIT) for
    what is longer than any name. The length is looked at first, for composing costs the square of it."""
    if len(octets) > MAX_UTF8_OCTETS:
        raise Refusal(
            Code.LIMIT,
            f"A mailbox name or pattern may have {MAX_UTF8_OCTETS} octets, not {len(octets)}",
        )
    try:
        return encode(unicodedata.normalize("NFC", octets.decode("utf-8")))
    except UnicodeDecodeError:
        raise BadSyntax("a mailbox name is UTF-8") from None


def to_utf8(octets: bytes) -> bytes:
    """A name for who reads UTF-8; what is no modified UTF-7 stays as it is."""
    if b"&" not in octets:
        return octets
    return decode_leniently(octets).encode("utf-8", "surrogateescape")
