"""SCRAM secrets for users that there are not, where no plugin makes them up: who asks cannot tell by the challenge."""

import hmac
import secrets
from pathlib import Path
from typing import Final

from murder.api.auth import ScramSecret

ITERATIONS: Final = 10_000
SALT_OCTETS: Final = 16


def decoy_secret(key: bytes, user: str) -> ScramSecret:
    """A SCRAM secret for a user that there is not: the same for the same key and name, and proven by no password."""
    salt = hmac.digest(key, user.encode("utf-8", "surrogatepass"), "sha256")[:SALT_OCTETS]
    return ScramSecret(salt, ITERATIONS, secrets.token_bytes(32), secrets.token_bytes(32))


def decoy_key_of(key_file: Path | None) -> bytes:
    """What decoys are made from where the plugin makes none: of the node's private key, so that all workers have the same
    and a restart changes nothing. b"" without one."""
    if key_file is None:
        return b""
    try:
        return hmac.digest(key_file.read_bytes(), b"murder SCRAM decoys", "sha256")
    except OSError:
        return b""
