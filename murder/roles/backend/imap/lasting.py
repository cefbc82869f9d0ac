"""Commands of a backend: how long each took, and of one that lasts, that it is still carried out.

Whoever waits for an answer, a frontend or a client, gives up a server that says nothing for a minute or so: the command
would have failed for them, and be carried out all the same. So a command that lasts says `* OK [INPROGRESS]` now and then
(RFC 9585).
"""

import time
from collections.abc import Coroutine
from typing import Any, Final

from murder.serve.imap import ImapDialogue
from murder.wire.imap.command import Command
from murder.wire.imap.response import LASTS

TELL_EVERY_S: Final = 10.0
STILL: Final = LASTS + b"] The command is still carried out\r\n"


class Lasting(ImapDialogue):
    """See the module."""

    tell_every_s = TELL_EVERY_S
    # the peer has the beginning of a response and not its end, or it speaks frames now: nothing may be said between
    is_inside = False

    async def timed(
        self, running: Coroutine[Any, Any, None], command: Command, began: float
    ) -> None:
        """A command that is not done at once, to its end."""
        self.sweep.watch_sooner(self, self.loop.time() + self.tell_every_s)
        try:
            await (running if self.watched is None else self.watched.during(running, command))
        finally:
            self.took(command, began)

    def leave_imap(self) -> bytes:
        """From here on the peer speaks something else: what of that has come already."""
        self.is_inside = True
        return self.session.take_rest()

    def took(self, command: Command, began: float) -> None:
        """It is done; `began` by `time.monotonic`."""
        took_s = time.monotonic() - began
        figures = self.service.figures
        figures.durations("commands", self.protocol, command.name.decode()).note(took_s)

    def look(self, now: float) -> float | None:
        """As any dialogue; and a command that lasts says so. It began when the client was last active."""
        due = super().look(now)
        if due is None or self._task is None or self.login is None or self.is_closing:
            return due
        left = self.active_at + self.tell_every_s - now
        if left > 0:
            return min(due, now + left)
        is_asked = self._waiter is not None  # for more of the command
        if not (is_asked or self.is_inside or self.connection.writing_paused):
            self.send(STILL)
        return min(due, now + self.tell_every_s)
