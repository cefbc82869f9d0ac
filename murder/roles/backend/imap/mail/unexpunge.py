"""XUNEXPUNGE: what was expunged comes back, for an operator (wire.imap.unexpunge)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

from murder.api.store import Mailbox, Retained, TellsRetained
from murder.errors import Code, Refusal
from murder.mime.envelope import parse_envelope
from murder.mime.header import decode_value
from murder.model.acl import DELETE_MAILBOX
from murder.model.message import MAX_UID, Uid
from murder.model.seqset import holds
from murder.net.turns import Turn
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mailboxes.xfer import need_admin
from murder.roles.backend.messages.content import HEADER_LOOK
from murder.roles.backend.traced import trace_return
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mail.copy import format_copyuid
from murder.wire.imap.mail.unexpunge import (
    Expunged,
    UnexpungeRequest,
    format_expunged,
    parse_unexpunge,
)

PAGE: Final = 200  # messages told, or brought back by one change of the store
MAX_TEXT: Final = 200  # characters of a subject, or of who has sent it


def run_unexpunge(dialogue: BackendImap, command: Command) -> Running:
    """XUNEXPUNGE, ours, for administrators: expunged messages told, or brought back under new UIDs."""
    return _unexpunge(dialogue, command)


async def _unexpunge(dialogue: BackendImap, command: Command) -> None:
    request = await arguments(command, parse_unexpunge)
    need_admin(dialogue, "brings back what was expunged")
    backend = dialogue.backend
    name = dialogue.name_of(request.mailbox)
    mailbox, _ = await backend.mailboxes.open_for(name, dialogue.user, DELETE_MAILBOX)
    try:
        if not isinstance(mailbox, TellsRetained):
            raise Refusal(Code.CANNOT, "The store of this server keeps no expunged messages")
        if not request.restores:
            await _tell(dialogue, mailbox, mailbox, request)
            await dialogue.finish(command)
            return
        old, new = await _restore(dialogue, mailbox, mailbox, request)
        code = format_copyuid((await mailbox.status()).uid_validity, old, new) if old else b""
    finally:
        mailbox.close()
    await dialogue.finish(command, code=code)


async def _chosen(
    mailbox: TellsRetained, request: UnexpungeRequest
) -> AsyncIterator[list[Retained]]:
    """What is asked for, page by page."""
    ranges = request.uids.resolved(MAX_UID)
    since = datetime.fromtimestamp(0, UTC)
    if request.within_s:
        since = datetime.now(UTC) - timedelta(seconds=request.within_s)
    after, turn = Uid(0), Turn()
    while page := await mailbox.retained(after, PAGE):
        after = page[-1].message.uid
        yield [
            retained
            for retained in page
            if retained.at >= since and holds(ranges, retained.message.uid)
        ]
        if turn.is_over:
            await turn.rest()


async def _tell(
    dialogue: BackendImap, mailbox: Mailbox, kept: TellsRetained, request: UnexpungeRequest
) -> None:
    """`mailbox` and `kept` are the same."""
    turn = Turn()
    async for page in _chosen(kept, request):
        for retained in page:
            dialogue.send(format_expunged(await _described(mailbox, retained)))
            if turn.is_over:
                await turn.rest()
        await dialogue.flush()


async def _described(mailbox: Mailbox, retained: Retained) -> Expunged:
    """With what its header says, as far as that is near its beginning."""
    subject = sender = ""
    try:
        header = bytes((await mailbox.octets(retained.message.uid))[:HEADER_LOOK])
    except Refusal as refusal:  # it goes just now
        if refusal.code is not Code.EXPUNGE_ISSUED:
            raise
    else:
        envelope = parse_envelope(header, 0, len(header.partition(b"\r\n\r\n")[0]))
        subject = decode_value(envelope.subject or b"")
        if envelope.from_:
            parts = [part or b"" for part in (envelope.from_[0].mailbox, envelope.from_[0].host)]
            sender = b"@".join(parts).decode("utf-8", "replace")
    message = retained.message
    return Expunged(message.uid, retained.at, message.size, subject[:MAX_TEXT], sender[:MAX_TEXT])


async def _restore(
    dialogue: BackendImap, mailbox: Mailbox, kept: TellsRetained, request: UnexpungeRequest
) -> tuple[list[Uid], list[Uid]]:
    """The UIDs that they had, and those that they have now; all of a page come back, or none. `mailbox` and `kept` are the
    same."""
    old: list[Uid] = []
    new: list[Uid] = []
    async for page in _chosen(kept, request):
        back = await kept.restore([retained.message.uid for retained in page]) if page else {}
        await trace_return(dialogue, mailbox, back)
        old += back
        new += back.values()
        dialogue.need_peer()
    return old, new
