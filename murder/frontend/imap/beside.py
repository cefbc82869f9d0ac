"""What LIST … RETURN (STATUS … MYRIGHTS METADATA …) tells beside each name: of the backends that have the mailboxes, of all
at once (RFC 5819, RFC 8440, RFC 9590). A backend that is away makes its answers missing, not the LIST fail (RFC 5819 §2)."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from murder.errors import Refusal, UpstreamFailure
from murder.frontend.imap.dialogue import FrontendImap
from murder.frontend.imap.own import collect
from murder.model.name import MailboxName
from murder.wire.imap.list import ListRequest, Return
from murder.wire.imap.response import status_for
from murder.wire.token import client_astring

NAMES_OF_COMMAND: Final = 50


async def ask_beside(
    dialogue: FrontendImap, request: ListRequest, names: Iterable[MailboxName]
) -> None:
    """Ask, and send the answers as they come."""
    by_server: dict[str, list[bytes]] = {}
    for name in names:
        entry = dialogue.frontend.locator.known(name)
        if entry is not None:
            by_server.setdefault(entry.server, []).append(dialogue.external(name))
    options = _options(request)
    await asyncio.gather(
        *(_ask_one(dialogue, server, told, options) for server, told in by_server.items())
    )


def _options(request: ListRequest) -> bytes:
    words = []
    if Return.STATUS in request.returns:
        items = " ".join(item.value for item in request.status_items)
        words.append(f"STATUS ({items})".encode())
    if Return.MYRIGHTS in request.returns:
        words.append(b"MYRIGHTS")
    if Return.METADATA in request.returns:
        entries = b" ".join(map(client_astring, request.metadata_entries))
        words.append(b"METADATA (" + entries + b")")
    return b" RETURN (" + b" ".join(words) + b")"


async def _ask_one(
    dialogue: FrontendImap, server: str, names: Sequence[bytes], options: bytes
) -> None:
    try:
        upstream = await dialogue.upstream(server)
        for at in range(0, len(names), NAMES_OF_COMMAND):
            asked = b" ".join(map(client_astring, names[at : at + NAMES_OF_COMMAND]))
            lines = await collect(
                dialogue,
                upstream,
                b'LIST "" (' + asked + b")" + options,
                *(b"LIST", b"STATUS", b"MYRIGHTS", b"METADATA"),
            )
            told = [line for line in lines if line[2:7].upper() != b"LIST "]
            dialogue.send(b"".join(told))
            await dialogue.flush()
    except (Refusal, UpstreamFailure) as error:
        dialogue.log.warning("list.incomplete", backend=server, problem=str(error))
        dialogue.send(status_for(error).line(b"*"))
