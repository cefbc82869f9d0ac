"""Where mail for an address goes, by the master's list: as frontends find it."""

from murder.admin.operate.reach import Reach
from murder.errors import BadSyntax, Code, Refusal
from murder.model.acl import ANYONE, POST, rights_granted
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName
from murder.serve.addressing import candidates_of
from murder.wire.lmtp import parse_recipient


async def route(reach: Reach, address: str) -> tuple[MailboxEntry, str]:
    """The mailbox that takes mail for an address, and whose it is ("" for a shared one). Raises Refusal."""
    try:
        recipient = parse_recipient(address.encode("utf-8", "surrogateescape"))
    except BadSyntax as error:
        raise Refusal(Code.CANNOT, f"{address!r}: {error.text}") from error
    domains = reach.config.namespace.domains
    for candidate in candidates_of(recipient, reach.namespace, domains=domains):
        user, folder = candidate.user, candidate.folder
        for name in (folder, candidate.inbox):
            entry = await _active(reach, name)
            if entry is None:
                continue
            if name == folder and POST not in rights_granted(entry.raw_acl, {ANYONE}):
                if user:
                    continue
                text = f"{address}: nobody may post there: `murder ctl mailbox acl {reach.shown(entry.name)} anyone +p`"
                raise Refusal(Code.NO_PERMISSION, text)
            return entry, user
    raise Refusal(Code.NONEXISTENT, f"{address}: no such mailbox (550 5.1.1)")


async def _active(reach: Reach, name: MailboxName | None) -> MailboxEntry | None:
    entry = await reach.master.find(name) if name is not None else None
    return entry if entry is not None and entry.is_active else None
