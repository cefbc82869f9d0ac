"""Every mechanism by which somebody can log in, as a gate has it: the client's responses are thrown at its exchange, and
whatever that asks is asked.
"""

import asyncio
import functools
from collections.abc import Sequence
from typing import Any, Final

from murder.api.auth import Denied, Identity, LoginAttempt, ScramSecret
from murder.api.sasl import Mechanism
from murder.auth.exchange import MAX_TURNS
from murder.auth.gate import Gate
from murder.errors import BadSyntax, Refusal
from murder.kerberos import Library
from murder.model.sasl import Challenge, Claim, PlainCredentials, ProvenCredentials
from plugins.sasl_gssapi import Exchange, Settings

MECHANISMS: Final = (
    *("PLAIN", "LOGIN", "EXTERNAL", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2"),
    *("GSSAPI", "GSSAPI-TAKEN"),
)
USER: Final = "ana"
TOKEN: Final = "abc"
HOW: Final = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)


class Users:
    """One user, by everything that a plugin can ask for."""

    openid_configuration = "https://id.test/.well-known/openid-configuration"
    scope = "mail"

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return None

    async def lookup(self, user: str) -> Identity | None:
        return Identity(user) if user == USER else None

    async def scram_secret(self, user: str, mechanism: str) -> ScramSecret | None:
        return ScramSecret(b"salt", 4096, b"s" * 32, b"k" * 32) if user == USER else None

    async def check_token(self, attempt: LoginAttempt, user: str, token: str) -> Identity | Denied:
        return Identity(USER) if token == TOKEN else Denied.WRONG


class Taken:
    """A library that takes every ticket: what a client says behind it."""

    def accept(self, token: bytes) -> tuple[Any, bytes, str]:
        return object(), token, f"{USER}@EXAMPLE.ORG"

    def wrap(self, context: Any, octets: bytes) -> bytes:
        return octets

    unwrap = wrap

    def forget(self, context: Any) -> None:
        pass


def _gssapi(name: str, library: Any) -> Mechanism:
    settings = Settings(realms=("EXAMPLE.ORG",))
    return Mechanism(name, lambda client, users: Exchange(library, settings), needs_tls=False)


@functools.cache
def gate() -> Gate:
    """With all of `MECHANISMS`, GSSAPI where the library is."""
    rows = [_gssapi("GSSAPI-TAKEN", Taken())]
    try:
        rows.append(_gssapi("GSSAPI", Library()))
    except OSError:
        pass
    return Gate(Users(), allow_plaintext=True, mechanisms=rows)


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def exchange(mechanism: str, responses: Sequence[bytes]) -> object:
    """What it comes to: credentials, the last challenge, or None for who was refused."""
    row = gate().mechanism(mechanism, "imap")
    running = row.start(HOW, gate().auth)
    step: object = None
    for number, response in enumerate(responses[:MAX_TURNS]):
        try:
            step = running.step(response if response or number else None)
            while isinstance(step, Claim):
                step = _loop().run_until_complete(step.proceed())
        except (BadSyntax, Refusal):
            return None
        if not isinstance(step, Challenge):
            return step
    return step


def logins(octets: bytes) -> None:
    """Each mechanism, its responses between line ends. By octets alone nobody proves anything but a token that counts."""
    responses = octets.split(b"\n")
    for name in MECHANISMS:
        try:
            gate().mechanism(name, "imap")
        except Refusal:
            assert name == "GSSAPI", name
            continue
        came_to = exchange(name, responses)
        if isinstance(came_to, ProvenCredentials):
            is_token = name in ("OAUTHBEARER", "XOAUTH2") and TOKEN.encode() in octets
            assert is_token or name == "GSSAPI-TAKEN", (name, came_to)
            assert came_to.authcid == USER
        elif isinstance(came_to, PlainCredentials):
            assert name in ("PLAIN", "LOGIN")
