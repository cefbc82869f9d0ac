"""SELECT, EXAMINE, CLOSE, UNSELECT: which backend's mailbox the session is in (RFC 3501 §6.3.1, §6.4.2, RFC 3691)."""

from contextlib import suppress

from murder.errors import BadSyntax, UpstreamFailure, UpstreamKind
from murder.model.name import MailboxName
from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import execute, want_modseqs
from murder.roles.frontend.imap.refer import find_or_refer
from murder.roles.frontend.imap.selected import LEFT
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.select import SelectRequest, parse_select
from murder.wire.token import Scanner


def run_select(dialogue: FrontendImap, command: Command) -> Running:
    """Whatever comes of it, the mailbox selected before is so no longer (RFC 3501 §6.3.1)."""
    return _select(dialogue, command)


async def _select(dialogue: FrontendImap, command: Command) -> None:
    request = await arguments(command, parse_select)
    if request.view is not None:
        raise BadSyntax("CONDSTORE or QRESYNC is expected")  # that is ours to say
    if await _select_at_home(dialogue, command, request) is not None:
        await dialogue.catch_up()
        failure = await _select_at_home(dialogue, command, request)
        if failure is not None:
            raise failure


async def _select_at_home(
    dialogue: FrontendImap, command: Command, request: SelectRequest
) -> UpstreamFailure | None:
    """Why the backend has not begun it, where that is so: the mailbox that was selected before has just moved from there, or
    it has gone before it was asked. Any other is raised."""
    try:
        entry = await find_or_refer(dialogue, dialogue.name_of(request.mailbox), command)
        upstream = await dialogue.upstream(entry.server)
    except Exception:
        await _leave(dialogue, None)
        raise
    selected = dialogue.selected
    says_closed = selected is not None and selected.upstream is upstream
    await _leave(dialogue, upstream)
    dialogue.tell_changed_capabilities()
    if request.condstore:
        await want_modseqs(dialogue, entry.server)
    failure = await _select_at(dialogue, command, upstream, MailboxName(entry.name))
    if failure is not None and says_closed:
        dialogue.send(LEFT)
    return failure


async def _select_at(
    dialogue: FrontendImap, command: Command, upstream: ImapUpstream, name: MailboxName
) -> UpstreamFailure | None:
    if upstream.is_lost:  # while others were waited for
        return upstream.failure(UpstreamKind.LOST, "it closed the connection")
    dialogue.select(upstream, name)
    try:
        reply = await dialogue.relay_at(upstream.server, command)
    except UpstreamFailure as failure:
        if not dialogue.is_to_follow:
            raise
        dialogue.deselect()
        return failure
    if not reply.is_ok:
        dialogue.deselect()
    elif reply.code.upper() == b"READ-ONLY":
        dialogue.select(upstream, name, is_read_only=True)
    return None


async def _leave(dialogue: FrontendImap, staying: ImapUpstream | None) -> None:
    """Leave the mailbox selected on another backend, without expunging."""
    selected = dialogue.selected
    if selected is None:
        return
    dialogue.deselect()
    if selected.upstream is staying:
        return  # which says so
    dialogue.send(LEFT)
    if not selected.upstream.is_lost:  # as where it has just moved
        with suppress(UpstreamFailure):  # as where it moves now
            await execute(dialogue, selected.upstream, b"UNSELECT")


def run_close(dialogue: FrontendImap, command: Command) -> Running:
    """CLOSE and UNSELECT: at the backend, then here as well."""
    Scanner(command.octets, command.start).end()
    return _close(dialogue, command)


async def _close(dialogue: FrontendImap, command: Command) -> None:
    reply = await dialogue.relay_inside(command)
    if reply.is_ok:
        dialogue.deselect()
