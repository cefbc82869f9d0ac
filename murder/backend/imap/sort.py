"""SORT, THREAD and their UID forms (RFC 5256, RFC 5267 for RETURN, RFC 5957)."""

import asyncio
from collections.abc import Sequence

from murder.backend.imap.context import SortedResults
from murder.backend.imap.dialogue import BackendImap
from murder.backend.imap.search import (
    check,
    find,
    follow,
    modseq_of,
    numbers_of,
    result_of,
    save,
)
from murder.backend.imap.sortables import read_envelopes, read_sortables
from murder.login.imap import Running
from murder.mime.sort import in_sort_order
from murder.mime.thread import threadable
from murder.model.search import (
    SearchRequest,
    ThreadAlgorithm,
    has_numbers,
)
from murder.model.thread import Threadable, by_ordered_subject, by_references
from murder.wire.imap.command import Command
from murder.wire.imap.search import format_esearch, format_search, parse_sort, parse_thread
from murder.wire.imap.thread import format_thread
from murder.wire.token import Scanner


def run_sort(dialogue: BackendImap, command: Command) -> Running:
    return _begin_sort(dialogue, command, by_uid=False)


def run_uid_sort(dialogue: BackendImap, command: Command) -> Running:
    return _begin_sort(dialogue, command, by_uid=True)


def run_thread(dialogue: BackendImap, command: Command) -> Running:
    return _begin_thread(dialogue, command, by_uid=False)


def run_uid_thread(dialogue: BackendImap, command: Command) -> Running:
    return _begin_thread(dialogue, command, by_uid=True)


def _begin_sort(dialogue: BackendImap, command: Command, by_uid: bool) -> Running:
    request = parse_sort(Scanner(command.octets, command.start))
    check(dialogue, request, command.tag)
    return _sort(dialogue, command, request, by_uid)


async def _sort(
    dialogue: BackendImap, command: Command, request: SearchRequest, by_uid: bool
) -> None:
    found = await find(dialogue, request)
    view = dialogue.now
    sortables = await read_sortables(view.mailbox, found.uids, request.sort)
    ordered = await asyncio.to_thread(in_sort_order, sortables, request.sort)
    modseq = await modseq_of(view, request, found, ordered) if ordered else None
    numbers = ordered if by_uid else numbers_of(view, ordered)
    if request.returns is None:
        dialogue.send(format_search(numbers, modseq, b"SORT"))
    else:
        save(dialogue, request, ordered)
        result = result_of(request, numbers, modseq)
        dialogue.send(format_esearch(command.tag, by_uid, result))
        follow(
            dialogue, command.tag, request, by_uid, SortedResults(request.sort, sortables, ordered)
        )
    await dialogue.finish(command, removals=by_uid and not has_numbers(request.key))


def _begin_thread(dialogue: BackendImap, command: Command, by_uid: bool) -> Running:
    request = parse_thread(Scanner(command.octets, command.start))
    check(dialogue, request, command.tag)
    return _thread(dialogue, command, request, by_uid)


async def _thread(
    dialogue: BackendImap, command: Command, request: SearchRequest, by_uid: bool
) -> None:
    found = await find(dialogue, request)
    view = dialogue.now
    messages = [
        threadable(message.uid if by_uid else seq, message, envelope)
        for message, envelope in await read_envelopes(view.mailbox, found.uids)
        if (seq := view.seq_of(message.uid)) is not None
    ]
    dialogue.send(await asyncio.to_thread(_threaded, messages, request.thread))
    await dialogue.finish(command, removals=by_uid and not has_numbers(request.key))


def _threaded(messages: Sequence[Threadable], algorithm: ThreadAlgorithm | None) -> bytes:
    if algorithm is ThreadAlgorithm.ORDEREDSUBJECT:
        return format_thread(by_ordered_subject(messages))
    return format_thread(by_references(messages))
