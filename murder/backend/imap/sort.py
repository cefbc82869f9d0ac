"""SORT, THREAD and their UID forms (RFC 5256, RFC 5267 for RETURN, RFC 5957)."""

import asyncio
from collections.abc import Sequence
from typing import Final

from murder.backend.imap.content import Reader
from murder.backend.imap.dialogue import BackendImap
from murder.backend.imap.messages import batches
from murder.backend.imap.search import check, find, modseq_of, numbers_of, result_of, save
from murder.backend.updates import View
from murder.errors import Code, Refusal
from murder.login.imap import Running
from murder.mime.sort import Sortable, in_sort_order, needs_envelope
from murder.mime.thread import threadable
from murder.model.message import Message, Uid
from murder.model.part import Envelope
from murder.model.search import SearchRequest, SortOrder, ThreadAlgorithm, has_numbers
from murder.model.thread import Threadable, by_ordered_subject, by_references
from murder.wire.imap.command import Command
from murder.wire.imap.search import format_esearch, format_search, parse_sort, parse_thread
from murder.wire.imap.thread import format_thread
from murder.wire.token import Scanner

NO_ENVELOPE: Final = Envelope()


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
    check(dialogue, request)
    return _sort(dialogue, command, request, by_uid)


async def _sort(
    dialogue: BackendImap, command: Command, request: SearchRequest, by_uid: bool
) -> None:
    found = await find(dialogue, request)
    view = dialogue.now
    sortables = await read_sortables(view, found.uids, request.sort)
    ordered = await asyncio.to_thread(in_sort_order, sortables, request.sort)
    modseq = await modseq_of(view, request, found, ordered) if ordered else None
    numbers = ordered if by_uid else numbers_of(view, ordered)
    if request.returns is None:
        dialogue.send(format_search(numbers, modseq, b"SORT"))
    else:
        save(dialogue, request, ordered)
        result = result_of(request, numbers, modseq)
        dialogue.send(format_esearch(command.tag, by_uid, result))
    await dialogue.finish(command, removals=by_uid and not has_numbers(request.key))


async def read_sortables(
    view: View, uids: Sequence[int], orders: Sequence[SortOrder]
) -> list[Sortable]:
    """Messages with what the sort keys compare, numbered by UID; such as do not exist are left out."""
    rows = await _read(view, uids, True, needs_envelope(orders))
    return [Sortable(uid, message, envelope) for uid, message, envelope in rows]


def _begin_thread(dialogue: BackendImap, command: Command, by_uid: bool) -> Running:
    request = parse_thread(Scanner(command.octets, command.start))
    check(dialogue, request)
    return _thread(dialogue, command, request, by_uid)


async def _thread(
    dialogue: BackendImap, command: Command, request: SearchRequest, by_uid: bool
) -> None:
    found = await find(dialogue, request)
    messages = [
        threadable(number, message, envelope)
        for number, message, envelope in await _read(dialogue.now, found.uids, by_uid, True)
    ]
    dialogue.send(await asyncio.to_thread(_threaded, messages, request.thread))
    await dialogue.finish(command, removals=by_uid and not has_numbers(request.key))


def _threaded(messages: Sequence[Threadable], algorithm: ThreadAlgorithm | None) -> bytes:
    if algorithm is ThreadAlgorithm.ORDEREDSUBJECT:
        return format_thread(by_ordered_subject(messages))
    return format_thread(by_references(messages))


async def _read(
    view: View, uids: Sequence[int], by_uid: bool, wants_envelopes: bool
) -> list[tuple[int, Message, Envelope]]:
    """Number, message and envelope of each that still exists."""
    rows: list[tuple[int, Message, Envelope]] = []
    for batch in batches([Uid(uid) for uid in uids]):
        for message in await view.mailbox.messages(batch):
            seq = view.seq_of(message.uid)
            if seq is None:
                continue
            envelope = NO_ENVELOPE
            if wants_envelopes:
                envelope = await _envelope(view, message)
            rows.append((message.uid if by_uid else seq, message, envelope))
        await asyncio.sleep(0)
    return rows


async def _envelope(view: View, message: Message) -> Envelope:
    reader = Reader(view.mailbox, message)
    try:
        return (await reader.part()).envelope or NO_ENVELOPE
    except Refusal as refusal:
        if refusal.code is not Code.EXPUNGE_ISSUED:
            raise
        return NO_ENVELOPE
    finally:
        reader.close()
