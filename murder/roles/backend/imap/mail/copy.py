"""COPY, MOVE and their UID forms (RFC 3501 §6.4.7, RFC 6851, RFC 4315, RFC 4314 §4)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from murder.api.store import Mailbox
from murder.errors import Code, Refusal
from murder.model.acl import Rights
from murder.model.flag import FlagChange
from murder.model.message import Uid
from murder.model.name import MailboxName
from murder.model.rights import changeable
from murder.net.turns import aside_if, let_go_of
from murder.roles.backend.changes.updates import MANY
from murder.roles.backend.hierarchy.mailboxes import Accessible
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mail.noted import note
from murder.roles.backend.imap.mail.stop import after_stop
from murder.roles.backend.imap.mailboxes.quota import quota_warning
from murder.roles.backend.imap.message_sets import batches, uids_of
from murder.roles.backend.traced import trace_copies
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mail.copy import format_copyuid, parse_copy
from murder.wire.imap.response import status_line


def run_copy(dialogue: BackendImap, command: Command) -> Running:
    """COPY (RFC 3501 §6.4.7, UIDPLUS)."""
    return _copy(dialogue, command, by_uid=False, moving=False)


def run_uid_copy(dialogue: BackendImap, command: Command) -> Running:
    """UID COPY (RFC 3501 §6.4.8)."""
    return _copy(dialogue, command, by_uid=True, moving=False)


def run_move(dialogue: BackendImap, command: Command) -> Running:
    """MOVE (RFC 6851)."""
    return _copy(dialogue, command, by_uid=False, moving=True)


def run_uid_move(dialogue: BackendImap, command: Command) -> Running:
    """UID MOVE (RFC 6851)."""
    return _copy(dialogue, command, by_uid=True, moving=True)


async def _copy(dialogue: BackendImap, command: Command, by_uid: bool, moving: bool) -> None:
    request = await arguments(command, parse_copy)
    if moving:
        dialogue.need_writable()
    dialogue.need_rights("rte" if moving else "r")
    uids = await uids_of(dialogue, request.sequence, by_uid)
    target, accessible = await open_target(dialogue, dialogue.name_of(request.mailbox))
    source = dialogue.now.mailbox

    async def transfer() -> tuple[Mapping[Uid, Uid], int]:
        async with _room(dialogue, source, uids, target, moving) as octets:
            dialogue.need_peer()
            copy = source.move if moving else source.copy
            return (await copy(uids, target) if uids else {}), octets

    try:
        copied, octets = await after_stop(dialogue, target.name, transfer)
        if copied:
            added = len(copied) if octets else 0
            dialogue.send(await quota_warning(dialogue, target.name, octets, added))
        added_uids = list(copied.values())
        await dialogue.has_added(target.mailbox_id, added_uids)
        if moving:
            await dialogue.now.removed(copied)
        await keep_allowed_flags(target, added_uids, accessible.rights)
        await note(dialogue, target.name, target.mailbox_id, added_uids, "COPY", source.name)
        await trace_copies(dialogue, source, target, copied, moving=moving)
        code = await _code(target, copied)
    finally:
        target.close()
    if not copied and uids and not by_uid:  # RFC 3501 §6.4.8: a UID that is gone is no error
        raise Refusal(Code.EXPUNGE_ISSUED, "None of these messages exists any more")
    every = [*copied, *added_uids]
    del copied, added_uids
    await let_go_of(every)
    if moving and code:
        dialogue.send(status_line(b"*", b"OK", "Moved", code))
        code = await dialogue.removal_code()
    await dialogue.finish(command, code=code)


@asynccontextmanager
async def _room(
    dialogue: BackendImap, source: Mailbox, uids: Sequence[Uid], target: Mailbox, moving: bool
) -> AsyncIterator[int]:
    """Raises Refusal(OVER_QUOTA) where the target's quota root cannot take them; a move within one root can. The octets
    that they add to a root."""
    quotas = dialogue.backend.quotas
    root = quotas.root_of(target.name)
    if root is None or (moving and quotas.root_of(source.name) == root):
        yield 0
        return
    octets = 0
    for batch in batches(uids):
        octets += sum(message.size for message in await source.messages(batch))
    async with quotas.room(target.name, octets, len(uids)):
        yield octets


async def _code(target: Mailbox, copied: Mapping[Uid, Uid]) -> bytes:
    if not copied:
        return b""
    validity = (await target.status()).uid_validity
    sources, targets = list(copied.keys()), list(copied.values())
    return await aside_if(len(sources) > MANY, format_copyuid, validity, sources, targets)


async def open_target(dialogue: BackendImap, name: MailboxName) -> tuple[Mailbox, Accessible]:
    """Open a mailbox to put messages in. Refusals carry TRYCREATE where making it would help (RFC 3501 §6.3.11)."""
    mailboxes = dialogue.backend.mailboxes
    await dialogue.backend.notice(name)
    try:
        return await mailboxes.open_for(name, dialogue.user, "i")
    except Refusal as refusal:
        if refusal.code is not Code.NONEXISTENT:
            raise
        try:
            mailboxes.check_may_create(name, dialogue.user)
        except Refusal:
            raise refusal from None
        raise Refusal(Code.TRY_CREATE, refusal.text, names=refusal.names) from refusal


async def keep_allowed_flags(target: Mailbox, uids: Sequence[Uid], rights: Rights) -> None:
    """Take from new messages the flags that the client may not set there (RFC 4314 §4)."""
    if rights >= frozenset("stw"):
        return
    for batch in batches(uids):
        present = {flag for message in await target.messages(batch) for flag in message.flags}
        foreign = frozenset(present) - changeable(frozenset(present), rights)
        if foreign:
            await target.change_flags(batch, FlagChange.REMOVE, foreign)
