"""A copy that a script wants in a mailbox on another backend: put there by IMAP, as the script's owner with the right `i`;
for a script of nobody's as anybody, with the right `p`.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.acl import ANONYMOUS
from murder.net.outgoing.exchange import Client, Reply
from murder.net.outgoing.pool import open_imap
from murder.net.outgoing.relay import ImapUpstream
from murder.net.outgoing.upstream import Upstreams
from murder.roles.backend.scripts.places import Place
from murder.roles.backend.shared import Backend
from murder.wire.token import client_astring

PIECE_OCTETS: Final = 64 * 1024
MAX_ANSWER_OCTETS: Final = 1024 * 1024
# In ID: what is put there a script wants, and no other script sees it
BY_SCRIPT: Final = "x-by-script"
ONCE: Final = "1"
AGAIN: Final = "again"  # it may be there, from before a crash: a backend of ours looks


class _Nobody(Client):
    """No client stands behind these connections."""


async def append_elsewhere(
    backend: Backend,
    upstreams: Upstreams,
    place: Place,
    user: str,
    flagged: frozenset[str],
    pieces: Sequence[bytes | memoryview],
    *,
    is_retry: bool = False,
    message_id: bytes = b"",
) -> None:
    """`user`: the script's owner, "" for nobody. `is_retry`: it may be there already, by its `message_id`. Raises
    UpstreamFailure, and Refusal where nobody's mail is not taken there."""
    server = place.server
    upstream = await open_imap(
        upstreams,
        server,
        _Nobody(),
        user=user or ANONYMOUS,
        password=None,
        identity=[("name", "murder"), (BY_SCRIPT, AGAIN if is_retry else ONCE)],
        timeout_s=backend.config.command_timeout_s,
        max_message=MAX_ANSWER_OCTETS,
    )
    try:
        name = client_astring(backend.namespace.external(place.name, user))
        if message_id and user and await _is_there(upstream, name, message_id):
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


async def _is_there(upstream: ImapUpstream, name: bytes, message_id: bytes) -> bool:
    """As far as the owner may read there."""
    if not (await upstream.execute(b"EXAMINE " + name)).is_ok:
        return False
    word = client_astring(message_id)
    reply = await upstream.execute(b"UID SEARCH HEADER Message-ID " + word)
    return any(
        line.upper().startswith(b"* SEARCH ") and line.split()[2:] for line in reply.untagged
    )


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
    yield b"\r\n"
