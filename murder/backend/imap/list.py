"""LIST, LSUB, SUBSCRIBE, UNSUBSCRIBE (RFC 3501 §6.3.6 to §6.3.9, RFC 3348, RFC 5258)."""

import asyncio
from collections.abc import Iterable
from typing import Final

from murder.backend.imap.dialogue import BackendImap
from murder.errors import BadSyntax
from murder.login.imap import Running
from murder.model.listing import ListQuery, ListRow, ListWalk
from murder.model.name import MailboxName, collation_key
from murder.wire.imap.command import Command
from murder.wire.imap.list import ListEntry, ListRequest, format_list, parse_list
from murder.wire.imap.mailbox import parse_mailbox
from murder.wire.token import Scanner

PAUSE_AFTER: Final = 500  # names walked before others get their turn


def run_list(dialogue: BackendImap, command: Command) -> Running:
    request = parse_list(Scanner(command.octets, command.start))
    if request.asks_separator:
        return _tell_separator(dialogue, command, request.reference, b"LIST")
    return _list(dialogue, command, request)


def run_lsub(dialogue: BackendImap, command: Command) -> Running:
    request = parse_list(Scanner(command.octets, command.start))
    if request.extended:
        raise BadSyntax("LSUB takes a reference and a pattern")
    if request.asks_separator:
        return _tell_separator(dialogue, command, request.reference, b"LSUB")
    return _lsub(dialogue, command, request)


def _tell_separator(
    dialogue: BackendImap, command: Command, reference: bytes, word: bytes
) -> Running:
    """RFC 3501 §6.3.8: an empty pattern asks for the separator and the root of the reference."""
    separator = dialogue.backend.namespace.separator
    root, found, _ = reference.partition(separator)
    entry = ListEntry(("\\Noselect",), separator, root + found if found else b"")
    dialogue.send(format_list(entry, word))
    return dialogue.conclude(command)


async def _list(dialogue: BackendImap, command: Command, request: ListRequest) -> None:
    backend, login = dialogue.backend, dialogue.user
    query = ListQuery(backend.namespace, login.user, request.reference, request.patterns)
    walk = ListWalk(query)
    separator = backend.namespace.separator
    lines: list[bytes] = []
    for count, entry in enumerate(backend.mailboxes.visible(login, query.prefixes), 1):
        lines += [_format(row, separator, request) for row in walk.push(entry.name)]
        if count % PAUSE_AFTER == 0:
            dialogue.send(b"".join(lines))
            lines.clear()
            await dialogue.flush()
            await asyncio.sleep(0)
    lines += [_format(row, separator, request) for row in walk.end()]
    dialogue.send(b"".join(lines))
    await dialogue.finish(command)


def _format(row: ListRow, separator: bytes, request: ListRequest) -> bytes:
    return format_list(ListEntry(attributes_of(row, request.extended), separator, row.external))


def attributes_of(row: ListRow, extended: bool) -> tuple[str, ...]:
    """RFC 3348's children, and what a level that is no mailbox is called."""
    children = "\\HasChildren" if row.has_children else "\\HasNoChildren"
    if row.exists:
        return (children,)
    return ("\\NonExistent" if extended else "\\Noselect", children)


async def _lsub(dialogue: BackendImap, command: Command, request: ListRequest) -> None:
    backend, login = dialogue.backend, dialogue.user
    query = ListQuery(backend.namespace, login.user, request.reference, request.patterns)
    rows = ListWalk(query).rows(await sorted_subscriptions(dialogue))
    separator = backend.namespace.separator
    lines = [
        format_list(
            ListEntry(() if row.chosen else ("\\Noselect",), separator, row.external), b"LSUB"
        )
        for row in rows
    ]
    dialogue.send(b"".join(lines))
    await dialogue.finish(command)


async def sorted_subscriptions(dialogue: BackendImap) -> Iterable[MailboxName]:
    """What the user has subscribed to, here or elsewhere in the murder, existing or not."""
    names = await dialogue.backend.store.subscriptions(dialogue.user.user)
    return sorted(names, key=collation_key)


def run_subscribe(dialogue: BackendImap, command: Command) -> Running:
    return _subscribe(dialogue, command, True)


def run_unsubscribe(dialogue: BackendImap, command: Command) -> Running:
    return _subscribe(dialogue, command, False)


async def _subscribe(dialogue: BackendImap, command: Command, subscribed: bool) -> None:
    """Whether it exists is not asked (RFC 3501 §6.3.6 leaves that open): it may live on another backend."""
    name = dialogue.name_of(parse_mailbox(Scanner(command.octets, command.start)))
    await dialogue.backend.store.subscribe(dialogue.user.user, name, subscribed)
    await dialogue.finish(command)
