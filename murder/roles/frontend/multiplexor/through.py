"""Passwords that nobody here knows: they are right if the user's server takes them. In the chain it stands for all plugins,
so that penalties, turns and limits are those of any login.
"""

from collections.abc import Callable, Collection

from murder.api.auth import Denied, Identity, LoginAttempt
from murder.errors import Code, Refusal
from murder.roles.frontend.multiplexor.reach import Caller, Multiplexor
from murder.roles.frontend.multiplexor.speeches import SPEECHES


class ServerAuth:
    """Fulfils AuthBackend, ChecksAttempts, and RecallsPasswords so that nothing is remembered: who is in has a connection to
    the server, which waits for their session."""

    depends_on: Collection[str] = ()

    def __init__(self, multiplexor: Callable[[], Multiplexor]) -> None:
        self._multiplexor = multiplexor

    def recall(self, user: str, password: bytes) -> Identity | None:
        """Never."""
        return None

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """Nothing is proven without an attempt, which has its protocol."""
        return None

    async def lookup(self, user: str) -> Identity | None:
        """Whom a node vouches for is believed to be there."""
        return Identity(user)

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        """See ChecksAttempts."""
        speech = SPEECHES.get(attempt.protocol)
        if speech is None:
            raise Refusal(Code.CANNOT, f"There are no logins by {attempt.protocol} here")
        if not password:
            return Denied.WRONG
        caller = Caller(
            attempt.session,
            attempt.address,
            attempt.port,
            attempt.local_address,
            attempt.local_port,
            attempt.hops_left,
        )
        try:
            is_right = await self._multiplexor().prove(user, password, caller, speech)
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise
            return Denied.UNKNOWN
        return Identity(user) if is_right else Denied.WRONG
