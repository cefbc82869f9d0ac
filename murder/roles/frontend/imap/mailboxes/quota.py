"""GETQUOTA, GETQUOTAROOT, SETQUOTA (RFC 9208): at one backend, which counts what it has itself; where mailboxes below the
root are on others too, the answer says so."""

from itertools import islice
from typing import Final

from murder.errors import Refusal
from murder.model.name import MailboxName
from murder.net.turns import in_turns
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import body_of, under_tag
from murder.roles.frontend.imap.refer import find_or_refer
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.response import status_line
from murder.wire.token import Scanner

MAX_LOOKED_AT: Final = 10_000  # mailboxes below a root


def run_quota(dialogue: FrontendImap, command: Command) -> Running:
    """GETQUOTA, GETQUOTAROOT, SETQUOTA (RFC 9208 §4.1), at the mailbox's backend."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    return _quota(dialogue, command, scanner.astring())


async def _quota(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    entry = await find_or_refer(dialogue, dialogue.name_of(external), command)
    upstream = await dialogue.upstream(entry.server)
    roots: list[MailboxName] = []

    def tell(response: bytes) -> None:
        root = _root_of(dialogue, response)
        if root is not None:
            roots.append(root)
        dialogue.send(response)

    reply = await upstream.execute(body_of(command), untagged=tell)
    servers: set[str] = set()
    for root in roots:
        servers |= await _servers_below(dialogue, root)
    elsewhere = sorted(servers - {entry.server})
    if not reply.is_ok or not elsewhere:
        dialogue.send(under_tag(command, reply))
        return
    text = (
        f"Completed; only what is on {entry.server} counts, not what is on {', '.join(elsewhere)}"
    )
    dialogue.send(status_line(command.tag, b"OK", text, reply.code))


def _root_of(dialogue: FrontendImap, response: bytes) -> MailboxName | None:
    """Of a `* QUOTA root (…)`."""
    if response[:8].upper() != b"* QUOTA ":
        return None
    scanner = Scanner(response, 7)
    scanner.space()
    try:
        return dialogue.name_of(scanner.astring())
    except Refusal:
        return None


async def _servers_below(dialogue: FrontendImap, root: MailboxName) -> set[str]:
    rows = in_turns(islice(dialogue.frontend.mailboxes.below(root), MAX_LOOKED_AT))
    return {row.server async for row in rows if row.is_active and dialogue.may_know_of(row)}
