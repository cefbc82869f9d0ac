"""OAUTHBEARER and XOAUTH2: the exchange goes by `session.bearer`, whose token it is say the plugins that can."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from murder.api.auth import AuthBackend, LoginAttempt
from murder.api.sasl import Exchange, Mechanism
from murder.auth.chain import Chain
from murder.errors import Code, Refusal, ScopeMissing
from murder.model.identity import Identity
from murder.model.sasl import Challenge, Claim, ProvenCredentials, Step, TokenClaim
from murder.session.bearer import (
    OAUTHBEARER,
    XOAUTH2,
    format_failure,
    parse_oauthbearer,
    parse_xoauth2,
)

Parse = Callable[[bytes], TokenClaim]
PARSERS: Final[dict[str, Parse]] = {OAUTHBEARER: parse_oauthbearer, XOAUTH2: parse_xoauth2}


def token_mechanisms(chain: Chain) -> Sequence[Mechanism]:
    """The rows, where a plugin takes tokens."""
    if not chain.token_checkers:
        return ()

    def row(name: str) -> Mechanism:
        def start(client: LoginAttempt, users: AuthBackend) -> Exchange:
            return TokenExchange(name, chain, client)

        return Mechanism(name, start)

    return [row(name) for name in PARSERS]


class TokenExchange:
    """One exchange."""

    claimed = ""

    def __init__(self, name: str, chain: Chain, how: LoginAttempt) -> None:
        self._name, self._chain, self._how = name, chain, how
        self._failure: Refusal | None = None

    def step(self, response: bytes | None) -> Step:
        """See `api.sasl.Exchange`."""
        if self._failure is not None:
            raise self._failure
        if response is None:
            return Challenge(b"")
        claim = PARSERS[self._name](response)
        self.claimed = claim.user

        async def proceed() -> Step:
            return await self._judge(claim)

        return Claim(claim.user, proceed)

    async def _judge(self, claim: TokenClaim) -> Step:
        how = replace(self._how, mechanism=self._name)
        try:
            identity = await self._chain.token_identity(how, claim.user, claim.token)
        except ScopeMissing as missing:
            self._failure = missing
            where = missing.openid_configuration
            return Challenge(
                format_failure(self._name, missing.scope, where, is_scope_missing=True)
            )
        if identity is None:
            self._failure = Refusal(Code.AUTHENTICATION_FAILED, "The token was refused")
            _, checker = self._chain.token_checkers[0]
            return Challenge(
                format_failure(self._name, checker.scope, checker.openid_configuration)
            )
        authzid = "" if is_called(identity, claim.user) else claim.user
        self.claimed = self.claimed or identity.user
        return ProvenCredentials(identity.user, authzid, b"", self._name, identity)


def is_called(identity: Identity, name: str) -> bool:
    """Whether that is a name of this user: clients write an address, or the user id."""
    names = {identity.user, *identity.addresses}
    return not name or name.lower() in {address.lower() for address in names}
