"""The selected mailbox has moved: the session goes on with it at its new backend, and the client hears nothing of it.

The old backend's last word says what the client knows of the mailbox (`wire.imap.mailboxes.moved`); the new one takes that
up, and tells what has happened since as it would have told anyhow. Commands that the old one has not begun are begun anew.
Where that cannot be, the mailbox is closed (RFC 7162 §3.2.11 has the code), and the session lives on.
"""

import asyncio
from typing import Final

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.name import MailboxName, display
from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.selected import ALL, Moved, Selected
from murder.wire.imap.command import parse_command
from murder.wire.imap.response import status_for, status_line
from murder.wire.token import client_astring

Sent = tuple[bytes, bytes]  # tag, octets
Left = tuple[str, bytes]  # a backend, the name of what has left it
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0
# from the old backend's last word to the master's word that the new one has it
HAND_OVER_S: Final = 20.0
WATCHED_OVER_S: Final = 5.0  # likewise, of one that is not selected: the client's commands wait


async def follow(dialogue: FrontendImap, moved: Moved) -> None:
    """Select it again, and carry out what nobody has begun."""
    selected = moved.selected
    try:
        upstream = await _take_up(dialogue, selected, moved.view)
    except (Refusal, UpstreamFailure) as problem:
        dialogue.log.info("mailbox.not_followed", backend=selected.server, problem=str(problem))
        close(dialogue, moved)
        await _watch_on(dialogue)
        return
    dialogue.log.info("mailbox.followed", backend=upstream.server, mailbox=display(selected.name))
    dialogue.select(upstream, selected.name, selected.is_read_only)
    await _watch_on(dialogue)
    for number, (tag, octets) in enumerate(moved.sent):
        if parse_command(octets).name != b"IDLE":
            await dialogue.carry_out(parse_command(octets))
        else:
            await _idle_on(dialogue, upstream, tag, octets, moved.is_idling and number == 0)


async def _watch_on(dialogue: FrontendImap) -> None:
    """NOTIFY goes on; where it cannot, the client asks again (RFC 5465 §5.8)."""
    if not dialogue.is_watching or dialogue.watch_on is None:
        return
    try:
        await dialogue.watch_on()
    except (Refusal, UpstreamFailure) as problem:
        _end_watch(dialogue, problem)


async def watch_elsewhere(dialogue: FrontendImap, left: tuple[Left, ...]) -> None:
    """What is watched has left these backends, each with the name: their new ones tell of them from now on."""
    if not dialogue.is_watching or dialogue.watch_at is None:
        return
    if ALL in left:
        await _watch_on(dialogue)
        return
    try:
        for server, raw_name in left:
            name = dialogue.name_of(raw_name)
            await dialogue.watch_at(await _new_home(dialogue, name, server, WATCHED_OVER_S))
    except (Refusal, UpstreamFailure) as problem:
        _end_watch(dialogue, problem)


def _end_watch(dialogue: FrontendImap, problem: Exception) -> None:
    dialogue.is_watching, dialogue.ask_again = False, None
    text = f"A mailbox has moved: ask again with NOTIFY ({problem})"
    dialogue.send(status_line(b"*", b"OK", text, b"NOTIFICATIONOVERFLOW"))


async def _idle_on(
    dialogue: FrontendImap, upstream: ImapUpstream, tag: bytes, octets: bytes, is_begun: bool
) -> None:
    """`is_begun`: the client has had the continuation."""
    if dialogue.idle is None:  # it has ended it meanwhile
        upstream.relay(tag, tag + b" NOOP\r\n")
        return
    dialogue.idle.moved(upstream)
    if not is_begun:
        upstream.relay(tag, octets)
        upstream.has_no_hurry = True
        return
    try:
        await upstream.idle_again(tag, octets)
    except UpstreamFailure as failure:
        dialogue.end_idle()
        dialogue.send(status_for(failure).line(tag))


async def _take_up(dialogue: FrontendImap, selected: Selected, view: bytes) -> ImapUpstream:
    server = await _new_home(dialogue, selected.name, selected.server)
    upstream = await dialogue.upstream(server)
    verb = b"EXAMINE " if selected.is_read_only else b"SELECT "
    name = client_astring(dialogue.external(selected.name))
    reply = await upstream.execute(verb + name + b" (X-VIEW (" + view + b"))")
    if not reply.is_ok:
        raise Refusal(Code.CANNOT, f"{server}: {reply.text}")
    return upstream


async def _new_home(
    dialogue: FrontendImap, name: MailboxName, old: str, within_s: float = HAND_OVER_S
) -> str:
    """As soon as the master has it. Raises Refusal, UpstreamFailure."""
    locator, pause_s = dialogue.frontend.locator, FIRST_PAUSE_S
    give_up_at = dialogue.loop.time() + within_s
    while True:
        try:
            await locator.catch_up()
            server = (await dialogue.find(name)).server
        except UpstreamFailure as failure:
            if failure.kind is not UpstreamKind.MOVING or dialogue.loop.time() > give_up_at:
                raise
            server = old
        if server != old:
            return server
        if dialogue.loop.time() > give_up_at:
            raise Refusal(Code.UNAVAILABLE, f"the list still has it at {old}")
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def close(dialogue: FrontendImap, moved: Moved) -> None:
    """The client may select it again. An IDLE that it has had the continuation of is over; no other command was done."""
    dialogue.deselect(unasked=True)
    dialogue.send(status_line(b"*", b"OK", "The mailbox has moved: select it again", b"CLOSED"))
    for number, (tag, octets) in enumerate(moved.sent):
        if parse_command(octets).name == b"IDLE":
            dialogue.end_idle()
        if moved.is_idling and number == 0:
            dialogue.send(status_line(tag, b"OK", "The mailbox has moved"))
            continue
        text = "The mailbox has moved, and this was not done: select it again"
        dialogue.send(status_line(tag, b"NO", text, b"UNAVAILABLE"))
