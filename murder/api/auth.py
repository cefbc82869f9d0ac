"""What an authentication backend is: credentials in, an identity out.

A plugin of this kind is made by the hook `make_auth_backend`. It decides *who* somebody is; what they may do is
decided by access lists and by the role's `admins`. `verify` and `lookup` are all that one must have; what else one can is
a Protocol of its own, that is looked for. Where `[auth] plugins` names several they are asked in order, and the first that
knows the user decides.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from murder.model.address import MAX_HOPS
from murder.model.identity import Identity as Identity  # site plugins find it here


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """What a server keeps for SCRAM (RFC 5802 §3). All octets raw, not base64."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """How somebody tries to get in. `protocol` is `imap`, `pop3`, `lmtp`, `mupdate`, or a plugin's own; `server_name` this
    node; `address` and `port` the peer's, `local_address` and `local_port` where it came in; `certificate` the name of the
    murder's node or operator that has shown one, else ""; `tls_certificate` the certificate itself, DER, b"" for none;
    `session` is the log's `cid`; `mechanism` as in SASL, or `LOGIN`, `USER` for the commands of IMAP and POP3; `number`
    counts the attempts of this connection, from 1; through `hops_left` more proxies the session may go."""

    protocol: str
    server_name: str
    address: str
    is_tls: bool
    certificate: str = ""
    session: str = ""
    mechanism: str = ""
    number: int = 1
    port: int = 0
    local_address: str = ""
    local_port: int = 0
    tls_certificate: bytes = field(default=b"", repr=False)
    hops_left: int = MAX_HOPS


class Denied(Enum):
    """Why somebody is not let in. That nobody can be asked now is neither: `UpstreamFailure`."""

    WRONG = "wrong"
    """The user is known here, and this is not the password: nobody else is asked."""
    UNKNOWN = "unknown"
    """There is no such user here, or it cannot be told: the next plugin is asked."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with something that a plugin depends on, and the cure: two sentences for an operator."""

    what: str
    cure: str


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
class ChecksAttempts(Protocol):
    """The optional power to tell a wrong password from an unknown user, and to know how the client has come. `verify` is not
    called then."""

    @property
    def depends_on(self) -> Collection[str]:
        """Fields of LoginAttempt on which an answer depends, as `protocol`, `address`: a password that was right is
        remembered for attempts alike in these only."""
        ...

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        """Decide. Raises Refusal for who has the right password and may not come in all the same (it is told to the client,
        and is no wrong password), UpstreamFailure where the answer cannot be had now."""
        ...


@runtime_checkable
class ChecksTokens(Protocol):
    """The optional power that makes OAUTHBEARER (RFC 7628) and XOAUTH2 appear, in every protocol."""

    @property
    def openid_configuration(self) -> str:
        """The URL that a client is told whose token is not taken; "" for none."""
        ...

    @property
    def scope(self) -> str:
        """The scope that such a client should ask for; "" for none."""
        ...

    async def check_token(self, attempt: LoginAttempt, user: str, token: str) -> Identity | Denied:
        """Whose token it is. `user` is who the client says it is, "" where it does not say. Raises Refusal (ScopeMissing for
        a token that is for something else) and UpstreamFailure as `ChecksAttempts.check`."""
        ...


@runtime_checkable
class KnowsCertificates(Protocol):
    """The optional power to say which user a TLS certificate is of (SASL EXTERNAL). It was verified already."""

    async def user_of_certificate(self, attempt: LoginAttempt) -> Identity | None:
        """None where it is of no user of this plugin."""
        ...


@runtime_checkable
class FindsPeople(Protocol):
    """The optional power to say whose an address of mail is."""

    async def user_of_address(self, address: str) -> str | None:
        """The canonical user id for `local@domain` as it came by LMTP; None where it is nobody's here. Raises
        UpstreamFailure."""
        ...


@runtime_checkable
class Diagnoses(Protocol):
    """The optional power behind `murder auth test` and `murder ctl doctor`: to look whether what it depends on works."""

    async def diagnose(self) -> Sequence[Fault]:
        """What is wrong now; nothing, where all is well. Raises nothing."""
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
        """At once, so in microseconds and without input or output; None where `verify` must be asked."""
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
class LocksOut(Protocol):
    """The optional power to keep a user out, whatever they prove themselves by (a ticket, a token, a certificate, an
    application password), whoever else knows them, and whoever acts for them."""

    def is_locked_out(self, user: str) -> bool:
        """At once, so in microseconds."""
        ...


@runtime_checkable
class BelievesAnybody(Protocol):
    """The mark of one that cannot be asked who is there, so that `lookup` believes in whomever it is asked about. A master
    does not become somebody on its word alone: a mistyped name would get a mailbox of its own."""

    @property
    def believes_anybody(self) -> bool:
        """Whether `lookup` does."""
        ...


@runtime_checkable
class TakesTime(Protocol):
    """The optional power of one that `ChecksAttempts` and hashes: an unknown user is told at once there, so that the next
    plugin is asked, and where nobody knows the user it takes as long as a wrong password all the same."""

    async def take_time(self, password: bytes) -> None:
        """As much as a wrong password takes."""
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


@runtime_checkable
class ManagesGroups(Protocol):
    """The optional power behind `murder auth group` and `murder auth disable|enable`."""

    async def set_groups(self, user: str, groups: Collection[str]) -> None:
        """These and no others, durably. Raises Refusal for a user that there is not, or a name that cannot be."""
        ...

    async def set_disabled(self, user: str, disabled: bool) -> None:
        """Whether the user may not log in, durably; mail goes on arriving. With LocksOut also one whom another plugin knows.
        Raises Refusal for a user that there is not."""
        ...

    async def disabled_users(self) -> Collection[str]:
        """Who may not log in."""
        ...
