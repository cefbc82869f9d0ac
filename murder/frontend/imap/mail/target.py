"""The mailbox that mail is to be put into, for APPEND, COPY, MOVE, REPLACE (RFC 3501 §6.3.11, §6.4.7)."""

from murder.errors import Code, Refusal
from murder.frontend.imap.dialogue import FrontendImap
from murder.frontend.imap.refer import find_or_refer
from murder.frontend.placement import nearest
from murder.model.entry import MailboxEntry
from murder.model.name import ancestors_of
from murder.model.rights import check_may_create
from murder.wire.imap.command import Command


async def find_target(dialogue: FrontendImap, external: bytes, command: Command) -> MailboxEntry:
    """TRYCREATE where there is none, and the user may make it (RFC 3501 §7.1). Raises Refusal, UpstreamFailure."""
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
        raise Refusal(Code.TRY_CREATE, refusal.text) from refusal
