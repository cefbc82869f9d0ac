"""What a frontend answers itself, or relays without a thought: NOOP, ENABLE, NAMESPACE, IDLE, STATUS, ACL look-ups.

RFC 3501 §6.1.2, RFC 5161, RFC 2342, RFC 2177, RFC 4314.
"""

from murder.errors import BadSyntax
from murder.frontend.imap.dialogue import ENABLEABLE, FrontendImap, run_selected
from murder.frontend.imap.refer import find_or_refer
from murder.login.imap import Running
from murder.model.name import inbox_of
from murder.session.imap_server import State
from murder.wire.imap.command import Command
from murder.wire.imap.metadata import parse_getmetadata, parse_setmetadata
from murder.wire.imap.namespace import format_namespace
from murder.wire.imap.response import continuation, status_line, untagged
from murder.wire.token import Scanner


def run_noop(dialogue: FrontendImap, command: Command) -> Running:
    if dialogue.session.state is State.SELECTED:
        return run_selected(dialogue, command)
    dialogue.send_ok(command)
    return None


def run_namespace(dialogue: FrontendImap, command: Command) -> Running:
    Scanner(command.octets, command.start).end()
    namespace = dialogue.frontend.namespace
    separator = namespace.separator
    dialogue.send(
        format_namespace(
            [(namespace.personal_prefix, separator)],
            [(namespace.users_prefix, separator)],
            [(namespace.shared_prefix, separator)],
        )
        + status_line(command.tag, b"OK", "Completed")
    )
    return None


def run_enable(dialogue: FrontendImap, command: Command) -> Running:
    """Remembered, and told to each backend that is opened later."""
    scanner = Scanner(command.octets, command.start)
    words = set()
    while not scanner.at_end():
        scanner.space()
        words.add(scanner.word())
    if not words:
        raise BadSyntax("ENABLE takes capabilities")
    return _enable(dialogue, command, words & ENABLEABLE & set(dialogue.capabilities().split()))


async def _enable(dialogue: FrontendImap, command: Command, words: set[bytes]) -> None:
    told = b" ".join(sorted(words))
    if words:
        for upstream in list(dialogue.upstreams.values()):
            await upstream.ask(b"ENABLE " + told)
        dialogue.enabled |= words
    dialogue.send(
        untagged((b"ENABLED " + told).strip()) + status_line(command.tag, b"OK", "Completed")
    )


def run_at_mailbox(dialogue: FrontendImap, command: Command) -> Running:
    """A command whose first argument is a mailbox: STATUS, GETACL, MYRIGHTS, LISTRIGHTS, the QUOTA commands."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    return _at_mailbox(dialogue, command, scanner.astring())


async def _at_mailbox(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    entry = await find_or_refer(dialogue, dialogue.name_of(external), command)
    await dialogue.relay_at(entry.server, command)


def run_metadata(dialogue: FrontendImap, command: Command) -> Running:
    """GETMETADATA, SETMETADATA (RFC 5464): of a mailbox at its backend, of the server at that of the user's INBOX."""
    parse = parse_getmetadata if command.name == b"GETMETADATA" else parse_setmetadata
    mailbox = parse(Scanner(command.octets, command.start)).mailbox
    return _at_mailbox(dialogue, command, mailbox or b"INBOX")


def run_idle(dialogue: FrontendImap, command: Command) -> Running:
    Scanner(command.octets, command.start).end()
    return _idle(dialogue, command)


async def _idle(dialogue: FrontendImap, command: Command) -> None:
    """At the backend of the selected mailbox; without one there is nothing to tell but that we wait."""
    selected = dialogue.selected
    if selected is None:
        dialogue.send(continuation(b"idling"))
        await _until_done(dialogue)
        dialogue.send_ok(command)
        return
    upstream = selected.upstream
    upstream.has_no_hurry = True
    try:
        upstream.relay(command.tag, command.octets)  # its "+" and all news pass to the client
        await _until_done(dialogue)
    finally:
        upstream.has_no_hurry = False
    if not upstream.is_lost:
        upstream.write(b"DONE\r\n")
        await dialogue.settle()


async def _until_done(dialogue: FrontendImap) -> None:
    line = await dialogue.next_line(dialogue.service.limits.idle_timeout_s)
    if line.strip().upper() != b"DONE":
        raise BadSyntax("IDLE ends with DONE")


def home_of(dialogue: FrontendImap) -> str | None:
    """The server of the user's INBOX, as the list knows it now."""
    entry = dialogue.frontend.locator.known(inbox_of(dialogue.user.user))
    return entry.server if entry else None
