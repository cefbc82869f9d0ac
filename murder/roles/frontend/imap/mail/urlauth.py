"""GENURLAUTH, RESETKEY, URLFETCH (RFC 4467, RFC 5524): each URL at the backend of the mailbox that it names."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from murder.errors import BadSyntax, Refusal
from murder.model.name import MailboxName
from murder.net.outgoing.exchange import Reply
from murder.roles.frontend.imap.basic import at_mailbox
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import execute, under_tag
from murder.roles.frontend.placement import servers
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mail.urlauth import (
    UrlFetchRequest,
    format_genurlauth,
    format_urlfetch,
    parse_genurlauth,
    parse_resetkey,
    parse_urlfetch,
)
from murder.wire.token import Scanner, client_astring
from murder.wire.url import parse_url

Asked = tuple[bytes, str]  # a URL and a mechanism


async def _own_server_of(dialogue: FrontendImap, raw_url: bytes) -> str:
    """Of a URL that the user makes. Raises BadSyntax, Refusal, UpstreamFailure."""
    name = _name_in(dialogue, raw_url)
    if (url := parse_url(raw_url)).server is None or url.server.user != dialogue.user.user:
        raise BadSyntax("URLs can be made in your own name only")
    return (await dialogue.find(name)).server


async def _server_of(dialogue: FrontendImap, raw_url: bytes) -> str:
    """Of a URL that somebody has made: its token gives the right. Raises BadSyntax, Refusal, UpstreamFailure."""
    return (await dialogue.frontend.locator.find_by_token(_name_in(dialogue, raw_url))).server


def _name_in(dialogue: FrontendImap, raw_url: bytes) -> MailboxName:
    """The mailbox as the URL's own user calls it. Raises BadSyntax, Refusal."""
    url = parse_url(raw_url)
    if url.server is None or url.server.user is None or url.mailbox is None:
        raise BadSyntax("a URL with URLAUTH has a server, a user and a mailbox")
    frontend, host = dialogue.frontend, url.server.host.lower()
    if host not in {name.lower() for name in (frontend.server_name, *servers(frontend))}:
        raise BadSyntax(f"This is {frontend.server_name}, not {url.server.host}")
    return frontend.namespace.internal(url.mailbox, url.server.user)


# --- making URLs


def run_genurlauth(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 4467 §7.1: each URL is signed where its mailbox is."""
    return _generate(dialogue, command, parse_genurlauth(Scanner(command.octets, command.start)))


async def _generate(dialogue: FrontendImap, command: Command, asked: Sequence[Asked]) -> None:
    try:
        homes = [await _own_server_of(dialogue, url) for url, _ in asked]
    except Refusal as refusal:
        raise BadSyntax(refusal.text) from refusal
    if len(set(homes)) == 1:
        await dialogue.relay_at(homes[0], command)
        return
    made: list[bytes] = []
    for server, run in groupby(zip(homes, asked, strict=True), key=lambda pair: pair[0]):
        words = [b"%s %s" % (client_astring(url), mech.encode()) for _, (url, mech) in run]
        upstream = await dialogue.upstream(server)
        lines: list[bytes] = []
        reply = await execute(
            dialogue, upstream, b"GENURLAUTH " + b" ".join(words), _taker(b"GENURLAUTH", lines)
        )
        if not reply.is_ok:
            dialogue.send(under_tag(command, reply))
            return
        for line in lines:
            made += _strings(Scanner(line, len(b"* GENURLAUTH")))
    dialogue.send(format_genurlauth(made))
    dialogue.send_ok(command)


def _taker(word: bytes, lines: list[bytes]) -> Callable[[bytes], bool]:
    def take(response: bytes) -> bool:
        if not response[2 : 3 + len(word)].upper().startswith(word + b" "):
            return False
        lines.append(response)
        return True

    return take


def _strings(scanner: Scanner) -> Iterator[bytes]:
    while not scanner.at_end():
        scanner.space()
        yield scanner.astring()


def run_resetkey(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 4467 §7.2: at the mailbox, or at every backend."""
    request = parse_resetkey(Scanner(command.octets, command.start))
    if request.mailbox is not None:
        return at_mailbox(dialogue, command, request.mailbox)
    return _reset_all(dialogue, command)


async def _reset_all(dialogue: FrontendImap, command: Command) -> None:
    """The user's keys of all mailboxes: at every backend, or it is not done. Raises UpstreamFailure."""

    async def reset(server: str) -> Reply:
        return await execute(dialogue, await dialogue.upstream(server), b"RESETKEY")

    homes = sorted(dialogue.frontend.mailboxes.count_by_server())
    replies = await asyncio.gather(*map(reset, homes))
    failed = [reply for reply in replies if not reply.is_ok]
    dialogue.send(under_tag(command, (failed or replies)[0]))


# --- using them


def run_urlfetch(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 4467 §7.3: each URL is fetched where its mailbox is."""
    return _fetch(dialogue, command, parse_urlfetch(Scanner(command.octets, command.start)))


async def _fetch(
    dialogue: FrontendImap, command: Command, requests: Sequence[UrlFetchRequest]
) -> None:
    """In the order asked for; what names nothing is NIL, and nobody learns why (RFC 4467 §7)."""
    homes: list[str | None] = []
    for request in requests:
        try:
            homes.append(await _server_of(dialogue, request.url))
        except (BadSyntax, Refusal):
            homes.append(None)
    first = homes[0]
    if first is not None and set(homes) == {first}:
        await dialogue.relay_at(first, command)
        return
    for server, run in groupby(zip(homes, requests, strict=True), key=lambda pair: pair[0]):
        asked = [request for _, request in run]
        if server is None:
            dialogue.send(b"".join(format_urlfetch(request.url, None) for request in asked))
            continue
        # as it comes: it may be as long as a message, or several of them
        upstream = await dialogue.upstream(server)
        words = b" ".join(map(_format_request, asked))
        upstream.write(b"%s URLFETCH %s\r\n" % (command.tag, words))
        await upstream.relayed(command.tag, is_last=False)
        await dialogue.flush()
    dialogue.send_ok(command)


def _format_request(request: UrlFetchRequest) -> bytes:
    url = client_astring(request.url)
    if not request.items:
        return url
    return b"(%s %s)" % (url, b" ".join(item.value.encode() for item in request.items))
