"""SASL OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's, which clients knew first), the server's side, sans-IO: one message
with a token, and where it is not taken one challenge that says why, to be answered before the end.
"""

import json
from typing import Final

from murder.errors import BadSyntax
from murder.model.sasl import TokenClaim
from murder.session.sasl import text, unescaped

OAUTHBEARER: Final = "OAUTHBEARER"
XOAUTH2: Final = "XOAUTH2"
MAX_TOKEN: Final = 16384  # octets; JWTs with many groups have four thousand
SEPARATOR: Final = b"\x01"


def parse_oauthbearer(message: bytes) -> TokenClaim:
    """`gs2-header %x01 *(key "=" value %x01) %x01`, RFC 7628 §3.1. The user is the authzid of the header, if any. Raises
    BadSyntax."""
    header, mark, rest = message.partition(SEPARATOR)
    flag, comma, tail = header.partition(b",")
    authzid, end, nothing = tail.partition(b",")
    well_formed = (
        mark
        and comma
        and end
        and not nothing
        and flag in (b"n", b"y")
        and (not authzid or authzid.startswith(b"a="))
    )
    if not well_formed:
        raise BadSyntax("OAUTHBEARER begins with n,[a=user], and an octet 1")
    return TokenClaim(unescaped(text(authzid[2:])), _token(rest))


def parse_xoauth2(message: bytes) -> TokenClaim:
    """`"user=" user %x01 "auth=Bearer " token %x01 %x01`. Raises BadSyntax."""
    user, mark, rest = message.partition(SEPARATOR)
    if not mark or not user.startswith(b"user="):
        raise BadSyntax("XOAUTH2 begins with user=NAME and an octet 1")
    return TokenClaim(text(user[5:]), _token(rest))


def _token(pairs: bytes) -> str:
    """The bearer token among `key=value` pairs, each ended by an octet 1, and one more behind the last."""
    if not pairs.endswith(SEPARATOR * 2) or len(pairs) > MAX_TOKEN:
        raise BadSyntax("the pairs key=value end with two octets 1")
    credential = ""
    for pair in pairs[:-2].split(SEPARATOR):
        key, equals, value = pair.partition(b"=")
        if not equals:
            raise BadSyntax("pairs are key=value")
        if key == b"auth":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() != b"bearer" or credential:
                raise BadSyntax("auth is Bearer and one token")
            credential = _visible(token.strip(b" "))
    if not credential:
        raise BadSyntax("there is no auth=Bearer TOKEN")
    return credential


def _visible(token: bytes) -> str:
    """RFC 6750 §2.1: letters, digits and few signs."""
    if not token or any(not 0x21 <= octet <= 0x7E for octet in token):
        raise BadSyntax("a token has visible ASCII characters only")
    return token.decode("ascii")


def format_failure(
    mechanism: str, scope: str, openid_configuration: str, *, is_scope_missing: bool = False
) -> bytes:
    """What a client is told whose token is not taken: RFC 7628 §3.2.2, or as Google says it, with the number that HTTP has
    for that (RFC 6750 §3.1)."""
    word, number = ("insufficient_scope", "403") if is_scope_missing else ("invalid_token", "401")
    said: dict[str, str] = {"status": word if mechanism == OAUTHBEARER else number}
    if mechanism == XOAUTH2:
        said["schemes"] = "bearer"
    if scope:
        said["scope"] = scope
    if openid_configuration:
        said["openid-configuration"] = openid_configuration
    return json.dumps(said).encode()
