"""Plugins that bring SASL mechanisms."""

from typing import Final

from murder.api.contract.sasl import SASL_CHECKS
from murder.api.kinds.kind import Kind

TEMPLATE: Final = '''
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from murder.api import (
    AuthBackend,
    Challenge,
    Claim,
    Client,
    Mechanism,
    ProvenCredentials,
    SaslStep,
    hookimpl,
)
from murder.errors import BadSyntax, Code, Refusal


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    # 1. Your own keys: issuer, keytab, timeout_s ...
    token: str = field(default="change me", metadata={"doc": "The one token.", "secret": True})


class @CLASS@:
    """One exchange: the client says `user NUL token`. 2. Your own grammar; several challenges may go to and fro."""

    def __init__(self, settings: Settings, users: AuthBackend) -> None:
        self.settings = settings
        self.users = users
        self.claimed = ""

    def step(self, response: bytes | None) -> SaslStep:
        """The client's next response, None where it gave no initial one. No waiting here."""
        if response is None:
            return Challenge(b"")
        user, mark, token = response.partition(b"\\0")
        if not mark:
            raise BadSyntax("@MECHANISM@ takes user NUL token")
        self.claimed = user.decode("utf-8", "replace")

        async def proceed() -> SaslStep:
            # 3. Judge here: ask your server with await; what must compute for long goes into asyncio.to_thread. Raise
            #    Refusal for a wrong one; where it cannot be asked now, UpstreamFailure(UpstreamKind.CONNECT, "name of the
            #    server", "why"). 4. ProvenCredentials(..., identity=Identity(...)) where you know who it is; without, the
            #    auth backend is asked.
            if not hmac.compare_digest(token, self.settings.token.encode()):
                raise Refusal(Code.AUTHENTICATION_FAILED, "Authentication failed")
            return ProvenCredentials(self.claimed, "", b"", "@MECHANISM@")

        return Claim(self.claimed, proceed)


@hookimpl
def make_mechanisms(settings: Settings) -> Sequence[Mechanism]:
    """Called once in each process, and at each reload."""

    def start(client: Client, users: AuthBackend) -> @CLASS@:
        return @CLASS@(settings, users)

    # 5. needs_tls: whoever overhears it could log in. protocols=frozenset({"imap"}): only there.
    return [Mechanism("@MECHANISM@", start, needs_tls=True)]
'''
SASL: Final = Kind(
    "sasl",
    "make_mechanisms",
    "SASL: a mechanism to log in by.",
    SASL_CHECKS,
    TEMPLATE,
    makes=True,
)
