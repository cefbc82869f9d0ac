"""Header values as people read them: encoded words decoded (RFC 2047, RFC 2231 language tags), dates (RFC 5322 §3.3).

Never raises. Encoded words are decoded here rather than by the standard library, which loses the white space between
them and stops at unknown character sets.
"""

import binascii
import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_tz
from typing import Final

from murder.mime.decode import decode_base64, decode_text

# encoded-word = "=?" charset ["*" language] "?" encoding "?" encoded-text "?="
_WORD: Final = re.compile(rb"=\?([^?*\s]{1,64})(?:\*[^?\s]{0,64})?\?([BbQq])\?([^?]*)\?=")
_BETWEEN: Final = re.compile(rb"[ \t\r\n]*\Z")
_UNFOLD: Final = bytes.maketrans(b"", b"")


def decode_value(value: bytes) -> str:
    """An unstructured or structured value with its encoded words decoded. White space between two of them is dropped;
    neighbours in one character set are joined before decoding, since senders cut characters in two."""
    value = value.translate(_UNFOLD, b"\r\n\x00")
    if b"=?" not in value:
        return value.decode("ascii") if value.isascii() else decode_text(value, "")
    pieces: list[str] = []
    held: list[bytes] = []  # decoded octets of neighbouring words in one character set
    charset = ""
    at = 0
    for match in _WORD.finditer(value):
        between = value[at : match.start()]
        name = match.group(1).decode("ascii", "replace").lower()
        if not held or not _BETWEEN.match(between):
            pieces += (decode_text(b"".join(held), charset), decode_text(between, ""))
            held = []
        elif name != charset:
            pieces.append(decode_text(b"".join(held), charset))
            held = []
        charset = name
        held.append(_decode_word(match.group(2), match.group(3)))
        at = match.end()
    pieces += (decode_text(b"".join(held), charset), decode_text(value[at:], ""))
    return "".join(pieces)


def _decode_word(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"Bb":
        return decode_base64(text)
    return binascii.a2b_qp(text, header=True)


def parse_date(value: bytes | None) -> datetime | None:
    """A Date field as an aware datetime in the zone it was written in; None where it is missing or no date."""
    if not value:
        return None
    try:
        fields = parsedate_tz(value[:200].decode("ascii", "replace"))
        if fields is None:
            return None
        year, month, day, hour, minute, second = fields[:6]
        zone = timezone(timedelta(seconds=fields[9] or 0))
        moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=zone)
        moment.astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return moment
