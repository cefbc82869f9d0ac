"""One line of base64: what SASL says in IMAP, POP3 and LMTP (RFC 4422 §4, RFC 4648)."""

import base64
import binascii
from typing import Final

from murder.errors import BadSyntax

# a Kerberos ticket or OAuth token has some KiB; RFC 4954 §4 says 12288
MAX_RESPONSE_OCTETS: Final = 12 * 1024


def decode_base64(octets: bytes) -> bytes:
    """One base64 line; blanks at its end mean nothing. Raises BadSyntax."""
    octets = octets.rstrip(b" \t")
    if len(octets) > MAX_RESPONSE_OCTETS:
        raise BadSyntax(f"a SASL response may have {MAX_RESPONSE_OCTETS} octets")
    try:
        return base64.b64decode(octets, validate=True)
    except binascii.Error as error:
        raise BadSyntax(f"that is not base64: {error}") from None


def decode_response(octets: bytes) -> bytes:
    """What a MUPDATE string has of SASL (RFC 3656 §4.2). Raises BadSyntax."""
    if len(octets) > MAX_RESPONSE_OCTETS * 4 // 3:
        raise BadSyntax(f"a SASL response may have {MAX_RESPONSE_OCTETS} octets")
    if octets == b"=":  # RFC 4954's way to say "empty", harmless here
        return b""
    try:
        return base64.b64decode(octets, validate=True)
    except binascii.Error:
        raise BadSyntax("a SASL response is base64") from None
