"""Who is let in, and as whom: credentials in, a `Login` out. One gate a role and process.

Passwords go to the auth plugin; certificates speak for nodes. Two rules stand here and nowhere else: a password is not
taken without TLS unless the configuration allows it, and whoever comes through a proxy never is an administrator
(a stolen frontend must not be able to administer).
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Final, Self, TypeVar

from murder.api.auth import AuthBackend, HasScramSecrets, Identity
from murder.config.sections import AuthConfig
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.login.crowd import Crowd
from murder.login.penalty import Penalties
from murder.net.connection import Connection
from murder.net.tally import Counts
from murder.session.sasl import (
    Challenge,
    Credentials,
    ExternalCredentials,
    PlainCredentials,
    ProvenCredentials,
    ScramServer,
    Secret,
    SecretWanted,
    ServerExchange,
    server_exchange,
)

PROXY_ROLES: Final = frozenset(
    {"frontend", "backend"}
)  # backends speak for users in COPY and moves
OPERATOR_ROLE: Final = "operator"  # `murder ca issue NAME --role operator`: an administrator
SCRAM: Final = "SCRAM-SHA-256"

T = TypeVar("T")
Ask = Callable[[bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who is in. `proxy` names the node or proxy user that vouches for him, "" if he came himself.

    `password` is kept only where it must be carried on (an administrator at a frontend). `detail` is what he wrote behind
    his name with a `+`: the mailbox that POP3 opens.
    """

    user: str
    identity: Identity
    is_admin: bool = False
    proxy: str = ""
    password: bytes | None = field(default=None, repr=False)
    detail: str = ""


class Gate:
    """See the module."""

    def __init__(
        self,
        auth: AuthBackend,
        *,
        admins: Collection[str] = (),
        proxies: Collection[str] = (),
        allow_plaintext: bool = False,
        penalties: Penalties | None = None,
        crowd: Crowd | None = None,
        auth_timeout_s: float = 15.0,
        keep_admin_password: bool = False,
        proxy_roles: Collection[str] = PROXY_ROLES,
        domains: bool = True,
    ) -> None:
        self.auth = auth
        self._has_scram = isinstance(auth, HasScramSecrets)  # asking costs 10 us
        self.admins = frozenset(admins)
        self.proxies = frozenset(proxies)
        self.allow_plaintext = allow_plaintext
        self.penalties = penalties or Penalties()
        self.crowd = crowd or Crowd()
        self.auth_timeout_s = auth_timeout_s
        self.keep_admin_password = keep_admin_password
        self.proxy_roles = frozenset(proxy_roles)
        self.domains = domains

    def following(self, before: "Gate") -> Self:
        """This gate, counting on where the one before it stopped (a reload), by its own settings."""
        penalties, crowd = before.penalties, before.crowd
        penalties.configure(self.penalties.first_s, self.penalties.most_s, self.penalties.trusted)
        crowd.configure(self.crowd.most)
        self.penalties, self.crowd = penalties, crowd
        return self

    def takes_passwords(self, connection: Connection) -> bool:
        """Whether a password may be sent over this connection as it is now."""
        return connection.is_tls or self.allow_plaintext

    def mechanisms(self, connection: Connection) -> tuple[str, ...]:
        """The SASL mechanisms that would work on this connection now."""
        offered = []
        if connection.certificate is not None:
            offered.append("EXTERNAL")
        if self._has_scram and not self.keep_admin_password:
            offered.append(SCRAM)
        if self.takes_passwords(connection):
            offered += ["PLAIN", "LOGIN"]
        return tuple(offered)

    def is_proxy(self, connection: Connection) -> bool:
        """Whether the peer has shown the certificate of a node that may speak for users."""
        certificate = connection.certificate
        return certificate is not None and bool(certificate.roles & self.proxy_roles)

    async def admit(self, credentials: Credentials, connection: Connection) -> Login:
        """Decide. Raises Refusal (with the delay for wrong passwords behind it) or UpstreamFailure."""
        authcid, detail = self.known_as(getattr(credentials, "authcid", ""))
        authzid, acting_detail = self.known_as(credentials.authzid)
        if not isinstance(credentials, ExternalCredentials):
            credentials = replace(credentials, authcid=authcid)
        login = await self._admit(replace(credentials, authzid=authzid), connection)
        detail = acting_detail if authzid else detail
        return replace(login, detail=detail) if detail else login

    def known_as(self, given: str) -> tuple[str, str]:
        """Who is meant by what somebody calls himself, as for an address: `user[+detail][@domain]`. Without `[namespace]
        domains` the domain says nothing."""
        local, _, domain = given.partition("@")
        user, _, detail = local.partition("+")
        if not user:
            return given, ""
        return (f"{user}@{domain}" if domain and self.domains else user), detail

    async def _admit(self, credentials: Credentials, connection: Connection) -> Login:
        match credentials:
            case PlainCredentials():
                return await self._admit_password(credentials, connection)
            case ExternalCredentials():
                return await self._admit_certificate(credentials, connection)
            case ProvenCredentials():
                self.penalties.succeeded(connection.peer)
                identity = await self._lookup(credentials.authcid)
                return self._entitle(identity, credentials.authzid, None)

    async def _admit_password(self, credentials: PlainCredentials, connection: Connection) -> Login:
        if not self.takes_passwords(connection):
            raise Refusal(
                Code.PRIVACY_REQUIRED,
                "A password is taken only under TLS: use STARTTLS first",
            )
        peer = connection.peer
        await self.penalties.before(peer)
        identity = await self._in_time(self.auth.verify(credentials.authcid, credentials.password))
        if identity is None:
            await self.penalties.failed(peer)
            raise Refusal(Code.AUTHENTICATION_FAILED, "Wrong user or password")
        self.penalties.succeeded(peer)
        return await self._speak_for(identity, credentials.authzid, credentials.password)

    async def _speak_for(self, identity: Identity, authzid: str, password: bytes | None) -> Login:
        login = self._entitle(identity, authzid, password)
        if not login.proxy:
            return login
        known = await self._in_time(self.auth.lookup(authzid))
        return Login(authzid, known or Identity(authzid), proxy=login.proxy)

    def _entitle(self, identity: Identity, authzid: str, password: bytes | None) -> Login:
        if authzid and authzid != identity.user:
            if identity.user not in self.proxies:
                raise Refusal(
                    Code.AUTHORIZATION_FAILED,
                    f"{identity.user} may not act for another",
                )
            return Login(authzid, Identity(authzid), proxy=identity.user)
        is_admin = identity.user in self.admins
        kept = password if is_admin and self.keep_admin_password else None
        return Login(identity.user, identity, is_admin, password=kept)

    async def _admit_certificate(
        self, credentials: ExternalCredentials, connection: Connection
    ) -> Login:
        certificate = connection.certificate
        if certificate is None:
            raise Refusal(
                Code.AUTHENTICATION_FAILED,
                "EXTERNAL needs a TLS certificate of this murder",
            )
        if OPERATOR_ROLE in certificate.roles and credentials.authzid in ("", certificate.name):
            return self._admit_operator(certificate.name)
        if not credentials.authzid:
            return Login(certificate.name, Identity(certificate.name), proxy=certificate.name)
        if not self.is_proxy(connection) and not self._takes_operator(certificate.roles):
            raise Refusal(Code.AUTHORIZATION_FAILED, f"{certificate.name} may not act for users")
        known = await self._in_time(self.auth.lookup(credentials.authzid))
        user = credentials.authzid
        return Login(user, known or Identity(user), proxy=certificate.name)

    async def login_of(self, user: str) -> Login:
        """Somebody as access lists know him, though he is not here: who gave a URL away (RFC 4467)."""
        return Login(user, await self._lookup(user))

    def _takes_operator(self, roles: Collection[str]) -> bool:
        """Operators work at the backends: a frontend has no administrator's rights to give."""
        return OPERATOR_ROLE in roles and not self.keep_admin_password

    def _admit_operator(self, name: str) -> Login:
        if self.keep_admin_password:
            raise Refusal(
                Code.AUTHORIZATION_FAILED, "An operator's certificate is taken by the backends only"
            )
        return Login(name, Identity(name), is_admin=True)

    async def _lookup(self, user: str) -> Identity:
        return await self._in_time(self.auth.lookup(user)) or Identity(user)

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.auth_timeout_s):
                return await answer
        except TimeoutError:
            raise UpstreamFailure(
                UpstreamKind.TIMEOUT,
                "authentication",
                f"no answer in {self.auth_timeout_s:g} s",
            ) from None

    async def secret_for(self, wanted: SecretWanted) -> Secret:
        """The user's SCRAM secret. Raises Refusal where there is none."""
        auth = self.auth
        found = None
        if isinstance(auth, HasScramSecrets):
            user, _ = self.known_as(wanted.user)
            found = await self._in_time(auth.scram_secret(user, wanted.mechanism))
        if found is None:
            raise Refusal(Code.AUTHENTICATION_FAILED, "Wrong user or password")
        return Secret(found.salt, found.iterations, found.stored_key, found.server_key)


