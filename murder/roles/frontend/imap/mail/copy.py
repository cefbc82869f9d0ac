"""COPY and MOVE: within one backend a relay, across two a copy by FETCH and APPEND, all or nothing.

RFC 3501 §6.4.7, RFC 6851, RFC 4315. Flags, keywords and dates go along; COPYUID is made of the target's APPENDUIDs. If
anything fails, what already is on the target is removed again and the source is whole. MOVE lets the source go only when
all is on the target, and only of the messages that were copied. Of several sessions that move a message at the same time one
has removed it at the source; the others take their copies back.
"""

from murder.errors import Code, Refusal, UpstreamFailure
from murder.model.acl import expand_rights
from murder.model.name import MailboxName, owner_of
from murder.net.turns import aside_if
from murder.roles.frontend.imap.dialogue import FrontendImap, run_selected
from murder.roles.frontend.imap.internal import as_it_came, collect, refusal_of
from murder.roles.frontend.imap.mail.claim import CLAIMS, remove_claimed
from murder.roles.frontend.imap.mail.crossing import (
    Copied,
    Crossing,
    Removal,
    Source,
    remove,
    remove_exactly,
)
from murder.roles.frontend.imap.mail.target import find_target, has_moved
from murder.roles.frontend.imap.patience import MAIL_AT_HAND_S, Patience
from murder.roles.frontend.imap.selected import Selected
from murder.serve.arguments import LONG_OCTETS, arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mail.copy import REMOVES, CopyRequest, parse_copy
from murder.wire.imap.response import status_line
from murder.wire.imap.seqset import format_seqset
from murder.wire.token import Scanner, client_astring


def run_copy(dialogue: FrontendImap, command: Command) -> Running:
    """COPY, UID COPY, MOVE, UID MOVE."""
    if len(command.octets) > LONG_OCTETS:
        return _begin_long(dialogue, command)
    return _begin(dialogue, command, parse_copy(Scanner(command.octets, command.start)))


async def _begin_long(dialogue: FrontendImap, command: Command) -> None:
    running = _begin(dialogue, command, await arguments(command, parse_copy))
    if running is not None:
        await running


def _begin(dialogue: FrontendImap, command: Command, request: CopyRequest) -> Running:
    selected = dialogue.selected
    known = dialogue.frontend.locator.known(dialogue.name_of(request.mailbox))
    if known is not None and selected is not None and known.server == selected.server:
        if owner_of(MailboxName(known.name)) == owner_of(selected.name) is not None:
            return run_selected(dialogue, command)  # where one of them moves, both do
        return _copy_inside(dialogue, command, request)
    return _copy(dialogue, command, request)


async def _copy_inside(dialogue: FrontendImap, command: Command, request: CopyRequest) -> None:
    """The target may be on its way to another backend, and the selected mailbox not."""
    reply = await dialogue.inside(lambda selected: as_it_came(dialogue, selected.upstream, command))
    server = dialogue.selected.server if dialogue.selected is not None else ""
    code = refusal_of(reply).code if reply.code else Code.NONE
    if await has_moved(dialogue, request.mailbox, server, code, Patience(dialogue, MAIL_AT_HAND_S)):
        await _copy(dialogue, command, request)
    else:
        dialogue.send(reply.octets)


async def _copy(dialogue: FrontendImap, command: Command, request: CopyRequest) -> None:
    patience = Patience(dialogue, MAIL_AT_HAND_S)
    entry = await find_target(dialogue, request.mailbox, command, patience)
    selected = dialogue.selected
    if selected is None:
        raise Refusal(Code.CLOSED, "The backend of the selected mailbox has gone")
    if entry.server == selected.server:
        await dialogue.relay_inside(command)
        return
    moving = command.name.endswith(b"MOVE")
    if moving:
        await check_may_remove(dialogue, selected)
    source = Source(dialogue, selected.upstream)
    verb = b"UID FETCH" if command.name.startswith(b"UID ") else b"FETCH"
    is_long = len(command.octets) > LONG_OCTETS
    chosen = await aside_if(is_long, format_seqset, request.sequence)
    messages = await source.messages(verb + b" " + chosen)
    if not messages:
        dialogue.send_ok(command)
        return
    while True:
        crossing = Crossing(dialogue, source, entry.server, request.mailbox)
        try:
            copied = await crossing.copy(messages)
            break
        except Refusal as refusal:  # and nothing of it is there
            if not await has_moved(dialogue, request.mailbox, entry.server, refusal.code, patience):
                raise
        entry = await find_target(dialogue, request.mailbox, command, patience)
        if entry.server == selected.server:
            await dialogue.relay_inside(command)
            return
    if moving:
        await _let_go(dialogue, command, selected, source, crossing, copied)
        return
    _need_some(copied)
    dialogue.send_ok(command, code=copied.code)


def _need_some(copied: Copied) -> None:
    if not copied.sources:
        raise Refusal(Code.EXPUNGE_ISSUED, "None of these messages exists any more")


async def check_may_remove(dialogue: FrontendImap, selected: Selected) -> None:
    """MOVE needs `t` and `e` at the source: ask before anything is copied. Raises Refusal."""
    if selected.is_read_only:
        raise Refusal(Code.READ_ONLY, "The mailbox is selected read-only")
    if b"UIDPLUS" not in selected.upstream.capabilities:
        raise Refusal(Code.CANNOT, "The backend of this mailbox cannot remove chosen messages")
    name = client_astring(dialogue.external(selected.name))
    lines = await collect(dialogue, selected.upstream, b"MYRIGHTS " + name, b"MYRIGHTS")
    rights = lines[0].split()[-1].strip(b'"').decode("ascii", "replace") if lines else ""
    if not {"t", "e"} <= expand_rights(rights):
        raise Refusal(Code.NO_PERMISSION, "You may not remove messages from this mailbox")


async def _let_go(
    dialogue: FrontendImap,
    command: Command,
    selected: Selected,
    source: Source,
    crossing: Crossing,
    copied: Copied,
) -> None:
    """Remove at the source what has been copied, the client being told as it happens (RFC 6851 §4.3: COPYUID comes before).
    Raises Refusal, UpstreamFailure: after the latter the messages may be in both mailboxes."""
    upstream, removal = selected.upstream, Removal()
    is_exact = bool(upstream.capabilities & {REMOVES, CLAIMS})
    try:
        if REMOVES in upstream.capabilities:
            await remove_exactly(dialogue, upstream, source, copied.sources, removal)
        elif is_exact:
            await remove_claimed(dialogue, selected, copied.sources, removal)
    except UpstreamFailure:
        dialogue.send(b"".join(removal.news))
        raise
    if is_exact:
        copied = await crossing.keep(frozenset(removal.removed))
    else:
        copied = await crossing.without_vanished()
    if copied.code:
        dialogue.send(status_line(b"*", b"OK", "Moved", copied.code))
    dialogue.send(b"".join(removal.news))
    if removal.refusal is not None:
        raise removal.refusal
    _need_some(copied)
    if not is_exact:
        removal.code = await remove(dialogue, upstream, copied.sources)
    dialogue.send_ok(command, code=removal.code)
