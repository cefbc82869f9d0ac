"""EXPUNGE, UID EXPUNGE and our frontends' UID XREMOVE (RFC 3501 §6.4.3, RFC 4315 §2.1)."""

from collections.abc import Sequence

from murder.model.flag import DELETED
from murder.model.message import Uid
from murder.roles.backend.changes.updates import View
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.message_sets import marked, uids_of
from murder.roles.backend.traced import trace_expunge
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mail.copy import format_removed, parse_uid_expunge
from murder.wire.token import Scanner


def run_expunge(dialogue: BackendImap, command: Command) -> Running:
    """EXPUNGE (RFC 3501 §6.4.3)."""
    Scanner(command.octets, command.start).end()
    _check(dialogue)
    return _expunge(dialogue, command, None)


def run_uid_expunge(dialogue: BackendImap, command: Command) -> Running:
    """UID EXPUNGE (RFC 4315 §2.1)."""
    return _uid_expunge(dialogue, command)


async def _uid_expunge(dialogue: BackendImap, command: Command) -> None:
    sequence = await arguments(command, parse_uid_expunge)
    _check(dialogue)
    await _expunge(dialogue, command, await uids_of(dialogue, sequence, by_uid=True))


def run_uid_xremove(dialogue: BackendImap, command: Command) -> Running:
    """Remove these whatever their flags, and say which ones this command has removed (wire.imap.copy)."""
    return _xremove(dialogue, command)


async def _xremove(dialogue: BackendImap, command: Command) -> None:
    sequence = await arguments(command, parse_uid_expunge)
    dialogue.need_writable()
    dialogue.need_rights("te")
    uids = await uids_of(dialogue, sequence, by_uid=True)
    view = dialogue.now
    removed = await view.mailbox.expunge(uids) if uids else ()
    await view.removed(removed)
    await trace_expunge(dialogue, view.mailbox, removed)
    await view.poll()
    await dialogue.finish(command, code=format_removed(view.modseq, removed))


def _check(dialogue: BackendImap) -> None:
    dialogue.need_writable()
    dialogue.need_rights("e")


async def _expunge(dialogue: BackendImap, command: Command, among: Sequence[Uid] | None) -> None:
    view = dialogue.now
    removed = await remove_deleted(dialogue, view, among)
    await dialogue.finish(command, code=await dialogue.removal_code() if removed else b"")


async def remove_deleted(dialogue: BackendImap, view: View, among: Sequence[Uid] | None) -> bool:
    """Remove what is marked `\\Deleted`, of these messages or of all, in one step.

    Whether anything was.
    """
    if not (await view.mailbox.status()).deleted:
        return False
    await view.poll()
    uids = view.with_arrived() if among is None else among
    doomed = await marked(view.mailbox, DELETED, uids)  # type: ignore[arg-type] # UIDs
    removed = await view.mailbox.expunge(doomed) if doomed else ()
    await view.removed(removed)
    await trace_expunge(dialogue, view.mailbox, removed)
    return bool(removed)
