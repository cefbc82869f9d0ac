"""What a frontend answers itself, or relays without a thought: NOOP, ENABLE, NAMESPACE, STATUS, ACL look-ups.

RFC 3501 §6.1.2, RFC 5161, RFC 2342, RFC 4314.
"""

from murder.errors import Code, Refusal
from murder.model.name import inbox_of
from murder.roles.frontend.imap.dialogue import FrontendImap, run_selected
from murder.roles.frontend.imap.internal import body_of, execute, refusal_of, want_modseqs
from murder.roles.frontend.imap.refer import find_or_refer
from murder.roles.frontend.placement import servers
from murder.serve.client import Running
from murder.session.imap_server import State
from murder.wire.imap.command import Command
from murder.wire.imap.enable import ENABLEABLE, parse_enable
from murder.wire.imap.mailboxes.metadata import parse_getmetadata, parse_setmetadata
from murder.wire.imap.response import status_line, untagged
from murder.wire.token import Scanner


def run_noop(dialogue: FrontendImap, command: Command) -> Running:
    """Relayed where a mailbox is selected: news may come before its OK."""
    if dialogue.session.state is State.SELECTED:
        return run_selected(dialogue, command)
    dialogue.send_ok(command)
    return None


def run_enable(dialogue: FrontendImap, command: Command) -> Running:
    """Remembered, and told to each backend that is opened later."""
    asked = parse_enable(Scanner(command.octets, command.start))
    offered = {word.upper() for word in dialogue.capabilities().split()}
    new = [
        word
        for word in asked
        if word in ENABLEABLE and word in offered and word not in dialogue.enabled
    ]
    return _enable(dialogue, command, new)


async def _enable(dialogue: FrontendImap, command: Command, new: list[bytes]) -> None:
    news: list[bytes] = []
    for upstream in list(dialogue.upstreams.values()):
        reply = await upstream.execute(b"ENABLE " + b" ".join(new)) if new else None
        selected = dialogue.selected
        if reply is not None and selected is not None and selected.upstream is upstream:
            news += [line for line in reply.untagged if line[:10].upper() != b"* ENABLED "]
    dialogue.enabled |= frozenset(new)
    dialogue.wants_modseqs |= bool(dialogue.enabled & {b"CONDSTORE", b"QRESYNC"})
    answer = untagged(b" ".join([b"ENABLED", *(ENABLEABLE[word] for word in new)]))
    dialogue.send(answer + b"".join(news) + status_line(command.tag, b"OK", "Completed"))


def run_unauthenticate(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 8437."""
    Scanner(command.octets, command.start).end()
    dialogue.forget_login()
    dialogue.send_ok(command)
    return None


def run_at_mailbox(dialogue: FrontendImap, command: Command) -> Running:
    """A command whose first argument is a mailbox: STATUS, GETACL, MYRIGHTS, LISTRIGHTS, the QUOTA commands."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    return at_mailbox(dialogue, command, scanner.astring())


def run_status(dialogue: FrontendImap, command: Command) -> Running:
    """At the mailbox's backend; HIGHESTMODSEQ turns CONDSTORE on, here as well (RFC 7162 §3.1)."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    external = scanner.astring()
    if b"HIGHESTMODSEQ" not in command.octets[scanner.at :].upper():
        return at_mailbox(dialogue, command, external)
    return _status_with_modseq(dialogue, command, external)


async def _status_with_modseq(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    entry = await find_or_refer(dialogue, dialogue.name_of(external), command)
    await want_modseqs(dialogue, entry.server)
    await dialogue.relay_at(entry.server, command)


async def at_mailbox(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    """At the backend of this mailbox. Raises Refusal, UpstreamFailure."""
    entry = await find_or_refer(dialogue, dialogue.name_of(external), command)
    await dialogue.relay_at(entry.server, command)


def run_metadata(dialogue: FrontendImap, command: Command) -> Running:
    """GETMETADATA, SETMETADATA (RFC 5464): of a mailbox at its backend, of the server at that of the user's INBOX."""
    parse = parse_getmetadata if command.name == b"GETMETADATA" else parse_setmetadata
    mailbox = parse(Scanner(command.octets, command.start)).mailbox
    if not mailbox and dialogue.user.is_admin and home_of(dialogue) is None:
        return _metadata_of_servers(dialogue, command)
    return at_mailbox(dialogue, command, mailbox or b"INBOX")


async def _metadata_of_servers(dialogue: FrontendImap, command: Command) -> None:
    """An administrator who has no mail: what they set is set at every backend, and one of them is asked."""
    names = sorted(servers(dialogue.frontend))
    if not names:
        raise Refusal(
            Code.UNAVAILABLE, "No backend is known that could tell annotations of a server"
        )
    if command.name == b"SETMETADATA":
        for server in names[:-1]:
            reply = await execute(dialogue, await dialogue.upstream(server), body_of(command))
            if not reply.is_ok:
                raise refusal_of(reply)
    await dialogue.relay_at(names[-1], command)


def home_of(dialogue: FrontendImap) -> str | None:
    """The server of the user's INBOX, as the list knows it now."""
    entry = dialogue.frontend.locator.known(inbox_of(dialogue.user.user))
    return entry.server if entry else None
