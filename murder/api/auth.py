"""What an authentication backend is: credentials in, an identity out.

A plugin of this kind is made by the hook `make_auth_backend`. It decides *who* somebody is; what he may do is
decided by access lists and by the role's `admins`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from murder.model.identity import Identity as Identity  # site plugins find it here


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """What a server keeps for SCRAM (RFC 5802 §3). All octets raw, not base64."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


class AuthBackend(Protocol):
    """Checks passwords. Must not block the event loop: slow hashes belong in a thread."""

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """The identity if the password is right; None if not, or if there is no such user.

        The time taken should not tell the two apart. Raises `UpstreamFailure` where the answer cannot be
        had now, which clients see as a temporary failure.
        """
        ...

    async def lookup(self, user: str) -> Identity | None:
        """The identity of a user that a trusted proxy, or a certificate, vouches for; None if unknown."""
        ...


@runtime_checkable
class HasScramSecrets(Protocol):
    """The optional power that makes SCRAM mechanisms appear."""

    async def scram_secret(self, user: str, mechanism: str) -> ScramSecret | None:
        """`mechanism` is the SASL name, as `SCRAM-SHA-256`. None for a user that is not known."""
        ...


@runtime_checkable
class HasScramDecoys(Protocol):
    """The optional power to make up secrets for users that are not known, so that a SCRAM exchange with one goes on, and
    fails, as with a wrong password. Without it the core makes them up, the same at all times on one node."""

    def scram_decoy(self, user: str, mechanism: str) -> ScramSecret:
        """The same at every call, in every process and on every node that has the same users; with as much salt and as
        many iterations as real ones."""
        ...


@runtime_checkable
class RecallsPasswords(Protocol):
    """The optional power to know a right password again without the work of `verify`."""

    def recall(self, user: str, password: bytes) -> Identity | None:
        """At once; None where `verify` must be asked."""
        ...


@runtime_checkable
class ChecksFewAtOnce(Protocol):
    """The optional power of a backend whose `verify` takes a processor. The core asks no more at a time, and lets one
    address after the other have its turn."""

    @property
    def checks_at_once(self) -> int:
        """How many, in this process."""
        ...


@runtime_checkable
class ManagesUsers(Protocol):
    """The optional power behind `murder auth add|passwd|remove|list`."""

    async def users(self) -> Collection[Identity]:
        """Everybody this backend knows."""
        ...

    async def set_passwords(self, passwords: Mapping[str, bytes]) -> None:
        """Give these users these passwords, all or none, durably; users not known yet are made.

        Raises Refusal for a name or a password that cannot be."""
        ...

    async def remove(self, user: str) -> bool:
        """Forget a user, durably; False if there was none."""
        ...
