"""One SASL exchange of a server, to its end: challenges out, answers in, a `Login` or a refusal.

What credentials are good for, and what wrong ones cost, the gate says. Base64 and framing belong to the protocol that asks.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from murder.api.sasl import Exchange, Mechanism
from murder.auth.gate import Gate, NotAdmitted
from murder.auth.mechanisms import EXTERNAL
from murder.auth.penalty import Attempt
from murder.errors import BadSyntax, Code, Misuse, Refusal
from murder.model.identity import Login
from murder.model.sasl import Challenge, Claim, Credentials, ProvenCredentials
from murder.net.connection import Connection

MAX_TURNS: Final = 8  # of an exchange; the longest takes three

Ask = Callable[[bytes], Awaitable[bytes]]


async def run_sasl(
    gate: Gate,
    mechanism: str,
    initial: bytes | None,
    ask: Ask,
    connection: Connection,
    protocol: str,
) -> tuple[Login, bytes]:
    """One whole SASL exchange of a server. `ask` sends a challenge and awaits the answer, both without base64.

    Returns the login and what the success reply carries along (SCRAM's last word; b"" else). Raises NotAdmitted, BadSyntax,
    UpstreamFailure.
    """
    exchange: Exchange | None = None
    certificate = connection.certificate
    node = certificate.name if certificate is not None else ""
    try:
        row = gate.mechanism(mechanism, protocol)
        how = gate.attempt_at(connection, protocol, mechanism)
        exchange = row.start(how, gate.auth)
        if mechanism not in gate.mechanisms(connection, protocol):
            if initial:
                exchange.step(initial)  # for the name in it
            raise _not_offered(row)
        credentials = await _run(gate, row, exchange, initial, ask, connection)
        final = credentials.final if isinstance(credentials, ProvenCredentials) else b""
        return await gate.admit(credentials, connection, protocol, how), final
    except Refusal as refusal:
        claimed = exchange.claimed if exchange is not None else ""
        if mechanism != EXTERNAL.name:
            raise NotAdmitted(refusal, claimed) from refusal
        if connection.user_certificate:  # whoever they would be: as with a password that was theirs
            speaker = gate.name_by_certificate(connection.user_certificate) or claimed
        else:
            speaker = claimed or node  # nodes speak for users all the time
        raise NotAdmitted(refusal, speaker) from refusal


def _not_offered(row: Mechanism) -> Refusal:
    if row.needs_tls:
        return Refusal(
            Code.PRIVACY_REQUIRED, "A password is accepted only under TLS: use STARTTLS first"
        )
    return Refusal(Code.CANNOT, f"{row.name} is not offered here")


async def _run(
    gate: Gate,
    row: Mechanism,
    exchange: Exchange,
    initial: bytes | None,
    ask: Ask,
    connection: Connection,
) -> Credentials:
    """All steps up to credentials. What is proven in the exchange is a password as well: who breaks off behind a claim has
    tried one, for all we know; and who is refused without a claim, too."""
    attempt: Attempt | None = None
    response = initial
    for _ in range(MAX_TURNS):
        try:
            step = exchange.step(response)
        except (Refusal, BadSyntax) as error:
            if attempt is None and isinstance(error, Refusal):
                attempt = await gate.attempt_of(row, exchange.claimed, connection)
            await _failed(gate, attempt, connection)
            raise
        except BaseException:
            if attempt is not None:
                attempt.wrong()
            raise
        if isinstance(step, Claim):
            attempt = attempt or await gate.attempt_of(row, step.user, connection)
            step = await _judged(gate, step, attempt, connection)
        if not isinstance(step, Challenge):
            if attempt is not None:
                attempt.right()
            return step
        try:
            response = await ask(step.octets)
        except (Refusal, BadSyntax, TimeoutError):
            await _failed(gate, attempt, connection)
            raise
        except BaseException:
            if attempt is not None:
                attempt.wrong()  # it has gone
            raise
    await _failed(gate, attempt, connection)
    raise BadSyntax("this SASL exchange does not end")


async def _judged(
    gate: Gate, claim: Claim, attempt: Attempt, connection: Connection
) -> Challenge | Credentials:
    """What comes of a claim."""
    try:
        step = await gate.in_time(claim.proceed())
    except Refusal:
        await gate.refuse_late(attempt, connection)
        raise
    except BaseException:
        attempt.void()
        raise
    if isinstance(step, Claim):
        attempt.void()
        raise Misuse("a claim is followed by a challenge or by credentials")
    return step


async def _failed(gate: Gate, attempt: Attempt | None, connection: Connection) -> None:
    if attempt is not None:
        await gate.refuse_late(attempt, connection)
