"""The mailbox that mail is to be put into, for APPEND, COPY, MOVE, REPLACE (RFC 3501 §6.3.11, §6.4.7).

While it moves it is nowhere for some hundredths of a second, and its old backend refuses what comes too late: mail that is
at hand waits, and goes to the new one.
"""

import asyncio
from typing import Final

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.model.name import ancestors_of
from murder.model.rights import check_may_create
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.patience import Patience
from murder.roles.frontend.imap.refer import find_or_refer
from murder.roles.frontend.placement import nearest
from murder.wire.imap.command import Command

LAST_LOOK_S: Final = 0.5  # at the end of a command's patience, whose last pause may have used it up


async def find_target(
    dialogue: FrontendImap, external: bytes, command: Command, patience: Patience
) -> MailboxEntry:
    """TRYCREATE where there is none, and the user may make it (RFC 3501 §7.1). Raises Refusal, UpstreamFailure."""
    name = dialogue.name_of(external)
    try:
        return await find_or_refer(dialogue, name, command, patience)
    except Refusal as refusal:
        if refusal.code is not Code.NONEXISTENT:
            raise
        parent = nearest(dialogue.frontend, ancestors_of(name))
        try:
            check_may_create(name, parent, dialogue.user, dialogue.namespace)
        except Refusal:
            raise refusal from None
        raise Refusal(Code.TRY_CREATE, refusal.text, names=refusal.names) from refusal


async def has_moved(
    dialogue: FrontendImap, external: bytes, old: str, refused: Code, patience: Patience
) -> bool:
    """Whether what its backend refused may be tried again elsewhere: the mailbox has left that, or is about to. No longer
    than the command may wait: a master that is away, which may be why it was refused, says nothing of it."""
    if (
        refused not in (Code.IN_USE, Code.TRY_CREATE, Code.NONEXISTENT, Code.UNAVAILABLE)
        or not await patience.pause()
    ):
        return False
    name = dialogue.name_of(external)
    try:
        async with asyncio.timeout(max(patience.left_s, LAST_LOOK_S)):
            await dialogue.catch_up()
            return (await dialogue.find(name)).server != old
    except TimeoutError:
        known = dialogue.frontend.locator.known(name)
        return known is not None and known.server != old
    except Refusal:
        return False
    except UpstreamFailure as failure:
        return failure.kind is UpstreamKind.MOVING
