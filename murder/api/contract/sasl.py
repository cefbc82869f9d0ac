"""SASL mechanisms: whatever a client sends, an exchange ends, lets nobody in by chance, and holds nothing up."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from murder.api.contract.check import Broken, Check, hold
from murder.api.sasl import Challenge, Claim, Client, Mechanism, Step
from murder.errors import BadSyntax, Refusal
from murder.model.identity import Identity

Make = Callable[[], Sequence[Mechanism]]

MOST_STEPS: Final = 8
SLOW_S: Final = 0.05
CLIENT: Final = Client("imap", "mail.example.org", "192.0.2.1", is_tls=True)
ODD: Final = (
    *(b"", b"\0", b"\0\0", b"\0\0\0", b"x", b"=", b"*", b",", b"n,,", b"n,,n=x,r=y", b"\x01" * 3),
    *(
        b"\xff" * 40,
        b"n,a=x,\x01auth=Bearer x\x01\x01",
        b"a" * 12_000,
        b"(" * 6_000,
        b"a\0" * 6_000,
    ),
)


class Nobody:
    """An auth backend without users."""

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return None

    async def lookup(self, user: str) -> Identity | None:
        return None


async def are_mechanisms_of_different_names(make: Make) -> None:
    """The hook answers a sequence of Mechanism, each with a name of its own."""
    rows = make()
    for row in rows:
        hold(isinstance(row, Mechanism), f"expected a Mechanism, got {row!r}")
    names = [row.name for row in rows]
    hold(len(set(names)) == len(names), f"two have one name: {names}")


async def an_exchange_begins_without_an_initial_response(make: Make) -> None:
    """A client that gives no initial response gets a challenge."""
    for row in make():
        step = row.start(CLIENT, Nobody()).step(None)
        hold(isinstance(step, Challenge), f"{row.name}: step(None) answered {step!r}")


async def nonsense_lets_nobody_in(make: Make) -> None:
    """Octets that are no message of it end in BadSyntax or Refusal, in a few steps, and nobody is let in."""
    for row in make():
        for octets in ODD:
            await _end(row, octets)


async def _end(row: Mechanism, octets: bytes) -> None:
    exchange = row.start(CLIENT, Nobody())
    for _ in range(MOST_STEPS):
        try:
            step: Step = exchange.step(octets)
            if isinstance(step, Claim):
                step = await step.proceed()
        except (BadSyntax, Refusal):
            return
        if not isinstance(step, Challenge):
            raise Broken(f"{row.name}: {octets[:20]!r} was let in: {step!r}")
    raise Broken(f"{row.name}: {octets[:20]!r} at each step comes to no end")


async def steps_do_not_wait(make: Make) -> None:
    """A step takes hardly any time: what waits or computes for long is in `Claim.proceed`."""
    for row in make():
        for octets in ODD:
            exchange = row.start(CLIENT, Nobody())
            begun = time.thread_time()
            try:
                exchange.step(octets)
            except (BadSyntax, Refusal):
                pass
            took_s = time.thread_time() - begun
            hold(took_s < SLOW_S, f"{row.name}: a step took {took_s:.3f} s")


async def exchanges_know_nothing_of_each_other(make: Make) -> None:
    """Each exchange begins anew."""
    for row in make():
        exchange, other = row.start(CLIENT, Nobody()), row.start(CLIENT, Nobody())
        hold(exchange is not other, f"{row.name}: start answered the same object twice")
        hold(
            exchange.claimed == "", f"{row.name}: a new exchange claims to be {exchange.claimed!r}"
        )


SASL_CHECKS: Final[tuple[Check, ...]] = (
    are_mechanisms_of_different_names,
    an_exchange_begins_without_an_initial_response,
    nonsense_lets_nobody_in,
    steps_do_not_wait,
    exchanges_know_nothing_of_each_other,
)
