"""SASL mechanisms (RFC 4422) as values: those of murder are rows of one table, a plugin's are added to it.

A plugin of this kind gives its rows by the hook `make_mechanisms`. Base64, framing, what may be sent without TLS, what wrong
attempts cost, the log, and who may act for whom are the core's; a mechanism takes octets and says what comes next. It is in
the capabilities of every protocol where it would work: IMAP's AUTH=, POP3's SASL, LMTP's AUTH, MUPDATE's banner.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from murder.api.auth import AuthBackend, Fault, LoginAttempt
from murder.errors import Misuse
from murder.model.sasl import Challenge as Challenge  # site plugins find them here
from murder.model.sasl import Claim as Claim
from murder.model.sasl import ExternalCredentials as ExternalCredentials
from murder.model.sasl import PlainCredentials as PlainCredentials
from murder.model.sasl import ProvenCredentials as ProvenCredentials
from murder.model.sasl import Step as Step

BUILT_IN: Final = frozenset({"EXTERNAL", "LOGIN", "PLAIN", "SCRAM-SHA-256"})
"""The names of murder's own that no plugin brings in their place."""
NAME: Final = re.compile(r"[A-Z0-9_-]{1,20}")  # RFC 4422 §3.1


Client = LoginAttempt
"""Who is at the other end of the connection, and where it came in."""


class Exchange(Protocol):
    """The server's side of one exchange. Sans-IO: what must be asked for is asked in `Claim.proceed`."""

    @property
    def claimed(self) -> str:
        """Who the client says it is, as it wrote that, once it has: for the log."""
        ...

    def step(self, response: bytes | None) -> Step:
        """The client's next response (None: it gave no initial one). Raises BadSyntax for what is none, Refusal for who is
        not let in; `ProvenCredentials` and the like are the end."""
        ...


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One mechanism. `start` begins an exchange; it is given the auth backend, which knows users, and may be called at any
    time in any number.

    `needs_tls`: who overhears it could log in as the user, so it is offered under TLS only (or with `allow_plaintext`).
    `needs_certificate`: it is for who has shown a certificate of this murder. `protocols`: where it is offered, by
    their names; empty: everywhere. `diagnose` looks whether what it depends on works, as `Diagnoses` of an auth backend.
    `guessable`: whether a wrong attempt counts as a guess, against its user and its address; not where nobody comes upon
    what is right by trying.
    """

    name: str
    start: Callable[[Client, AuthBackend], Exchange]
    needs_tls: bool = True
    needs_certificate: bool = False
    protocols: frozenset[str] = frozenset()
    diagnose: Callable[[], Awaitable[Sequence[Fault]]] | None = None
    guessable: bool = True

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise Misuse(f"{self.name!r}: a mechanism has 1 to 20 of A-Z, 0-9, - and _ (RFC 4422)")
