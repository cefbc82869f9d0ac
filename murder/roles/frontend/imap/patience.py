"""How long a command waits for a mailbox that is on its way: being created, renamed or moved it is nowhere for some
hundredths of a second, and what one server would do then is to let the other command end first.
"""

import asyncio
from typing import Final

from murder.roles.frontend.imap.dialogue import FrontendImap

FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.5
ON_ITS_WAY_S: Final = 2.0  # then the client is told so: the server that began may be away
# likewise for a change that its worker has not lived to end: another one looks after that every few seconds
ENDED_S: Final = 20.0
MAIL_AT_HAND_S: Final = 10.0  # likewise where mail waits, that the client would have to send again


class Patience:
    """How long one command waits, all in all."""

    def __init__(self, dialogue: FrontendImap, longest_s: float = ON_ITS_WAY_S) -> None:
        self._dialogue = dialogue
        self._ends = dialogue.loop.time() + longest_s
        self._pause_s = FIRST_PAUSE_S

    @property
    def left_s(self) -> float:
        return max(0.0, self._ends - self._dialogue.loop.time())

    async def pause(self) -> bool:
        """A little, each time longer. False where there is no more."""
        if self._dialogue.loop.time() >= self._ends or self._dialogue.connection.is_lost:
            return False
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return True
