"""The table of SASL mechanisms: murder's own rows and those of plugins, and which of them work on a connection.

In order: those first that tell nothing to who listens, murder's before the plugins'. Clients that go by the order take the
best; capabilities name them so.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from murder.api.auth import AuthBackend, Fault
from murder.api.sasl import Client, Exchange, Mechanism
from murder.errors import Misuse
from murder.model.sasl import Claim, Step
from murder.session.sasl import (
    ExternalServer,
    LoginServer,
    PlainServer,
    ScramServer,
    Secret,
    SecretWanted,
)

SecretFor = Callable[[SecretWanted], Awaitable[Secret]]

EXTERNAL: Final = Mechanism(
    "EXTERNAL", lambda client, users: ExternalServer(), needs_tls=False, needs_certificate=True
)
PLAIN: Final = Mechanism("PLAIN", lambda client, users: PlainServer())
# not for nodes: RFC 3656 knows nothing of it
LOGIN: Final = Mechanism(
    "LOGIN",
    lambda client, users: LoginServer(),
    protocols=frozenset({"imap", "pop3", "lmtp", "sieve"}),
)
SCRAM: Final = ScramServer.mechanism


async def faults_of(rows: Sequence[Mechanism]) -> list[tuple[str, Fault]]:
    """What these find wrong with what they depend on, with their names."""
    return [
        (row.name, fault)
        for row in rows
        if row.diagnose is not None
        for fault in await row.diagnose()
    ]


class ScramExchange:
    """SCRAM with the secrets of the auth backend: the wait between its two halves."""

    def __init__(self, secret_for: SecretFor) -> None:
        self._server = ScramServer()
        self._secret_for = secret_for

    @property
    def claimed(self) -> str:
        return self._server.claimed

    def step(self, response: bytes | None) -> Step:
        step = self._server.step(response)
        if not isinstance(step, SecretWanted):
            return step
        wanted = step

        async def proceed() -> Step:
            return self._server.supply(await self._secret_for(wanted))

        return Claim(wanted.user, proceed)


def scram(secret_for: SecretFor) -> Mechanism:
    """SCRAM's row, for a backend that keeps secrets for it."""

    def start(client: Client, users: AuthBackend) -> Exchange:
        return ScramExchange(secret_for)

    return Mechanism(SCRAM, start, needs_tls=False)


class MechanismTable:
    """All mechanisms of one gate. Raises Misuse where two have one name."""

    def __init__(self, rows: Sequence[Mechanism]) -> None:
        self._rows = {row.name: row for row in sorted(rows, key=lambda row: row.needs_tls)}
        if len(self._rows) < len(rows):
            names = [row.name for row in rows]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise Misuse(f"two mechanisms are called {', '.join(twice)}")
        self._offered: dict[tuple[str, bool, bool], tuple[str, ...]] = {}

    def find(self, name: str, protocol: str) -> Mechanism | None:
        """The one of that name, if it is for this protocol; whether it would work now is another matter."""
        row = self._rows.get(name)
        return row if row is not None and _is_for(row, protocol) else None

    def offered(self, protocol: str, *, secure: bool, certified: bool) -> tuple[str, ...]:
        """The names of those that work: `secure` where a password may be sent, `certified` where the peer has shown a
        certificate. The same object each time: this is asked for every connection."""
        key = (protocol, secure, certified)
        names = self._offered.get(key)
        if names is None:
            names = self._offered[key] = tuple(
                row.name
                for row in self._rows.values()
                if _is_for(row, protocol)
                and (secure or not row.needs_tls)
                and (certified or not row.needs_certificate)
            )
        return names


def _is_for(row: Mechanism, protocol: str) -> bool:
    return not row.protocols or protocol in row.protocols
