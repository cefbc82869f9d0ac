"""One SASL exchange, either side, sans-IO: octets in, the next step out (RFC 4422).

PLAIN (RFC 4616), EXTERNAL (RFC 4422 appendix A), LOGIN (for clients that know nothing else) and SCRAM-SHA-256 (RFC 5802,
RFC 7677; the client's side by scramp). A server's exchange ends in credentials *as claimed or proven*; whether they are
good is decided by `auth.gate`, which may wait; `auth.mechanisms` has the table of them. Base64 and framing belong to the
protocols.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

import scramp  # type: ignore[import-untyped] # it ships no types

from murder.errors import BadSyntax, Code, Refusal
from murder.model.sasl import (
    Challenge,
    ExternalCredentials,
    PlainCredentials,
    ProvenCredentials,
)


@dataclass(frozen=True, slots=True)
class SecretWanted:
    """Look up this user's SCRAM secret and call `ScramServer.supply`."""

    user: str
    mechanism: str


@dataclass(frozen=True, slots=True)
class Secret:
    """RFC 5802 §3's StoredKey and ServerKey with their salt; octets raw."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def text(octets: bytes) -> str:
    """Names travel in UTF-8 (RFC 4616 §2)."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax("a SASL name is UTF-8") from None


class PlainServer:
    """`[authzid] NUL authcid NUL passwd`, RFC 4616 §2."""

    claimed = ""

    def step(self, response: bytes | None) -> Challenge | PlainCredentials:
        if response is None:
            return Challenge(b"")
        parts = response.split(b"\0")
        if len(parts) != 3 or not parts[1]:
            raise BadSyntax("PLAIN takes authzid NUL authcid NUL password")
        self.claimed = text(parts[1])
        return PlainCredentials(self.claimed, text(parts[0]), parts[2])


class ExternalServer:
    """The authzid, possibly empty."""

    claimed = ""

    def step(self, response: bytes | None) -> Challenge | ExternalCredentials:
        if response is None:
            return Challenge(b"")
        if b"\0" in response:
            raise BadSyntax("EXTERNAL takes an authorization identity without NUL")
        self.claimed = text(response)
        return ExternalCredentials(self.claimed)


class LoginServer:
    """Two prompts; an initial response is the name (draft-murchison-sasl-login)."""

    claimed = ""

    def __init__(self) -> None:
        self._has_name = False
        self._asked = False

    def step(self, response: bytes | None) -> Challenge | PlainCredentials:
        if response is None and not self._asked:
            self._asked = True
            return Challenge(b"Username:")
        if not self._has_name:
            self._has_name = True
            self.claimed = text(response or b"")
            return Challenge(b"Password:")
        return PlainCredentials(self.claimed, "", response or b"", "LOGIN")


class ScramServer:
    """RFC 5802 with SHA-256, without channel binding. Written out here because scramp refuses an authzid, and libsasl2's
    client (a Cyrus backend) always sends one."""

    mechanism: Final = "SCRAM-SHA-256"

    def __init__(self) -> None:
        self._header = b""
        self._client_bare = b""
        self._nonce = b""
        self._server_first = b""
        self.claimed = ""
        self._authzid = ""
        self._secret: Secret | None = None

    def step(self, response: bytes | None) -> Challenge | SecretWanted | ProvenCredentials:
        if response is None:
            return Challenge(b"")
        if self._secret is None:
            return self._begin(response)
        return self._prove(response, self._secret)

    def _begin(self, message: bytes) -> SecretWanted:
        """gs2-cbind-flag "," [authzid] "," client-first-message-bare"""
        flag, _, rest = message.partition(b",")
        authzid, _, bare = rest.partition(b",")
        fields = bare.split(b",")
        well_formed = (
            flag in (b"n", b"y")
            and (not authzid or authzid.startswith(b"a="))
            and len(fields) >= 2
            and fields[0].startswith(b"n=")
            and fields[1].startswith(b"r=")
            and len(fields[1]) > 2
        )
        if not well_formed:
            raise BadSyntax("a SCRAM exchange begins with n,[a=authzid],n=user,r=nonce")
        self._header = flag + b"," + authzid + b","
        self._client_bare = bare
        self.claimed = unescaped(text(fields[0][2:]))
        self._authzid = unescaped(text(authzid[2:]))
        self._nonce = fields[1][2:] + secrets.token_urlsafe(18).encode()
        return SecretWanted(self.claimed, self.mechanism)

    def supply(self, secret: Secret) -> Challenge:
        """Go on with the user's secret."""
        self._secret = secret
        salt = base64.b64encode(secret.salt)
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, salt, secret.iterations)
        return Challenge(self._server_first)

    def _prove(self, message: bytes, secret: Secret) -> ProvenCredentials:
        """channel-binding "," nonce ["," extensions] "," proof"""
        unproven, mark, proof = message.rpartition(b",p=")
        fields = unproven.split(b",")
        expected = [b"c=" + base64.b64encode(self._header), b"r=" + self._nonce]
        signed = b",".join((self._client_bare, self._server_first, unproven))
        signature = hmac.digest(secret.stored_key, signed, "sha256")
        try:
            claimed = base64.b64decode(proof, validate=True)
        except ValueError:
            claimed = b""
        key = bytes(a ^ b for a, b in zip(claimed, signature, strict=False))
        is_proven = hmac.compare_digest(hashlib.sha256(key).digest(), secret.stored_key)
        if not mark or fields[:2] != expected or not is_proven:
            raise Refusal(Code.AUTHENTICATION_FAILED, "Authentication failed")
        final = b"v=" + base64.b64encode(hmac.digest(secret.server_key, signed, "sha256"))
        return ProvenCredentials(self.claimed, self._authzid, final)


def unescaped(saslname: str) -> str:
    """A SASL name without its =2C and =3D (RFC 5801 §4)."""
    return saslname.replace("=2C", ",").replace("=3D", "=")


def plain_response(authzid: str, authcid: str, password: bytes) -> bytes:
    """The client's one message of PLAIN."""
    return b"%s\0%s\0%s" % (authzid.encode(), authcid.encode(), password)


class ScramClient:
    """The client's side of SCRAM-SHA-256: `first`, then `answer` for each challenge."""

    def __init__(self, user: str, password: str) -> None:
        self._client = scramp.ScramClient([ScramServer.mechanism], user, password)
        self._answered = False

    def first(self) -> bytes:
        return str(self._client.get_client_first()).encode()

    def answer(self, challenge: bytes) -> bytes:
        """Raises Refusal where the server does not know the password either."""
        try:
            if not self._answered:
                self._answered = True
                self._client.set_server_first(text(challenge))
                return str(self._client.get_client_final()).encode()
            self._client.set_server_final(text(challenge))
        except (scramp.ScramException, ValueError, KeyError):
            raise Refusal(Code.AUTHENTICATION_FAILED, "the server failed to prove itself") from None
        return b""
