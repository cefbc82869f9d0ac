"""A site's plugin, as a test puts it into a folder: a mechanism in which the client says its name backwards."""

from collections.abc import Sequence
from dataclasses import dataclass

from murder.api import (
    AuthBackend,
    Challenge,
    Claim,
    Client,
    Identity,
    Mechanism,
    ProvenCredentials,
    SaslStep,
    hookimpl,
)
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind


@dataclass(frozen=True, slots=True)
class Settings:
    """Its table in murder.toml."""

    name: str = "X-TOY"


class Backwards:
    """One exchange: the name, a challenge, the name backwards."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.claimed = ""

    def step(self, response: bytes | None) -> SaslStep:
        if response is None:
            return Challenge(b"who?")
        if not self.claimed:
            self.claimed = response.decode("ascii", "replace")
            return Claim(self.claimed, self.look_up)
        if response.decode("ascii", "replace") != self.claimed[::-1]:
            raise Refusal(Code.AUTHENTICATION_FAILED, "Authentication failed")
        who = Identity(self.claimed, frozenset({self.client.protocol}))
        return ProvenCredentials(self.claimed, "", b"", "X-TOY", who)

    async def look_up(self) -> SaslStep:
        if self.claimed == "away":
            raise UpstreamFailure(UpstreamKind.CONNECT, "directory.test", "refused")
        return Challenge(b"backwards?")


@hookimpl
def make_mechanisms(settings: Settings) -> Sequence[Mechanism]:
    """The hook."""

    def start(client: Client, users: AuthBackend) -> Backwards:
        return Backwards(client)

    return [Mechanism(settings.name, start)]
