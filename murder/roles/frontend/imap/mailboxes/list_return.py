"""What LIST … RETURN (STATUS … MYRIGHTS METADATA …) tells beside each name: of the backends that have the mailboxes, of all
at once (RFC 5819, RFC 8440, RFC 9590). A backend that is away makes its answers missing, not the LIST fail (RFC 5819 §2)."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from murder.errors import BadSyntax, Refusal, UpstreamFailure
from murder.model.name import MailboxName
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import collect
from murder.wire.imap.mailboxes.list import ListRequest, Return
from murder.wire.imap.response import status_for
from murder.wire.token import Scanner, client_astring

NAMES_OF_COMMAND: Final = 50
TOLD: Final = (b"STATUS", b"MYRIGHTS", b"METADATA")


class Beside:
    """What has been told of each name, and who told nothing. `lines` by external name, in the backend's order."""

    def __init__(self, dialogue: FrontendImap, request: ListRequest) -> None:
        self._dialogue = dialogue
        self._options = _options(request)
        self.lines: dict[bytes, list[bytes]] = {}
        self.missing: dict[str, str] = {}

    async def ask(self, names: Iterable[MailboxName]) -> None:
        """Of these mailboxes, in place of what was asked before."""
        self.lines = {}
        by_server: dict[str, list[bytes]] = {}
        for name in names:
            entry = self._dialogue.frontend.locator.known(name)
            if entry is not None:
                by_server.setdefault(entry.server, []).append(self._dialogue.external(name))
        await asyncio.gather(*(self._ask_one(*asked) for asked in by_server.items()))

    async def _ask_one(self, server: str, names: Sequence[bytes]) -> None:
        dialogue = self._dialogue
        try:
            upstream = await dialogue.upstream(server)
            for at in range(0, len(names), NAMES_OF_COMMAND):
                asked = b" ".join(map(client_astring, names[at : at + NAMES_OF_COMMAND]))
                command = b'LIST "" (' + asked + b")" + self._options
                for line in await collect(dialogue, upstream, command, b"LIST", *TOLD):
                    self._take(line)
        except (Refusal, UpstreamFailure, BadSyntax) as error:
            dialogue.log.warning("list.incomplete", backend=server, problem=str(error))
            why = error.kind.value if isinstance(error, UpstreamFailure) else error.text
            self.missing[server] = why
            dialogue.send(status_for(error).line(b"*"))

    def _take(self, line: bytes) -> None:
        word = line[2:].partition(b" ")[0]
        if word.upper() == b"LIST":
            return
        scanner = Scanner(line, 2 + len(word))
        scanner.space()
        self.lines.setdefault(scanner.astring(), []).append(line)


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
