"""What the script of a shared mailbox at another backend files into a mailbox here. Such a script is nobody's: it may what
mail that arrives may (the right `p` of anybody, RFC 4314), not what a user may (`i`).
"""

from typing import Final

from murder.api.store import Incoming, Mailbox
from murder.errors import Code, Refusal
from murder.model.acl import ANONYMOUS
from murder.model.name import MailboxName, owner_of
from murder.roles.backend.hierarchy.mailboxes import Accessible
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.scripts.carry_out import body_key, has_since, read_in_turns
from murder.roles.backend.scripts.elsewhere import AGAIN, BY_SCRIPT

SETS_FLAGS: Final = frozenset("stw")  # all that the script wants, as at its own backend
MAX_LOOKED_AT: Final = 1000  # the last messages of the mailbox


def is_posted(dialogue: BackendImap) -> bool:
    """Only a node can say so: the ID of a client is not passed on, and who is piped is not believed."""
    login = dialogue.user
    return login.by_proxy and login.user == ANONYMOUS and BY_SCRIPT in dialogue.client_id


async def open_posted(dialogue: BackendImap, name: MailboxName) -> tuple[Mailbox, Accessible]:
    """Raises Refusal."""
    mailboxes = dialogue.backend.mailboxes
    await dialogue.backend.notice(name)
    entry = mailboxes.find(name)
    if entry is None or not mailboxes.may_post(name):
        mailboxes.check_has_not_left(name)
        raise Refusal(Code.NO_PERMISSION, "Nobody may post to this mailbox")
    mailbox = await dialogue.backend.store.open(name, owner_of(name) or "")  # as a delivery
    return mailbox, Accessible(entry, SETS_FLAGS)


async def has_come(dialogue: BackendImap, mailbox: Mailbox, incoming: Incoming) -> bool:
    """Whether the other backend has put it here already, before it died. Only where it says that it tries again."""
    if not dialogue.user.by_proxy or dialogue.client_id.get(BY_SCRIPT) != AGAIN:
        return False
    message = await read_in_turns(incoming.octets())
    last = (await mailbox.uids())[-MAX_LOOKED_AT:]
    if not last:
        return False
    return await has_since(mailbox, int(last[0]), message.key(), body_key(message))
