"""What one side of a SASL exchange comes to (RFC 4422), whatever its mechanism: the steps of a server's."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from murder.model.identity import Identity


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send this and come back with the answer. Octets as the mechanism has them, without base64."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The client says that it is `user`, and nothing has been judged yet: `proceed` does so and gives the next step. It is
    called when it is this user's and address's turn, so that guesses wait; it may ask a directory, and has the time-out of
    one. From here on the exchange is an attempt: where it does not end well it counts as a wrong password."""

    user: str
    proceed: "Callable[[], Awaitable[Step]]" = field(repr=False)


@dataclass(frozen=True, slots=True)
class PlainCredentials:
    """A password to be checked. `authzid` is "" where users speak for themselves."""

    authcid: str
    authzid: str
    password: bytes = field(repr=False)
    mechanism: str = "PLAIN"


@dataclass(frozen=True, slots=True)
class TokenClaim:
    """A bearer token to be checked, and who the client says it is: "" where it does not say."""

    user: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExternalCredentials:
    """Whoever the TLS certificate says, on behalf of `authzid` ("" : of itself)."""

    authzid: str
    mechanism: str = "EXTERNAL"


@dataclass(frozen=True, slots=True)
class ProvenCredentials:
    """A user who has proven who they are (SCRAM, a token, a ticket). `final` is still to be sent to them.
    `identity` is who they are where the mechanism knows; else the auth backend is asked about `authcid`."""

    authcid: str
    authzid: str
    final: bytes
    mechanism: str = "SCRAM-SHA-256"
    identity: Identity | None = None


Credentials = PlainCredentials | ExternalCredentials | ProvenCredentials
Step = Challenge | Claim | Credentials
