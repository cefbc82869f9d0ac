"""STORE and UID STORE (RFC 3501 §6.4.6, RFC 7162 §3.1.3, RFC 4314 §4)."""

from collections.abc import Sequence

from murder.api.store import Stored
from murder.errors import Code, Refusal
from murder.model.acl import Rights
from murder.model.flag import FlagChange
from murder.model.message import Message, ModSeq, SeqNum, Uid, portions
from murder.model.rights import changeable
from murder.model.seqset import compress
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mail.noted import flags_are_seen, note_flags
from murder.roles.backend.imap.message_sets import batches, uids_of
from murder.roles.backend.imap.untagged import format_flag_updates
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mail.store import StoreRequest, parse_store
from murder.wire.imap.seqset import format_ranges


def run_store(dialogue: BackendImap, command: Command) -> Running:
    """STORE (RFC 3501 §6.4.6, UNCHANGEDSINCE of RFC 7162)."""
    return _store(dialogue, command, by_uid=False)


def run_uid_store(dialogue: BackendImap, command: Command) -> Running:
    """UID STORE (RFC 3501 §6.4.8)."""
    return _store(dialogue, command, by_uid=True)


async def _store(dialogue: BackendImap, command: Command, by_uid: bool) -> None:
    request = await arguments(command, parse_store)
    dialogue.need_writable()
    rights = dialogue.need_rights()
    if not rights & frozenset("stw") or (request.flags and not changeable(request.flags, rights)):
        raise Refusal(Code.NO_PERMISSION, "You may not change these flags in this mailbox")
    uids = await uids_of(dialogue, request.sequence, by_uid)
    if request.unchanged_since is not None:
        dialogue.enable_condstore()
    view = dialogue.now
    modified: list[Uid] = []
    missed = 0
    if request.silent:
        await view.poll()
    is_watched = flags_are_seen(dialogue, view.mailbox.name)
    for batch in batches(uids):
        before = await view.mailbox.messages(batch) if is_watched else ()
        if request.silent:
            stored = await _change_silently(dialogue, request, batch, rights)
        else:
            stored = await _change(dialogue, request, batch, rights, request.unchanged_since)
            view.mark_reported(stored.messages)
            view.has_made(stored.made)
        if before:
            had = {message.uid: message.flags for message in before}
            mailbox = view.mailbox
            await note_flags(dialogue, mailbox.name, mailbox.mailbox_id, had, stored.messages)
        modified += stored.modified
        missed += len(batch) - len(stored.messages) - len(stored.modified)
        if not request.silent:
            for some in portions(stored.messages):
                dialogue.send(_told(dialogue, some, by_uid))
                await dialogue.flush()
        elif dialogue.manner.condstore:
            dialogue.send(_modseqs(dialogue, stored.messages))
        await dialogue.flush()
    if uids and missed == len(uids) and not by_uid and not request.silent:  # RFC 2180 §4.2.2
        raise Refusal(Code.EXPUNGE_ISSUED, "None of these messages exists any more")
    code = b"EXPUNGEISSUED" if missed and not by_uid else b""
    if modified:
        # RFC 7162 §3.1.3: spare the client a FETCH
        view.queue_fetch(await view.mailbox.messages(modified))
        numbers = modified if by_uid else [view.seq_of(uid) or 0 for uid in modified]
        code = b"MODIFIED " + format_ranges(compress(numbers))
    await dialogue.finish(command, code=code, removals=by_uid)


async def _change_silently(
    dialogue: BackendImap, request: StoreRequest, uids: Sequence[Uid], rights: Rights
) -> Stored:
    """The client is not told what it can work out itself; but what others have changed in the same messages it is
    (RFC 3501 §6.4.6). The view has just been polled: later changes are found by their mod-sequence."""
    view, asked = dialogue.now, request.unchanged_since
    known = view.modseq if asked is None else min(asked, view.modseq)
    first = await _change(dialogue, request, uids, rights, known)
    view.made(first.messages)
    view.has_made(first.made)
    if not first.modified:
        return first
    second = await _change(dialogue, request, first.modified, rights, asked)
    view.queue_fetch(second.messages)
    return Stored([*first.messages, *second.messages], second.modified)


async def _change(
    dialogue: BackendImap,
    request: StoreRequest,
    uids: Sequence[Uid],
    rights: Rights,
    since: ModSeq | None,
) -> Stored:
    """Change what the client may change; what it may not stays as it is (RFC 4314 §4)."""
    mailbox = dialogue.now.mailbox
    flags = changeable(request.flags, rights)
    if request.change is not FlagChange.REPLACE or rights >= frozenset("stw"):
        return await mailbox.change_flags(uids, request.change, flags, since)
    present = {flag for message in await mailbox.messages(uids) for flag in message.flags}
    others = changeable(frozenset(present), rights) - flags
    first = await mailbox.change_flags(uids, FlagChange.REMOVE, others, since)
    changed = [message.uid for message in first.messages]
    second = await mailbox.change_flags(changed, FlagChange.ADD, flags)
    return Stored(second.messages, first.modified)


def _known(dialogue: BackendImap, messages: Sequence[Message]) -> list[tuple[SeqNum, Message]]:
    seq_of = dialogue.now.seq_of
    return [(seq, message) for message in messages if (seq := seq_of(message.uid)) is not None]


def _told(dialogue: BackendImap, messages: Sequence[Message], by_uid: bool) -> bytes:
    recent = dialogue.now.recent
    known = _known(dialogue, messages)
    return format_flag_updates(known, dialogue.forms, recent, dialogue.manner, by_uid)


def _modseqs(dialogue: BackendImap, messages: Sequence[Message]) -> bytes:
    """What a client with CONDSTORE is told even of a silent STORE (RFC 7162 §3.1.3)."""
    manner = dialogue.manner
    with_uid = not manner.uid_only  # RFC 7162 §3.2.4
    lines: list[bytes] = []
    for seq, message in _known(dialogue, messages):
        uid = b"UID %d " % message.uid if with_uid else b""
        head = manner.fetch_head(seq, message.uid)
        lines.append(b"%s%sMODSEQ (%d))\r\n" % (head, uid, message.modseq))
    return b"".join(lines)
