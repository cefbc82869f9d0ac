"""The mailbox that mail is to be put into, for APPEND, COPY, MOVE, REPLACE (RFC 3501 §6.3.11, §6.4.7).

While it moves it is nowhere for some hundredths of a second, and its old backend refuses what comes too late: mail that is
at hand waits, and goes to the new one.
"""

import asyncio
from typing import Final

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.frontend.imap.dialogue import FrontendImap
from murder.frontend.imap.refer import find_or_refer
from murder.frontend.placement import nearest
from murder.model.entry import MailboxEntry
from murder.model.name import ancestors_of
from murder.model.rights import check_may_create
from murder.wire.imap.command import Command

FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.5
MOVING_S: Final = 10.0  # that one command waits for a mailbox on its way; then it is told so


class Patience:
    """How long one command waits, all in all."""

    def __init__(self, dialogue: FrontendImap) -> None:
        self._dialogue = dialogue
        self._ends = dialogue.loop.time() + MOVING_S
        self._pause_s = FIRST_PAUSE_S

    async def pause(self) -> bool:
        """A little, each time longer. False where there is no more."""
        if self._dialogue.loop.time() >= self._ends or self._dialogue.connection.is_lost:
            return False
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return True


async def find_target(
    dialogue: FrontendImap, external: bytes, command: Command, patience: Patience
) -> MailboxEntry:
    """TRYCREATE where there is none, and the user may make it (RFC 3501 §7.1). Raises Refusal, UpstreamFailure."""
    while True:
        try:
            return await _find(dialogue, external, command)
        except UpstreamFailure as failure:
            if failure.kind is not UpstreamKind.MOVING or not await patience.pause():
                raise


async def has_moved(
    dialogue: FrontendImap, external: bytes, old: str, refused: Code, patience: Patience
) -> bool:
    """Whether what its backend refused may be tried again elsewhere: the mailbox has left that, or is about to."""
    if (
        refused not in (Code.IN_USE, Code.TRY_CREATE, Code.NONEXISTENT)
        or not await patience.pause()
    ):
        return False
    try:
        await dialogue.catch_up()
        return (await dialogue.find(dialogue.name_of(external))).server != old
    except Refusal:
        return False
    except UpstreamFailure as failure:
        return failure.kind is UpstreamKind.MOVING


async def _find(dialogue: FrontendImap, external: bytes, command: Command) -> MailboxEntry:
    name = dialogue.name_of(external)
    try:
        return await find_or_refer(dialogue, name, command)
    except Refusal as refusal:
        if refusal.code is not Code.NONEXISTENT:
            raise
        parent = nearest(dialogue.frontend, ancestors_of(name))
        try:
            check_may_create(name, parent, dialogue.user, dialogue.namespace)
        except Refusal:
            raise refusal from None
        raise Refusal(Code.TRY_CREATE, refusal.text, names=refusal.names) from refusal
