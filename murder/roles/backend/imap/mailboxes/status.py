"""STATUS (RFC 3501 §6.3.10 and its extensions)."""

from collections.abc import Sequence
from dataclasses import replace

from murder.api.store import KeepsToldSize, Mailbox
from murder.model.flag import DELETED
from murder.model.message import MailboxStatus
from murder.model.query.status import StatusItem
from murder.roles.backend.changes.powers import at_once
from murder.roles.backend.imap.answers import STATUS, counted, plain, who_of
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.message_sets import batches, marked
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.status import StatusValue, format_status, parse_status


def run_status(dialogue: BackendImap, command: Command) -> Running:
    """STATUS (RFC 3501 §6.3.10)."""
    return _status(dialogue, command)


async def _status(dialogue: BackendImap, command: Command) -> None:
    request = await arguments(command, parse_status)
    name = dialogue.name_of(request.mailbox)
    await dialogue.backend.notice(name)
    mailboxes = dialogue.backend.mailboxes
    stamp, row = mailboxes.list.stamp_now(), mailboxes.list.row(name)
    mailbox, _ = await mailboxes.open_for(name, dialogue.user, "r")
    try:
        tell = at_once(mailbox)
        numbers = tell() if tell is not None else None
        octets = await format_status_of(dialogue, request.mailbox, mailbox, request.items)
        dialogue.send(octets)
        key = plain(command, STATUS)
        if key is not None and tell is not None and numbers is not None:
            known = mailbox.mailbox_id, tell, stamp, row, numbers
            keep = counted(name, *known, request, octets)
            if keep is not None and not (keep.asks_recent and _is_selected(dialogue, mailbox)):
                who = who_of(dialogue.user, dialogue.in_utf8)
                dialogue.backend.answers.counts.keep((who, key), keep)
    finally:
        mailbox.close()
    await dialogue.finish(command)


def _is_selected(dialogue: BackendImap, mailbox: Mailbox) -> bool:
    view = dialogue.view
    return view is not None and view.mailbox.mailbox_id == mailbox.mailbox_id


async def format_status_of(
    dialogue: BackendImap, as_given: bytes, mailbox: Mailbox, items: Sequence[StatusItem]
) -> bytes:
    """`* STATUS …` of an open mailbox; `shown` is what the client calls it. What is recent for this session is so in
    STATUS too."""
    view = dialogue.view
    is_selected = _is_selected(dialogue, mailbox)
    held_up_to = view.last_uid if view is not None and is_selected and not view.read_only else 0
    status = await mailbox.status()
    is_asked = held_up_to and StatusItem.RECENT in items
    if is_asked and view is not None and await view.recent_up_to(held_up_to):
        await view.poll()  # some of them may have gone: RECENT is never more than MESSAGES
        here = await view.recent_up_to(held_up_to)
        status = replace(status, recent=status.recent + here)
    if StatusItem.HIGHESTMODSEQ in items:
        dialogue.enable_condstore()  # RFC 7162 §3.1.7
    if StatusItem.SIZE in items and isinstance(mailbox, KeepsToldSize):
        more = await mailbox.told_octets()  # RFC 8438: never less than the sum of RFC822.SIZE
        status = replace(status, size=status.size + more)
    deleted_octets = 0
    if StatusItem.DELETED_STORAGE in items and status.deleted:
        for batch in batches(await marked(mailbox, DELETED, await mailbox.uids())):
            deleted_octets += sum(message.size for message in await mailbox.messages(batch))
    return format_counts(dialogue, as_given, mailbox.mailbox_id, status, items, deleted_octets)


def format_counts(
    dialogue: BackendImap,
    as_given: bytes,
    mailbox_id: str,
    status: MailboxStatus,
    items: Sequence[StatusItem],
    deleted_octets: int = 0,
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
        StatusItem.DELETED_STORAGE: deleted_octets,  # RFC 9208 §4.1.4
        StatusItem.MAILBOXID: mailbox_id,
        StatusItem.APPENDLIMIT: dialogue.service.limits.max_message_bytes,
    }
    return format_status(as_given, {item: values[item] for item in items})
