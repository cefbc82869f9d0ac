"""LIST, LSUB, RLIST, RLSUB from the host's own list; SUBSCRIBE and UNSUBSCRIBE at the backend of the user's INBOX.

RFC 3501 §6.3.6 to §6.3.9, RFC 3348, RFC 2193 §3. A LIST costs what the user can see, and asks no backend.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from murder.errors import BadSyntax, Code, Refusal
from murder.frontend.imap.basic import home_of
from murder.frontend.imap.dialogue import FrontendImap
from murder.login.imap import Running
from murder.model.acl import identifiers_of
from murder.model.entry import MailboxEntry
from murder.model.listing import ListQuery, ListRow, ListWalk
from murder.model.name import MailboxName, collation_key, is_deleted
from murder.wire.imap.command import Command
from murder.wire.imap.list import (
    ListEntry,
    ListRequest,
    Return,
    format_list,
    parse_list,
    parse_list_response,
)
from murder.wire.imap.response import status_line
from murder.wire.token import Scanner

PAUSE_AFTER: Final = 500  # names walked before others get their turn
ANSWERED_HERE: Final = frozenset({Return.CHILDREN})


def run_rlist(dialogue: FrontendImap, command: Command) -> Running:
    """A client that asks so follows referrals from now on (RFC 2193 §3)."""
    dialogue.referrals_on = True
    return run_list(dialogue, command)


def run_rlsub(dialogue: FrontendImap, command: Command) -> Running:
    dialogue.referrals_on = True
    return run_lsub(dialogue, command)


def run_list(dialogue: FrontendImap, command: Command) -> Running:
    request = parse_list(Scanner(command.octets, command.start))
    if request.asks_separator:
        return _tell_separator(dialogue, command, request.reference, b"LIST")
    if request.extended and (request.selection or set(request.returns) - ANSWERED_HERE):
        raise BadSyntax("This server has no LIST-EXTENDED")
    return _list(dialogue, command, request)


def run_lsub(dialogue: FrontendImap, command: Command) -> Running:
    request = parse_list(Scanner(command.octets, command.start))
    if request.extended:
        raise BadSyntax("LSUB takes a reference and a pattern")
    if request.asks_separator:
        return _tell_separator(dialogue, command, request.reference, b"LSUB")
    return _lsub(dialogue, command, request)


def _tell_separator(
    dialogue: FrontendImap, command: Command, reference: bytes, word: bytes
) -> Running:
    """RFC 3501 §6.3.8: an empty pattern asks for the separator and the root of the reference."""
    separator = dialogue.frontend.namespace.separator
    root, found, _ = reference.partition(separator)
    entry = ListEntry(("\\Noselect",), separator, root + found if found else b"")
    dialogue.send(format_list(entry, word))
    dialogue.send_ok(command)
    return None


def visible(dialogue: FrontendImap, prefixes: Sequence[bytes]) -> Iterator[MailboxEntry]:
    """What the user may see below these prefixes, in collation order."""
    login, mailboxes = dialogue.user, dialogue.frontend.mailboxes
    for prefix in prefixes:
        if login.is_admin:
            for entry in mailboxes.walk(prefix):
                if entry.is_active and not is_deleted(entry.name):
                    yield entry
        else:
            yield from mailboxes.visible(identifiers_of(login.user, login.identity.groups), prefix)


async def _list(dialogue: FrontendImap, command: Command, request: ListRequest) -> None:
    namespace = dialogue.frontend.namespace
    query = ListQuery(namespace, dialogue.user.user, request.reference, request.patterns)
    walk = ListWalk(query)
    lines: list[bytes] = []
    for count, entry in enumerate(visible(dialogue, query.prefixes), 1):
        lines += [_format(row, namespace.separator) for row in walk.push(entry.name)]
        if count % PAUSE_AFTER == 0:
            dialogue.send(b"".join(lines))
            lines.clear()
            await dialogue.flush()
            await asyncio.sleep(0)
    lines += [_format(row, namespace.separator) for row in walk.end()]
    lines.append(status_line(command.tag, b"OK", "Completed"))
    dialogue.send(b"".join(lines))


def _format(row: ListRow, separator: bytes) -> bytes:
    children = "\\HasChildren" if row.has_children else "\\HasNoChildren"
    attributes = (children,) if row.exists else ("\\Noselect", children)
    return format_list(ListEntry(attributes, separator, row.external))


async def _lsub(dialogue: FrontendImap, command: Command, request: ListRequest) -> None:
    """Subscriptions are with the user's INBOX; what no longer exists anywhere is left out."""
    home = home_of(dialogue)
    if home is None:
        dialogue.send_ok(command)
        return
    names = await _subscribed(dialogue, home)
    namespace = dialogue.frontend.namespace
    query = ListQuery(namespace, dialogue.user.user, request.reference, request.patterns)
    known = [name for name in names if dialogue.frontend.locator.known(name) is not None]
    lines = [
        format_list(
            ListEntry(() if row.chosen else ("\\Noselect",), namespace.separator, row.external),
            b"LSUB",
        )
        for row in ListWalk(query).rows(sorted(known, key=collation_key))
    ]
    dialogue.send(b"".join(lines) + status_line(command.tag, b"OK", "Completed"))


async def _subscribed(dialogue: FrontendImap, home: str) -> list[MailboxName]:
    upstream = await dialogue.upstream(home)
    reply = await upstream.ask(b'LSUB "" "*"')
    if not reply.is_ok:
        raise Refusal(Code.UNAVAILABLE, f"The backend of your INBOX says: {reply.text}")
    names = []
    for line in reply.untagged:
        if line[:7].upper() == b"* LSUB ":
            entry = parse_list_response(Scanner(line, 6))
            if "\\noselect" not in {attribute.lower() for attribute in entry.attributes}:
                names.append(dialogue.name_of(entry.name))
    return names


def run_subscribe(dialogue: FrontendImap, command: Command) -> Running:
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    return _subscribe(dialogue, command, scanner.astring())


async def _subscribe(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    if command.name == b"SUBSCRIBE":
        await dialogue.find(dialogue.name_of(external))
    home = home_of(dialogue)
    if home is None:
        raise Refusal(
            Code.NONEXISTENT, "You have no INBOX, so there is nowhere to keep subscriptions"
        )
    await dialogue.relay_at(home, command)
