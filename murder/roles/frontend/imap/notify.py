"""NOTIFY (RFC 5465) over several backends: each is asked for its own mailboxes, and tells the client through one arbiter.

What was asked for is asked again of every backend that is opened later. A backend that is lost makes the frontend say
NOTIFICATIONOVERFLOW: the client must not believe that all is quiet there.
"""

import asyncio
import re
from collections.abc import Callable
from itertools import islice
from typing import Final

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.model.name import inbox_of
from murder.model.query.notify import NotifyRequest, Which
from murder.net.outgoing.relay import ImapUpstream
from murder.net.turns import in_turns
from murder.roles.frontend.imap.arbiter import LIST
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import body_of, refusal_of, under_tag
from murder.roles.frontend.imap.mailboxes.list import home_upstream, subscriptions
from murder.roles.frontend.visible import shown_to
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.list import parse_list_response
from murder.wire.imap.notify import parse_notify
from murder.wire.imap.response import status_for
from murder.wire.token import Scanner, client_astring

MAX_LOOKED_AT: Final = 10_000  # mailboxes, to find the backends concerned
_STATUS: Final = re.compile(rb"(?i)\A(NOTIFY SET) STATUS ")
_WITHOUT_STATUS: Final = re.compile(rb"(?i)\A(NOTIFY SET) (?!STATUS )")
_SUBSCRIBED: Final = re.compile(rb"(?i)\(SUBSCRIBED (?=\(|NONE)")
CHILDLESS: Final = b"\\HasNoChildren"
NONEXISTENT: Final = b"\\NonExistent"
NOTHING: Final = b"murder.none"  # no mailbox is called so
SELECTED: Final = frozenset({Which.SELECTED, Which.SELECTED_DELAYED})