def penalties_of(config: AuthConfig, counts: Counts | None = None) -> Penalties:
    """As configured; `counts` are what all workers count on."""
    return Penalties(config.failure_delay_s, config.max_failure_delay_s, config.trusted, counts)


async def run_sasl(
    gate: Gate, mechanism: str, initial: bytes | None, ask: Ask, connection: Connection
) -> tuple[Login, bytes]:
    """One whole SASL exchange of a server. `ask` sends a challenge and awaits the answer, both without base64.

    Returns the login and what the success reply carries along (SCRAM's last word; b"" else). Raises Refusal, BadSyntax.
    """
    if mechanism not in gate.mechanisms(connection):
        if mechanism in ("PLAIN", "LOGIN"):
            raise Refusal(
                Code.PRIVACY_REQUIRED,
                "A password is taken only under TLS: use STARTTLS first",
            )
        raise Refusal(Code.CANNOT, f"{mechanism[:40]} is not offered here")
    exchange = server_exchange(mechanism)
    if isinstance(exchange, ScramServer):  # what it proves is a password as well
        await gate.penalties.before(connection.peer)
        try:
            return await _run_exchange(gate, exchange, initial, ask, connection)
        except Refusal as refusal:
            if refusal.code is Code.AUTHENTICATION_FAILED:
                await gate.penalties.failed(connection.peer)
            raise
    return await _run_exchange(gate, exchange, initial, ask, connection)


async def _run_exchange(
    gate: Gate, exchange: ServerExchange, initial: bytes | None, ask: Ask, connection: Connection
) -> tuple[Login, bytes]:
    response = initial
    for _ in range(8):  # the longest exchange takes three turns
        step = exchange.step(response)
        if isinstance(step, SecretWanted):
            assert isinstance(exchange, ScramServer)
            step = exchange.supply(await gate.secret_for(step))
        if isinstance(step, Challenge):
            response = await ask(step.octets)
            continue
        login = await gate.admit(step, connection)
        return login, step.final if isinstance(step, ProvenCredentials) else b""
    raise BadSyntax("this SASL exchange does not end")
