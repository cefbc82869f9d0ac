"""GENURLAUTH, RESETKEY, URLFETCH (RFC 4467, RFC 5524 URLAUTH=BINARY): URLs by which others may read one message."""

from dataclasses import replace
from typing import Final

from murder.errors import BadSyntax, Refusal
from murder.mime.nul import has_nul
from murder.mime.section import find_part
from murder.model.name import MailboxName
from murder.model.part import Part
from murder.model.query.fetch import Form, SectionText
from murder.model.url import ImapUrl
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mail.fetch import SLICE, send_in_slices
from murder.roles.backend.imap.mail.urls import INTERNAL, message_of, section_of
from murder.roles.backend.messages.content import Reader
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mail.urlauth import (
    ResetKeyRequest,
    UrlFetchItem,
    UrlFetchRequest,
    format_genurlauth,
    format_urlfetch,
    format_urlfetch_around,
    format_urlfetch_extended,
    parse_genurlauth,
    parse_resetkey,
    parse_urlfetch,
)
from murder.wire.token import Scanner
from murder.wire.url import parse_url

URL_MECHANISMS: Final = b"URLMECH INTERNAL"


# --- making URLs


def run_genurlauth(dialogue: BackendImap, command: Command) -> Running:
    """GENURLAUTH (RFC 4467 §7)."""
    return _generate(dialogue, command, parse_genurlauth(Scanner(command.octets, command.start)))


async def _generate(
    dialogue: BackendImap, command: Command, pairs: tuple[tuple[bytes, str], ...]
) -> None:
    """RFC 4467 §7: whatever is wrong with one of the URLs is a tagged BAD."""
    checked = [_checked(dialogue, raw, mechanism) for raw, mechanism in pairs]
    keys, user = dialogue.backend.url_keys, dialogue.user.user
    made = []
    for raw, name in checked:
        made.append(b"%s:internal:%s" % (raw, await keys.token(name, user, raw)))
    dialogue.send(format_genurlauth(made))
    await dialogue.finish(command)


def _checked(dialogue: BackendImap, raw: bytes, mechanism: str) -> tuple[bytes, MailboxName]:
    if mechanism != INTERNAL:
        raise BadSyntax(f"{mechanism} is not a mechanism of this server; INTERNAL is")
    url = parse_url(raw)
    access, server = url.access, url.server
    if access is None or access.token or access.rump != raw:
        raise BadSyntax("GENURLAUTH takes a URL that ends in ;URLAUTH= and who may use it")
    if server is None or url.mailbox is None:
        raise BadSyntax("GENURLAUTH takes a URL with server, user and mailbox")
    # a frontend's clients know the frontend's name only; the token proves whatever name stands there
    if server.host.lower() != dialogue.backend.server_name.lower() and not dialogue.user.proxy:
        raise BadSyntax(f"This is {dialogue.backend.server_name}, not {server.host}")
    if server.user != dialogue.user.user:
        raise BadSyntax("URLs can be made in your own name only")
    try:
        name = dialogue.namespace.internal(url.mailbox, dialogue.user.user)
        dialogue.backend.mailboxes.require(name, dialogue.user, "r")
    except Refusal as refusal:
        raise BadSyntax(refusal.text) from refusal
    return raw, name


def run_resetkey(dialogue: BackendImap, command: Command) -> Running:
    """RESETKEY (RFC 4467 §7): URLs made before it are worth nothing."""
    return _reset(dialogue, command, parse_resetkey(Scanner(command.octets, command.start)))


async def _reset(dialogue: BackendImap, command: Command, request: ResetKeyRequest) -> None:
    keys, user = dialogue.backend.url_keys, dialogue.user
    if request.mailbox is None:
        await keys.reset(None, user.user)
        await dialogue.finish(command, "No URL of yours is valid any more")
        return
    unknown = [mechanism for mechanism in request.mechanisms if mechanism != INTERNAL]
    if unknown:
        raise BadSyntax(f"{unknown[0]} is not a mechanism of this server; INTERNAL is")
    name = dialogue.name_of(request.mailbox)
    dialogue.backend.mailboxes.look(name, user)
    await keys.reset(name, user.user)
    await dialogue.finish(
        command, "Your URLs of this mailbox are not valid any more", URL_MECHANISMS
    )


