"""A copy that a script wants in a mailbox on another backend: put there by IMAP, as the script's owner with the right `i`;
for a script of nobody's as anybody, with the right `p`.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.mime.mapped import MAPPED_OCTETS, let_go
from murder.model.acl import ANONYMOUS
from murder.net.outgoing.exchange import Client, Reply
from murder.net.outgoing.pool import open_imap
from murder.net.outgoing.relay import ImapUpstream
from murder.net.outgoing.upstream import Upstreams
from murder.roles.backend.scripts.places import Place
from murder.roles.backend.shared import Backend
from murder.sieve.run.message import Message as ScriptMessage
from murder.wire.token import client_astring

PIECE_OCTETS: Final = 64 * 1024
MAX_ANSWER_OCTETS: Final = 1024 * 1024
KNOWN_FIELDS: Final = ("message-id", "date")
KNOWN_OCTETS: Final = 64 * 1024  # of a body, by which a copy is known again
MAX_LOOKED_AT: Final = 20  # the last ones that have its header,
MAX_SEARCHED: Final = 50_000  # of the last messages there: their UIDs fit into an answer
# In ID: what is put there a script wants, and no other script sees it
BY_SCRIPT: Final = "x-by-script"
ONCE: Final = "1"
AGAIN: Final = "again"  # it may be there, from before a crash: a backend of ours looks


@dataclass(frozen=True, slots=True)
class Known:
    """By what a copy is known that may be there from before a crash. Another message may have its Message-ID."""

    message_id: bytes
    date: bytes
    body: memoryview = field(repr=False)


def known_of(message: ScriptMessage) -> Known:
    """Of one whose fields have been read."""
    first: dict[str, bytes] = {}
    for header_field in message.fields:  # there may be thousands
        if header_field.name in KNOWN_FIELDS and header_field.name not in first:
            first[header_field.name] = header_field.value
    message_id, date = (first.get(name, b"") for name in KNOWN_FIELDS)
    return Known(message_id, date, message.body)


class _Nobody(Client):
    """No client stands behind these connections."""


async def append_elsewhere(
    backend: Backend,
    upstreams: Upstreams,
    place: Place,
    user: str,
    flagged: frozenset[str],
    pieces: Sequence[bytes | memoryview],
    known: Known | None = None,
) -> None:
    """`user`: the script's owner, "" for nobody. `known`: it may be there already. Raises UpstreamFailure, and Refusal where
    nobody's mail is not taken there."""
    server = place.server
    upstream = await open_imap(
        upstreams,
        server,
        _Nobody(),
        user=user or ANONYMOUS,
        password=None,
        identity=[("name", "murder"), (BY_SCRIPT, AGAIN if known else ONCE)],
        timeout_s=backend.config.command_timeout_s,
        max_message=MAX_ANSWER_OCTETS,
    )
    try:
        name = client_astring(backend.namespace.external(place.name, user))
        if known is not None and user and await _is_there(upstream, name, known):
            return
        flags = " ".join(sorted(flagged)).encode("ascii")
        tag = upstream.next_tag()
        head = b"%b APPEND %b (%b) {%d+}\r\n" % (tag, name, flags, sum(map(len, pieces)))
        reply = await upstream.stream(tag, _pieces(head, pieces))
        if not user and _lacks_rights(reply):
            raise Refusal(Code.NO_PERMISSION, f"{server}: {reply.text}")
        if not reply.is_ok:
            text = f"it takes no copy: {reply.text}"
            raise UpstreamFailure(UpstreamKind.PROTOCOL, server, text)
    finally:
        upstream.close()


async def _is_there(upstream: ImapUpstream, name: bytes, known: Known) -> bool:
    """As far as the owner may read there."""
    examined = await upstream.execute(b"EXAMINE " + name)
    if not examined.is_ok:
        return False
    count = _exists(examined)
    if not count:
        return False
    words = [
        b"HEADER %b %b" % (field_name, client_astring(value))
        for field_name, value in ((b"Message-ID", known.message_id), (b"Date", known.date))
        if value and value.isascii()
    ]
    most = MAX_SEARCHED if words else MAX_LOOKED_AT
    words.insert(0, b"%d:%d" % (max(1, count - most + 1), count))
    reply = await upstream.execute(b"UID SEARCH " + b" ".join(words))
    uids = [
        uid
        for line in reply.untagged
        if line.upper().startswith(b"* SEARCH ")
        for uid in line.split()[2:]
        if uid.isdigit()
    ]
    if not uids:
        return False
    part = bytes(known.body[: KNOWN_OCTETS + 1])
    literal = b"{%d}\r\n%b" % (len(part), part)
    last = b",".join(sorted(uids, key=int)[-MAX_LOOKED_AT:])
    items = b"BODY.PEEK[TEXT]<0.%d>" % (KNOWN_OCTETS + 1)
    reply = await upstream.execute(b"UID FETCH %b (%b)" % (last, items))
    return any(literal in line or (not part and b'""' in line) for line in reply.untagged)


def _exists(examined: Reply) -> int:
    """How many messages it has (RFC 3501 §7.3.1)."""
    for line in examined.untagged:
        words = line.split()
        if len(words) == 3 and words[1].isdigit() and words[2].upper() == b"EXISTS":
            return int(words[1])
    return 0


def _lacks_rights(reply: Reply) -> bool:
    """Also as a Cyrus says it, which asks for `i`: it has no `p` for APPEND."""
    return not reply.is_ok and (
        reply.code == b"NOPERM" or "permission denied" in reply.text.lower()
    )


async def _pieces(head: bytes, pieces: Sequence[bytes | memoryview]) -> AsyncIterator[bytes]:
    yield head
    for piece in pieces:
        for start in range(0, len(piece), PIECE_OCTETS):
            yield bytes(piece[start : start + PIECE_OCTETS])
            if not start % MAPPED_OCTETS:
                let_go(piece)
        let_go(piece)
    yield b"\r\n"
