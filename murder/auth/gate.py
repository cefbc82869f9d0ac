"""Who is let in, and as whom: credentials in, a `Login` out. One gate a role and process.

Passwords go to the auth plugin; certificates speak for nodes. Two rules stand here and nowhere else: a password is not
taken without TLS unless the configuration allows it, and whoever comes through a proxy never is an administrator
(a stolen frontend must not be able to administer).
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Final, Self, TypeVar

from murder.api.auth import AuthBackend, LoginAttempt, ScramSecret
from murder.api.sasl import Mechanism
from murder.auth.chain import Chain
from murder.auth.decoys import decoy_secret
from murder.auth.limit import ConnectionLimit
from murder.auth.mechanisms import EXTERNAL, LOGIN, PLAIN, MechanismTable, scram
from murder.auth.penalty import Attempt, Penalties, Recall
from murder.auth.remembered import Decision
from murder.auth.tokens import token_mechanisms
from murder.config.auth import AuthConfig
from murder.config.value import Network, contains
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.identity import Identity, Login
from murder.model.sasl import (
    Credentials,
    ExternalCredentials,
    PlainCredentials,
    ProvenCredentials,
)
from murder.net.connection import Connection
from murder.net.listener import came_from
from murder.net.shared_counter import Counts
from murder.net.tls import PeerCertificate, end_of, name_in
from murder.net.turns import Burst, line_up
from murder.session.sasl import Secret, SecretWanted

# backends speak for users in COPY and moves
PROXY_ROLES: Final = frozenset({"frontend", "backend"})
OPERATOR_ROLE: Final = "operator"  # `murder ca issue NAME --role operator`: an administrator

BEGUN_AT_ONCE: Final = 16  # attempts in one turn of the loop, of about 0.1 ms each
WAITED_S: Final = 0.001  # longer than what is known here takes
MASTER_MARK: Final = "*"
AUTHENTICATION: Final = "authentication"  # what clients are told that cannot be asked
SLOW: Final = (
    "`murder auth test USER` says which plugin takes so long: look at the load of what it asks"
)
MOST_LOGINS: Final = 4096  # that are kept, of 200 octets each
SHOWN_NAME: Final = 128  # characters of a name that nobody has

T = TypeVar("T")


class NotAdmitted(Refusal):
    """Who was refused, as they wrote it, fit for a log."""

    def __init__(self, refusal: Refusal, claimed: str) -> None:
        super().__init__(refusal.code, refusal.text, refusal.detail)
        self.user = as_given(claimed)


def as_given(name: str) -> str:
    """What somebody calls themselves, for a log: no longer than a line, and with nothing that a terminal would obey. Of what
    PLAIN says, sent as a name (LOGIN with an initial response), the name alone: behind it is a password."""
    name = name.lstrip("\0").partition("\0")[0]
    cut = name if len(name) <= SHOWN_NAME else name[:SHOWN_NAME] + "..."
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in cut
    )


class Gate:
    """See the module."""

    def __init__(
        self,
        auth: AuthBackend | Chain,
        *,
        admins: Collection[str] = (),
        proxies: Collection[str] = (),
        masters: Collection[str] = (),
        client_address_from: tuple[Network, ...] = (),
        allow_plaintext: bool = False,
        penalties: Penalties | None = None,
        connections: ConnectionLimit | None = None,
        auth_timeout_s: float = 15.0,
        keep_admin_password: bool = False,
        proxy_roles: Collection[str] = PROXY_ROLES,
        domains: bool = True,
        decoy_key: bytes = b"",
        mechanisms: Sequence[Mechanism] = (),
        server_name: str = "",
        certificate_user: str = "email",
        within: "Gate | None" = None,
        own_passwords: bool = False,
        has_inbox: Callable[[str], bool] | None = None,
    ) -> None:
        """`has_inbox`: whether the mailbox list knows a user, where there is one."""
        self.auth = auth if isinstance(auth, Chain) else Chain([("auth", auth)])
        self.server_name = server_name
        self.certificate_user = certificate_user
        self.own_passwords = own_passwords  # carried on: whoever is in has given one
        self._has_inbox = has_inbox
        self._within = within  # of the server beside this proxy: nodes and proxy users come to that
        self._decoy_key = decoy_key or secrets.token_bytes(32)
        self.admins = frozenset(admins)
        self.proxies = frozenset(proxies)
        self.masters = frozenset(masters)
        self.client_address_from = client_address_from
        self.allow_plaintext = allow_plaintext
        self.penalties = penalties or Penalties()
        self.connections = connections or ConnectionLimit()
        self._burst = Burst(BEGUN_AT_ONCE)
        self._logins: dict[str, Login] = {}  # of who was let in at once, by name
        self.auth_timeout_s = auth_timeout_s
        self.keep_admin_password = keep_admin_password
        self.proxy_roles = frozenset(proxy_roles)
        self.domains = domains
        has_scram = self.auth.has_scram and not (keep_admin_password or own_passwords)
        own = [EXTERNAL, *([scram(self.secret_for)] if has_scram else ()), PLAIN, LOGIN]
        self.brought = tuple(mechanisms)  # by plugins
        brought = {row.name for row in mechanisms}
        tokens = [row for row in token_mechanisms(self.auth) if row.name not in brought]
        self._table = MechanismTable(own if own_passwords else [*own, *tokens, *mechanisms])

    def following(self, before: "Gate") -> Self:
        """This gate, counting on where the one before it stopped (a reload), by its own settings."""
        penalties, connections = before.penalties, before.connections
        now = self.penalties
        penalties.configure(now.first_s, now.most_s, now.trusted, now.per_address)
        connections.configure(self.connections.most)
        self.penalties, self.connections = penalties, connections
        return self

    def takes_passwords(self, connection: Connection) -> bool:
        """Whether a password may be sent over this connection as it is now."""
        return connection.is_tls or self.allow_plaintext

    def mechanisms(self, connection: Connection, protocol: str) -> tuple[str, ...]:
        """The SASL mechanisms that would work on this connection now, the best first."""
        return self._table.offered(
            protocol,
            secure=connection.is_tls or self.allow_plaintext,
            certified=connection.certificate is not None or bool(connection.user_certificate),
        )

    def mechanism(self, name: str, protocol: str) -> Mechanism:
        """The one of that name. Raises Refusal where this protocol has none."""
        row = self._table.find(name, protocol)
        if row is None:
            raise Refusal(Code.CANNOT, f"{name[:40]} is not offered here")
        return row

    def is_proxy(self, connection: Connection) -> bool:
        """Whether the peer has shown the certificate of a node that may speak for users."""
        certificate = connection.certificate
        return certificate is not None and bool(certificate.roles & self.proxy_roles)

    def believes(self, connection: Connection) -> bool:
        """Whether the peer may tell on whose behalf it speaks."""
        networks = self.client_address_from
        return self.is_proxy(connection) or bool(
            networks and contains(networks, came_from(connection))
        )

    def attempt_at(self, connection: Connection, protocol: str, mechanism: str) -> LoginAttempt:
        """One more attempt of this connection, as plugins are told of it."""
        connection.attempts += 1
        connection.attempt = mechanism, time.perf_counter()
        certificate = connection.certificate
        local = connection.local_address
        return LoginAttempt(
            protocol,
            self.server_name,
            connection.peer,
            connection.is_tls,
            certificate.name if certificate is not None else "",
            connection.cid,
            mechanism,
            connection.attempts,
            connection.peer_port,
            *local,
            connection.user_certificate or (certificate.octets if certificate is not None else b""),
            connection.hops_left,
        )

    async def admit(
        self,
        credentials: Credentials,
        connection: Connection,
        protocol: str = "",
        how: LoginAttempt | None = None,
    ) -> Login:
        """Decide. `how` is the attempt where there is one already. Raises Refusal (with the delay for wrong passwords behind
        it) or UpstreamFailure."""
        await self._burst.begin()
        how = how or self.attempt_at(connection, protocol, credentials.mechanism)
        within = self._within
        if within is not None and within.is_meant(credentials, connection, self.admins):
            return replace(await within.admit(credentials, connection, protocol, how), within=True)
        if self.masters and isinstance(credentials, PlainCredentials):
            credentials = _with_master(credentials)
        authcid, detail = self.known_as(getattr(credentials, "authcid", ""))
        authzid, acting_detail = self.known_as(credentials.authzid)
        if not isinstance(credentials, ExternalCredentials):
            credentials = replace(credentials, authcid=authcid)
        login = await self._admit(replace(credentials, authzid=authzid), connection, how)
        detail = acting_detail if authzid else detail
        return replace(login, detail=detail) if detail else login

    def is_meant(
        self, credentials: Credentials, connection: Connection, of_proxy: Collection[str]
    ) -> bool:
        """Whether who comes to one port is for the server there, not for the proxy before it: another node (also with an
        administrator's password), an operator, a proxy user, an administrator of the server alone."""
        if connection.certificate is not None or isinstance(credentials, ExternalCredentials):
            return connection.certificate is not None
        user = self.known_as(credentials.authcid)[0]
        return user in self.proxies or (user in self.admins and user not in of_proxy)

    def admit_at_once(
        self, user: str, password: bytes, connection: Connection, protocol: str, mechanism: str
    ) -> Login | None:
        """Those with nothing to wait for: their password is known without asking and does not expire, no mistakes hold them
        up, and they are no administrator. None: `admit` decides, and nothing has been counted."""
        if "+" in user or not (connection.is_tls or self.allow_plaintext):
            return None
        if self.masters and MASTER_MARK in user:
            return None
        if "@" in user:
            user = self.known_as(user)[0]
        recall = self.auth.only_recall or self._recall_for(connection, protocol, mechanism)
        identity = self.penalties.at_once(connection.peer, user, password, recall)
        if identity is None or identity.user in self.admins or identity.expires_at is not None:
            return None
        if self.auth.only_recall is None and self.auth.is_locked_out(identity.user):
            return None
        if self._within is not None and (
            connection.certificate is not None
            or identity.user in self._within.proxies
            or identity.user in self._within.admins
        ):
            return None
        connection.attempts += 1
        connection.attempt = mechanism, time.perf_counter()
        login = self._logins.get(user)
        if login is None or login.identity is not identity:
            if len(self._logins) >= MOST_LOGINS:
                self._logins.clear()
            login = self._logins[user] = Login(identity.user, identity)
        return login

    def _recall_for(self, connection: Connection, protocol: str, mechanism: str) -> Recall:
        """What the whole chain knows of an attempt of this connection, which is not counted."""
        how = self.attempt_at(connection, protocol, mechanism)
        connection.attempts -= 1

        def recall(user: str, password: bytes) -> Identity | None:
            decision = self.auth.recall(how, user, password)
            return None if decision is None else decision.identity

        return recall

    def known_as(self, given: str) -> tuple[str, str]:
        """Who is meant by what somebody calls themselves, as for an address: `user[+detail][@domain]`. Without `[namespace]
        domains` the domain says nothing."""
        local, _, domain = given.partition("@")
        user, _, detail = local.partition("+")
        if not user:
            return given, ""
        return (f"{user}@{domain}" if domain and self.domains else user), detail

    async def _admit(
        self, credentials: Credentials, connection: Connection, how: LoginAttempt
    ) -> Login:
        match credentials:
            case PlainCredentials():
                return await self._admit_password(credentials, connection, how)
            case ExternalCredentials():
                if connection.user_certificate:
                    return await self._admit_user_certificate(credentials, how)
                return await self._admit_certificate(credentials, connection)
            case ProvenCredentials():
                identity = credentials.identity or await self._lookup(credentials.authcid)
                return await self._speak_for(identity, credentials.authzid, None)

    async def _admit_password(
        self, credentials: PlainCredentials, connection: Connection, how: LoginAttempt
    ) -> Login:
        if not self.takes_passwords(connection):
            raise Refusal(
                Code.PRIVACY_REQUIRED,
                "A password is accepted only under TLS: use STARTTLS first",
            )
        user, password = credentials.authcid, credentials.password
        attempt = await self.attempt(user, password, connection)
        try:
            decision = self.auth.recall(how, user, password)
            if decision is None:
                decision = await self.in_time(self._decide(how, user, password, connection))
        except BaseException:
            attempt.void()
            raise
        if decision is None:
            await self.refuse_late(attempt, connection)
            raise Refusal(Code.AUTHENTICATION_FAILED, "Wrong user or password")
        attempt.right()
        identity, authzid = decision.identity, credentials.authzid
        login = await self._speak_for(identity, authzid, credentials.password)
        self.auth.note_use(decision)
        return login

    async def attempt(self, user: str, password: bytes | None, connection: Connection) -> Attempt:
        """When it is this attempt's turn; see `Penalties.begin`."""
        return await self.penalties.begin(connection, user, password)

    async def attempt_of(self, row: Mechanism, claimed: str, connection: Connection) -> Attempt:
        """The same for an exchange in which no password passes."""
        if not row.guessable:
            is_node = connection.certificate is not None
            return self.penalties.begin_unguessable(connection, is_node=is_node)
        return await self.attempt(self.known_as(claimed)[0], None, connection)

    async def refuse_late(self, attempt: Attempt, connection: Connection) -> None:
        """It was wrong: the reply may go out when this returns."""
        delay_s = attempt.wrong()
        if delay_s and not connection.is_lost:
            connection.hold_off()
            await self.penalties.sleep(delay_s)
            await line_up()  # many may be due at once

    async def _decide(
        self, how: LoginAttempt, user: str, password: bytes, connection: Connection
    ) -> Decision | None:
        """In turns by address; who has got in from there before is asked for first."""
        connection.hold_off()

        def is_familiar() -> bool:
            return self.penalties.is_familiar(connection.peer, user)

        return await self.auth.decide(how, user, password, is_familiar)

    async def _speak_for(self, identity: Identity, authzid: str, password: bytes | None) -> Login:
        """Themselves, or another where they may: a proxy for whom it has let in, a master for who is there and is not locked
        out."""
        self.auth.refuse_locked_out(identity.user)
        if not authzid or authzid == identity.user:
            return self._entitle(identity, password)
        is_proxy = identity.user in self.proxies
        if not is_proxy and identity.user not in self.masters:
            raise Refusal(Code.AUTHORIZATION_FAILED, f"{identity.user} may not act for another")
        known = await (self._lookup(authzid) if is_proxy else self._whom_a_master_may_be(authzid))
        known = known.until(identity.expires_at)
        if not self.admins.isdisjoint((authzid, known.user)) and (
            self.keep_admin_password or not is_proxy
        ):
            text = f"{identity.user} may not act for an administrator"
            raise Refusal(Code.AUTHORIZATION_FAILED, text)
        if is_proxy:
            return Login(known.user, known, proxy=identity.user)
        return Login(known.user, known, master=identity.user)

    async def _whom_a_master_may_be(self, user: str) -> Identity:
        """Raises Refusal for who is locked out, or nowhere: a mistyped name would get a mailbox of its own."""
        decision = await self.in_time(self.auth.find(user))
        if decision is not None and decision.plugin in self.auth.believers:
            # one behind it may know
            decision = await self.in_time(self.auth.find_surely(user)) or decision
        known = None if decision is None else decision.identity
        name = user if known is None else known.user  # as the INBOX is called
        if self.auth.is_locked_out(name):
            raise Refusal(Code.CONTACT_ADMIN, f"The account of {user} is disabled")
        if decision is None or decision.plugin in self.auth.believers:
            has_inbox = self._has_inbox
            if self.auth.knows_all if has_inbox is None else not has_inbox(name):
                raise Refusal(Code.AUTHORIZATION_FAILED, f"There is no user {user}")
        return known or Identity(user)

    def _entitle(self, identity: Identity, password: bytes | None) -> Login:
        is_admin = identity.user in self.admins
        if is_admin and self.keep_admin_password and password is None:
            is_admin = False  # the backends would not believe it
        is_kept = self.own_passwords or (is_admin and self.keep_admin_password)
        kept = password if is_kept else None
        return Login(identity.user, identity, is_admin, password=kept)

    def name_by_certificate(self, certificate: bytes) -> str:
        """Who a user's certificate says it is of, by `certificate_user`."""
        return self.known_as(name_in(certificate, self.certificate_user))[0]

    async def _admit_user_certificate(
        self, credentials: ExternalCredentials, how: LoginAttempt
    ) -> Login:
        """Who is a user of a plugin, by the plugin's word or by what stands in the certificate."""
        identity = await self.in_time(self.auth.certificate_identity(how))
        if identity is None:
            name = self.name_by_certificate(how.tls_certificate)
            identity = await self.in_time(self.auth.lookup(name)) if name else None
            if identity is None:
                text = "is of no user here" if name else "has no user's name"
                raise Refusal(Code.AUTHENTICATION_FAILED, f"The certificate {text}")
        identity = identity.until(end_of(how.tls_certificate))
        return await self._speak_for(identity, credentials.authzid, None)

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
            return self._admit_operator(certificate)
        if not credentials.authzid:
            return Login(certificate.name, Identity(certificate.name), proxy=certificate.name)
        if not self.is_proxy(connection) and not self._takes_operator(certificate.roles):
            raise Refusal(Code.AUTHORIZATION_FAILED, f"{certificate.name} may not act for users")
        known = await self.in_time(self.auth.lookup(credentials.authzid))
        user = credentials.authzid
        return Login(user, known or Identity(user), proxy=certificate.name)

    async def login_of(self, user: str) -> Login:
        """A user as access lists know them, though not logged in: who gave a URL away (RFC 4467)."""
        return Login(user, await self._lookup(user))

    def _takes_operator(self, roles: Collection[str]) -> bool:
        """Operators work at the backends: a frontend has no administrator's rights to give."""
        return OPERATOR_ROLE in roles and not self.keep_admin_password

    def _admit_operator(self, certificate: PeerCertificate) -> Login:
        if self.keep_admin_password:
            raise Refusal(
                Code.AUTHORIZATION_FAILED, "An operator's certificate is taken by the backends only"
            )
        name = certificate.name
        return Login(name, Identity(name, expires_at=end_of(certificate.octets)), is_admin=True)

    async def _lookup(self, user: str) -> Identity:
        return await self.in_time(self.auth.lookup(user)) or Identity(user)

    async def in_time(self, answer: Awaitable[T]) -> T:
        """What somebody else says, who has `auth_timeout_s` for it. A hundred whose answers come at once go on one in each
        turn of the loop. Raises UpstreamFailure."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.auth_timeout_s):
                result = await answer
            if time.perf_counter() - began >= WAITED_S:
                await line_up()
            return result
        except TimeoutError:
            text = f"no answer in {self.auth_timeout_s:g} s (auth.timeout_s)"
            raise UpstreamFailure(UpstreamKind.TIMEOUT, AUTHENTICATION, text, SLOW) from None
        except UpstreamFailure as failure:  # strangers are not told what servers a site has
            text = f"{failure.server}: {failure.text}"
            raise UpstreamFailure(failure.kind, AUTHENTICATION, text) from failure

    async def secret_for(self, wanted: SecretWanted) -> Secret:
        """The user's SCRAM secret; for somebody who is not known one that nothing proves, so that the exchange ends as with
        a wrong password."""
        user, _ = self.known_as(wanted.user)
        secret = await self.in_time(self.auth.scram_secret(user, wanted.mechanism))
        if secret is None:
            secret = self.auth.scram_decoy(user, wanted.mechanism) or self._decoy(user)
        return Secret(secret.salt, secret.iterations, secret.stored_key, secret.server_key)

    def _decoy(self, user: str) -> ScramSecret:
        return decoy_secret(self._decoy_key, user)


def _with_master(credentials: PlainCredentials) -> PlainCredentials:
    """`user*master` as a name is the master who acts for the user, as with Dovecot."""
    user, mark, master = credentials.authcid.rpartition(MASTER_MARK)
    if not mark or not user or not master or credentials.authzid:
        return credentials
    return replace(credentials, authcid=master, authzid=user)


def penalties_of(config: AuthConfig, counts: Counts | None = None) -> Penalties:
    """As configured; `counts` are what all workers count on."""
    return Penalties(
        config.failure_delay_s,
        config.max_failure_delay_s,
        config.trusted,
        counts,
        config.max_guesses_per_address,
    )