# --- using them


def run_urlfetch(dialogue: BackendImap, command: Command) -> Running:
    """URLFETCH (RFC 4467 §7, RFC 5524): what each URL leads to, NIL where it leads nowhere for this user."""
    return _fetch(dialogue, command, parse_urlfetch(Scanner(command.octets, command.start)))


async def _fetch(
    dialogue: BackendImap, command: Command, requests: tuple[UrlFetchRequest, ...]
) -> None:
    for request in requests:
        try:
            begin, octets, end = await _answer(dialogue, request)
        except (BadSyntax, Refusal):  # RFC 4467 §7: nobody learns why
            begin, octets, end = format_urlfetch(request.url, None), memoryview(b""), b""
        dialogue.is_inside = True
        dialogue.send(begin)
        await send_in_slices(dialogue, octets)
        dialogue.send(end)
        dialogue.is_inside = False
        await dialogue.flush()
    await dialogue.finish(command)


Answer = tuple[bytes, memoryview, bytes]  # what is told is all three, the middle may be large


async def _answer(dialogue: BackendImap, request: UrlFetchRequest) -> Answer:
    """What one URL names. Raises BadSyntax, Refusal."""
    url = parse_url(request.url)
    if url.access is None or not url.access.token:
        raise BadSyntax("the URL has no token")
    async with message_of(dialogue, url) as reader:
        if not request.items:
            octets = await section_of(reader, url)
            if len(octets) >= SLICE:
                begin, end = format_urlfetch_around(request.url, len(octets))
                return begin, octets, end
            return format_urlfetch(request.url, bytes(octets)), memoryview(b""), b""
        return await _extended(reader, url, request)


async def _extended(reader: Reader, url: ImapUrl, request: UrlFetchRequest) -> Answer:
    """RFC 5524 §3: a part's structure, and its octets as they are or decoded."""
    item, octets, structure = None, None, None
    original = None
    if UrlFetchItem.BODYPARTSTRUCTURE in request.items:
        original = structure = await _structure(reader, url)
    if UrlFetchItem.BODY in request.items:
        item, octets = UrlFetchItem.BODY, await section_of(reader, url)
    elif UrlFetchItem.BINARY in request.items:
        item = UrlFetchItem.BINARY
        try:
            octets = await section_of(reader, url, Form.BINARY)
        except Refusal:  # an encoding that is not known: NIL (§3.2)
            octets = None
        if original is not None and octets is not None and not original.children:
            structure = _decoded(original, octets)
    if item is not None and octets is not None and len(octets) >= SLICE:
        binary = item is UrlFetchItem.BINARY and has_nul(octets)
        begin, end = format_urlfetch_around(
            request.url, len(octets), item, structure, has_nul=binary
        )
        return begin, octets, end
    small = None if octets is None else bytes(octets)
    whole = format_urlfetch_extended(request.url, item, small, structure)
    return whole, memoryview(b""), b""


def _decoded(part: Part, octets: memoryview) -> Part:
    """The part as it is with its encoding undone: what is told with BINARY (RFC 5524 §3.2). RFC 3501 counts the lines of the
    encoded part alone: where something was undone there are none, as Dovecot has it."""
    is_undone = part.encoding.upper() in (b"BASE64", b"QUOTED-PRINTABLE")
    encoding = b"BINARY" if has_nul(octets) else b"7BIT" if _is_ascii(octets) else b"8BIT"
    lines = 0 if part.media[0] == b"TEXT" and is_undone else part.lines
    return replace(part, encoding=encoding, body_end=part.body_start + len(octets), lines=lines)


def _is_ascii(octets: memoryview) -> bool:
    return all(bytes(octets[at : at + SLICE]).isascii() for at in range(0, len(octets), SLICE))


async def _structure(reader: Reader, url: ImapUrl) -> Part | None:
    if url.section is not None and url.section.text is not SectionText.WHOLE:
        return None  # a header has none
    place = find_part(await reader.part(), url.section.part if url.section is not None else ())
    return None if place is None else place[0]
