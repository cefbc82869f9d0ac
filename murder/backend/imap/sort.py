"""SORT, THREAD and their UID forms (RFC 5256, RFC 5267 for RETURN, RFC 5957)."""

import asyncio
from collections.abc import Sequence
from typing import Final

from murder.backend.imap.content import Reader
from murder.backend.imap.dialogue import BackendImap
from murder.backend.imap.messages import batches
from murder.backend.imap.search import OFFERED, find, result_of, save
from murder.backend.updates import View
from murder.errors import Code, Refusal
from murder.login.imap import Running
from murder.mime.sort import Sortable, in_sort_order, needs_envelope
from murder.mime.thread import threadable
from murder.model.message import Message, Uid
from murder.model.part import Envelope
from murder.model.search import SearchRequest, ThreadAlgorithm, uses_modseq
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
    if request.returns is not None and not request.returns <= OFFERED:
        raise Refusal(Code.CANNOT, "A RETURN option is not offered here")
    dialogue.need_rights("r")
    return _sort(dialogue, command, request, by_uid)


async def _sort(
    dialogue: BackendImap, command: Command, request: SearchRequest, by_uid: bool
) -> None:
    found = await find(dialogue, request)
    wants_envelopes = needs_envelope(request.sort)
    sortables = [
        Sortable(number, message, envelope)
        for number, message, envelope in await _read(
            dialogue.now, found.uids, by_uid, wants_envelopes
        )
    ]
    numbers = await asyncio.to_thread(in_sort_order, sortables, request.sort)
    modseq = found.modseq if uses_modseq(request.key) and numbers else None
    if request.returns is None:
        dialogue.send(format_search(numbers, modseq, b"SORT"))
    else:
        save(dialogue, request, found.uids)
        result = result_of(request, numbers, modseq)
        dialogue.send(format_esearch(command.tag, by_uid, result))
    await dialogue.finish(command, removals=by_uid)


def _begin_thread(dialogue: BackendImap, command: Command, by_uid: bool) -> Running:
    request = parse_thread(Scanner(command.octets, command.start))
    dialogue.need_rights("r")
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
    await dialogue.finish(command, removals=by_uid)


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
