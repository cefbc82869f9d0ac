"""One SASL exchange, either side, sans-IO: octets in, the next step out (RFC 4422).

PLAIN (RFC 4616), EXTERNAL (RFC 4422 appendix A), LOGIN (for clients that know nothing else) and SCRAM-SHA-256 (RFC 5802,
RFC 7677, by scramp). A server's exchange ends in credentials *as claimed or proven*; whether they are good is decided by
`login.gate`, which may wait. Base64 and framing belong to the protocols.
"""

from dataclasses import dataclass, field
from typing import Final, Protocol

import scramp  # type: ignore[import-untyped] # it ships no types

from murder.errors import BadSyntax, Code, Refusal

MAX_RESPONSE_OCTETS: Final = (
    12 * 1024
)  # a Kerberos ticket or OAuth token has some KiB; RFC 4954 §4 says 12288


@dataclass(frozen=True, slots=True)
class PlainCredentials:
    """A password to be checked. `authzid` is "" where the user speaks for himself."""

    authcid: str
    authzid: str
    password: bytes = field(repr=False)
    mechanism: str = "PLAIN"


@dataclass(frozen=True, slots=True)
class ExternalCredentials:
    """Whoever the TLS certificate says, on behalf of `authzid` ("" : of itself)."""

    authzid: str
    mechanism: str = "EXTERNAL"


@dataclass(frozen=True, slots=True)
class ProvenCredentials:
    """A user who has proven himself in the exchange (SCRAM). `final` is still to be sent to him."""

    authcid: str
    authzid: str
    final: bytes
    mechanism: str = "SCRAM-SHA-256"


Credentials = PlainCredentials | ExternalCredentials | ProvenCredentials


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send this and come back with the answer."""

    octets: bytes


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


Step = Challenge | SecretWanted | Credentials


class ServerExchange(Protocol):
    def step(self, response: bytes | None) -> Step:
        """The client's next response (None: it gave no initial one). Raises BadSyntax, Refusal."""
        ...


def text(octets: bytes) -> str:
    """Names travel in UTF-8 (RFC 4616 §2)."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax("a SASL name is UTF-8") from None


class PlainServer:
    """`[authzid] NUL authcid NUL passwd`, RFC 4616 §2."""

    def step(self, response: bytes | None) -> Step:
        if response is None:
            return Challenge(b"")
        parts = response.split(b"\0")
        if len(parts) != 3 or not parts[1]:
            raise BadSyntax("PLAIN takes authzid NUL authcid NUL password")
        return PlainCredentials(text(parts[1]), text(parts[0]), parts[2])


class ExternalServer:
    """The authzid, possibly empty."""

    def step(self, response: bytes | None) -> Step:
        if response is None:
            return Challenge(b"")
        if b"\0" in response:
            raise BadSyntax("EXTERNAL takes an authorization identity without NUL")
        return ExternalCredentials(text(response))


class LoginServer:
    """Two prompts; an initial response is the name (draft-murchison-sasl-login)."""

    def __init__(self) -> None:
        self._user: str | None = None
        self._asked = False

    def step(self, response: bytes | None) -> Step:
        if response is None and not self._asked:
            self._asked = True
            return Challenge(b"Username:")
        if self._user is None:
            self._user = text(response or b"")
            return Challenge(b"Password:")
        return PlainCredentials(self._user, "", response or b"", "LOGIN")


class ScramServer:
    """RFC 5802 with SHA-256. Unknown users go through the whole exchange with a made-up secret of the caller's."""

    mechanism: Final = "SCRAM-SHA-256"

    def __init__(self) -> None:
        self._first = ""
        self._user = ""
        self._authzid = ""
        self._server: scramp.core.ScramServer | None = None

    def step(self, response: bytes | None) -> Step:
        if response is None:
            return Challenge(b"")
        if self._server is None:
            return self._begin(text(response))
        try:
            self._server.set_client_final(text(response))
            final = self._server.get_server_final().encode()
        except (scramp.ScramException, ValueError, KeyError):
            raise Refusal(Code.AUTHENTICATION_FAILED, "Authentication failed") from None
        return ProvenCredentials(self._user, self._authzid, final)

    def _begin(self, message: str) -> SecretWanted:
        # gs2-cbind-flag "," [authzid] "," client-first-message-bare
        fields = message.split(",")
        if len(fields) < 4 or fields[0] not in ("n", "y") or not fields[2].startswith("n="):
            raise BadSyntax("a SCRAM exchange begins with n,[a=authzid],n=user,r=nonce")
        self._first = message
        self._user = _unescaped(fields[2][2:])
        self._authzid = _unescaped(fields[1].removeprefix("a="))
        return SecretWanted(self._user, self.mechanism)

    def supply(self, secret: Secret) -> Challenge:
        """Go on with the user's secret. Raises BadSyntax."""
        stored = (secret.salt, secret.stored_key, secret.server_key, secret.iterations)
        self._server = scramp.ScramMechanism(self.mechanism).make_server(lambda _: stored)
        try:
            self._server.set_client_first(self._first)
            return Challenge(self._server.get_server_first().encode())
        except (scramp.ScramException, ValueError, KeyError, IndexError):
            raise BadSyntax("that is no SCRAM client-first-message") from None


def _unescaped(saslname: str) -> str:
    return saslname.replace("=2C", ",").replace("=3D", "=")


def server_exchange(mechanism: str) -> ServerExchange:
    """Begin an exchange; the caller has checked that it offers this mechanism."""
    match mechanism:
        case "PLAIN":
            return PlainServer()
        case "EXTERNAL":
            return ExternalServer()
        case "LOGIN":
            return LoginServer()
        case "SCRAM-SHA-256":
            return ScramServer()
        case _:
            raise Refusal(Code.CANNOT, f"{mechanism} is not offered")


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