def run_notify(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 5465: asked of every backend that has mailboxes that are meant."""
    return _notify(dialogue, command)


async def _notify(dialogue: FrontendImap, command: Command) -> None:
    request = await arguments(command, parse_notify)
    body = body_of(command)
    missing = await _open(dialogue, await _servers(dialogue, request))
    dialogue.listen_to_all(lambda upstream, octets: _with_children(dialogue, upstream, octets))
    first = True
    for upstream in _in_order(dialogue):
        octets = await _spelled_for(dialogue, upstream, body)
        reply = await upstream.execute(octets, untagged=_telling(dialogue, upstream))
        if first and not reply.is_ok:
            dialogue.send(under_tag(command, reply))
            return
        first = False

    async def again(upstream: ImapUpstream) -> bytes:
        return await _spelled_for(dialogue, upstream, _STATUS.sub(rb"\1 ", body))

    async def watch_on() -> None:
        """What happened meanwhile in other mailboxes of the old backend nobody has told: their states are. Raises Refusal,
        UpstreamFailure."""
        with_status = _WITHOUT_STATUS.sub(rb"\1 STATUS ", body)
        servers = await _servers(dialogue, request)
        await asyncio.gather(*map(dialogue.upstream, servers))
        for upstream in _in_order(dialogue):
            octets = await _spelled_for(dialogue, upstream, with_status)
            reply = await upstream.execute(octets, untagged=_telling(dialogue, upstream))
            if not reply.is_ok:
                raise refusal_of(reply)

    async def watch_at(server: str) -> None:
        """A mailbox has come there. A backend that is being watched tells of it by itself, unless it was told names. Raises
        Refusal, UpstreamFailure."""
        is_new = server not in dialogue.upstreams
        upstream = await dialogue.upstream(server)
        with_status = _WITHOUT_STATUS.sub(rb"\1 STATUS ", body)
        octets = await _spelled_for(dialogue, upstream, with_status)
        if is_new or octets != with_status:
            if upstream.in_flight:
                raise Refusal(Code.UNAVAILABLE, f"{server} is busy")
            reply = await upstream.execute(octets, untagged=_telling(dialogue, upstream))
            if not reply.is_ok:
                raise refusal_of(reply)

    dialogue.ask_again, dialogue.watch_on, dialogue.watch_at = again, watch_on, watch_at
    dialogue.is_watching = bool(request.groups)
    if missing:
        dialogue.send_ok(command, f"Completed, without events from {', '.join(missing)}")
    else:
        dialogue.send_ok(command)


async def _open(dialogue: FrontendImap, servers: list[str]) -> list[str]:
    """Connect to these backends, to all at once. Those that are away are told to the client, and cost only what is on
    them; they are asked when the session comes to them again."""
    missing = []
    opened = await asyncio.gather(*map(dialogue.upstream, servers), return_exceptions=True)
    for server, outcome in zip(servers, opened, strict=True):
        if isinstance(outcome, UpstreamFailure):
            dialogue.log.warning("notify.incomplete", backend=server, problem=str(outcome))
            dialogue.send(status_for(outcome).line(b"*"))
            missing.append(server)
        elif isinstance(outcome, BaseException):
            raise outcome
    return missing


def _telling(dialogue: FrontendImap, upstream: ImapUpstream) -> Callable[[bytes], None]:
    return lambda response: dialogue.send(_with_children(dialogue, upstream, response))


def _with_children(dialogue: FrontendImap, upstream: ImapUpstream, octets: bytes) -> bytes:
    """A backend knows of no mailboxes and no children on others: LIST responses at the beginning of these octets as one
    server would say them (RFC 3348, RFC 5465 §5.5 of what is subscribed to)."""
    events, rest = b"", octets
    while rest.startswith(LIST):
        line, end, rest = rest.partition(b"\r\n")
        if (CHILDLESS in line or NONEXISTENT in line) and not line.endswith(b"}"):
            line = _with_others(dialogue, upstream.server, line)
        events += line + end
        if line.endswith(b"}"):  # a name in a literal
            break
    return events + rest


def _with_others(dialogue: FrontendImap, server: str, line: bytes) -> bytes:
    try:
        name = dialogue.name_of(parse_list_response(Scanner(line + b"\r\n", 6)).name)
    except (BadSyntax, Refusal):
        return line
    if NONEXISTENT in line:  # subscribed to, or no longer, and it may be on another
        entry = dialogue.frontend.mailboxes.find(name)
        if entry is None or entry.server == server or not dialogue.may_know_of(entry):
            return line
        line = line.replace(NONEXISTENT, CHILDLESS, 1)
    rows = shown_to(dialogue.frontend, dialogue.user, (name + b".",))
    if any(row.server != server for row in islice(rows, MAX_LOOKED_AT)):
        return line.replace(CHILDLESS, b"\\HasChildren", 1)
    return line


def _in_order(dialogue: FrontendImap) -> list[ImapUpstream]:
    """The selected mailbox's backend first: what it refuses, the others need not hear."""
    selected = dialogue.selected
    first = selected.upstream if selected is not None else None
    return sorted(
        dialogue.upstreams.values(), key=lambda upstream: (upstream is not first, upstream.server)
    )


async def _servers(dialogue: FrontendImap, request: NotifyRequest) -> list[str]:
    """The backends that have something to tell: those of all that the user can see, and of their INBOX."""
    if not request.groups:
        return []
    frontend, login = dialogue.frontend, dialogue.user
    own = frontend.locator.known(inbox_of(login.user))
    servers = {own.server} if own is not None else set()
    if any(group.which not in SELECTED for group in request.groups):
        rows = shown_to(frontend, login, (b"",))
        servers |= {row.server async for row in in_turns(islice(rows, MAX_LOOKED_AT))}
    return sorted(servers)


async def _spelled_for(dialogue: FrontendImap, upstream: ImapUpstream, body: bytes) -> bytes:
    """Only the backend of the user's INBOX knows what they have subscribed to; the others are told the names."""
    if not _SUBSCRIBED.search(body):
        return body
    home = await home_upstream(dialogue)
    if home is None or home is upstream:
        return body
    locator = dialogue.frontend.locator
    if home.in_flight:  # a mailbox has moved during IDLE
        async with dialogue.spare_upstream(home.server) as spare:
            subscribed = await subscriptions(dialogue, spare)
    else:
        subscribed = await subscriptions(dialogue, home)
    entries = map(locator.known, subscribed)
    names = [
        dialogue.external(entry.name)
        for entry in entries
        if entry and entry.server == upstream.server
    ]
    spelled = b" ".join(map(client_astring, names or [NOTHING]))
    return _SUBSCRIBED.sub(lambda _: b"(MAILBOXES (" + spelled + b") ", body)
