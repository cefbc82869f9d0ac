"""Referrals: never, whatever the client can do. For sites whose clients cannot reach the backends."""

from murder.api import Conduct, hookimpl


@hookimpl
def relay_or_refer() -> Conduct | None:
    """Relay, always."""
    return Conduct.RELAY


@hookimpl
def refers_unable() -> bool | None:
    """Nobody."""
    return False
