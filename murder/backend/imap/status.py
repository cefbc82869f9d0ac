"""STATUS (RFC 3501 §6.3.10 and its extensions)."""

from collections.abc import Sequence

from murder.api.store import Mailbox
from murder.backend.imap.dialogue import BackendImap
from murder.login.imap import Running
from murder.model.message import MailboxStatus
from murder.model.name import MailboxName
from murder.model.status import StatusItem
from murder.wire.imap.command import Command
from murder.wire.imap.status import StatusValue, format_status, parse_status
from murder.wire.token import Scanner


def run_status(dialogue: BackendImap, command: Command) -> Running:
    request = parse_status(Scanner(command.octets, command.start))
    name = dialogue.name_of(request.mailbox)
    return _status(dialogue, command, request.mailbox, name, request.items)


async def _status(
    dialogue: BackendImap,
    command: Command,
    shown: bytes,
    name: MailboxName,
    items: Sequence[StatusItem],
) -> None:
    mailbox, _ = await dialogue.backend.mailboxes.open_for(name, dialogue.user, "r")
    try:
        dialogue.send(await format_status_of(dialogue, shown, mailbox, items))
    finally:
        mailbox.close()
    if StatusItem.HIGHESTMODSEQ in items:
        dialogue.manner.condstore = True  # RFC 7162 §3.1.7
    await dialogue.finish(command)


async def format_status_of(
    dialogue: BackendImap, shown: bytes, mailbox: Mailbox, items: Sequence[StatusItem]
) -> bytes:
    """`* STATUS …` of an open mailbox; `shown` is what the client calls it."""
    return format_counts(dialogue, shown, mailbox.mailbox_id, await mailbox.status(), items)


def format_counts(
    dialogue: BackendImap,
    shown: bytes,
    mailbox_id: str,
    status: MailboxStatus,
    items: Sequence[StatusItem],
) -> bytes:
    """`* STATUS …` of counts that have been read."""
    values: dict[StatusItem, StatusValue] = {
        StatusItem.MESSAGES: status.messages,
        StatusItem.RECENT: status.recent,
        StatusItem.UIDNEXT: status.uid_next,
        StatusItem.UIDVALIDITY: status.uid_validity,
        StatusItem.UNSEEN: status.unseen,
        StatusItem.HIGHESTMODSEQ: max(1, status.highest_modseq),
        StatusItem.SIZE: status.size,
        StatusItem.DELETED: status.deleted,
        StatusItem.DELETED_STORAGE: 0,
        StatusItem.MAILBOXID: mailbox_id,
        StatusItem.APPENDLIMIT: dialogue.service.limits.max_message_bytes,
    }
    return format_status(shown, {item: values[item] for item in items})
