"""Plugins that say who users are."""

from typing import Final

from murder.api.contract.auth import AUTH_CHECKS
from murder.api.kinds.kind import Kind

TEMPLATE: Final = '''
import asyncio
import hmac
from dataclasses import dataclass, field
from pathlib import Path

from murder.api import Identity, hookimpl


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    password: str = field(
        default="change me", metadata={"doc": "The one password.", "secret": True}
    )  # 1. Your own keys: server, timeout_s, base_dn ... A `secret` may be given as password_file too.


class @CLASS@:
    """Who users are. One object in each worker process, used by all its sessions."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self.settings = settings
        self.data_dir = data_dir  # 2. Files of your own belong here.

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """The identity if the password is right, None if not or if there is no such user."""
        # 3. Ask your directory here. What waits must not hold up other sessions: await it, or leave it to a
        #    thread as below. Where the directory cannot be asked now, raise
        #    murder.errors.UpstreamFailure(UpstreamKind.CONNECT, "name of the server", "why"):
        #    the client then hears "try again later", not "wrong password".
        if await asyncio.to_thread(self._is_right, user, password):
            return Identity(user)  # 4. Identity(user, frozenset({"staff"})) for groups in access lists.
        return None

    async def lookup(self, user: str) -> Identity | None:
        """The identity of a user whom a frontend or a certificate vouches for; None if there is no such user."""
        return Identity(user) if user.startswith("test") else None

    def _is_right(self, user: str, password: bytes) -> bool:
        right = hmac.compare_digest(password, self.settings.password.encode())
        return right and user.startswith("test")


@hookimpl
def make_auth_backend(settings: Settings, data_dir: Path) -> @CLASS@:
    """Called once in each process, at the start."""
    return @CLASS@(settings, data_dir)
'''
AUTH: Final = Kind(
    "auth",
    "make_auth_backend",
    "Authentication: who users are.",
    AUTH_CHECKS,
    TEMPLATE,
    key="auth.plugin",
    several="auth.plugins",
    makes=True,
    methods=("verify", "lookup"),
)
