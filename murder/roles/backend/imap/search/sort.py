"""SORT, THREAD and their UID forms (RFC 5256, RFC 5267 for RETURN, RFC 5957)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from murder.mime.sort import put_in_order
from murder.mime.thread import References, threadable
from murder.model.query.search import ReturnOption, SearchRequest, ThreadAlgorithm
from murder.model.query.thread import (
    Threadable,
    by_ordered_subject,
    by_references,
    let_go_of_threads,
)
from murder.net.turns import aside_if, free_aside, let_go_of
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.search.context import SortedResults
from murder.roles.backend.imap.search.search import (
    check,
    conclude,
    emptied_by_refusal,
    find,
    follow,
    large,
    modseq_of,
    numbers_of,
    result_of,
    save,
    wants_updates,
)
from murder.roles.backend.imap.search.sortables import each_envelope, read_keyed
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mail.search import format_esearch, format_search, parse_sort, parse_thread
from murder.wire.imap.mail.thread import format_thread

FEW_KEPT: Final = 5_000  # messages, of which some megabytes are kept
ASIDE_KEYS: Final = 1000  # compared: putting them in order takes some milliseconds
ASIDE_REFERENCES: Final = 200  # of messages, with themselves: putting them together likewise


def run_sort(dialogue: BackendImap, command: Command) -> Running:
    """SORT (RFC 5256): answers in sequence numbers."""
    return _sort(dialogue, command, by_uid=False)


def run_uid_sort(dialogue: BackendImap, command: Command) -> Running:
    """UID SORT (RFC 5256): answers in UIDs."""
    return _sort(dialogue, command, by_uid=True)


def run_thread(dialogue: BackendImap, command: Command) -> Running:
    """THREAD (RFC 5256): answers in sequence numbers."""
    return _thread(dialogue, command, by_uid=False)


def run_uid_thread(dialogue: BackendImap, command: Command) -> Running:
    """UID THREAD (RFC 5256): answers in UIDs."""
    return _thread(dialogue, command, by_uid=True)


async def _sort(dialogue: BackendImap, command: Command, by_uid: bool) -> None:
    with emptied_by_refusal(dialogue, command):
        request = await arguments(command, parse_sort, dialogue.backend.config.max_search_keys)
        check(dialogue, request, command.tag)
        await _answer(dialogue, command, request, by_uid)


async def _answer(
    dialogue: BackendImap, command: Command, request: SearchRequest, by_uid: bool
) -> None:
    results = await find(dialogue, request)
    view = dialogue.now
    async with one_of_many(dialogue, len(results.uids)):
        rows = await read_keyed(view, results.uids, request.sort)
        is_much = len(rows) * len(request.sort) > ASIDE_KEYS
        ordered = await aside_if(is_much, put_in_order, rows, request.sort)
        kept = SortedResults(request.sort, rows, ordered) if wants_updates(request) else None
        await let_go_of(rows)
    modseq = await modseq_of(view, request, results, ordered) if ordered else None
    numbers = ordered if by_uid else await numbers_of(view, ordered)
    if request.returns is None:
        dialogue.send(await large(numbers, format_search, numbers, modseq, b"SORT"))
    else:
        await save(dialogue, request, ordered)
        if request.returns != {ReturnOption.SAVE}:
            result = await large(numbers, result_of, request, numbers, modseq)
            dialogue.send(format_esearch(command.tag, by_uid, result))
        if kept is not None:
            follow(dialogue, command.tag, request, by_uid, kept)
    await conclude(dialogue, command, request, by_uid)


async def _thread(dialogue: BackendImap, command: Command, by_uid: bool) -> None:
    request = await arguments(command, parse_thread, dialogue.backend.config.max_search_keys)
    check(dialogue, request, command.tag)
    results = await find(dialogue, request)
    view = dialogue.now
    async with one_of_many(dialogue, len(results.uids)):
        references = References(len(results.uids))
        messages = [
            references.shared(threadable(message.uid if by_uid else seq, message, envelope))
            async for message, envelope in each_envelope(view, results.uids)
            if (seq := view.seq_of(message.uid)) is not None
        ]
        free_aside(references.take_ids())
        is_much = sum(1 + len(message.references) for message in messages) > ASIDE_REFERENCES
        octets = await aside_if(is_much, _threaded, messages, request.thread)
        await let_go_of(messages)
    dialogue.send(octets)
    await conclude(dialogue, command, request, by_uid)


@asynccontextmanager
async def one_of_many(dialogue: BackendImap, count: int) -> AsyncIterator[None]:
    """While what is compared of so many messages is kept, which is half a kB of each: of many a user has that of one command
    at a time, whatever their sessions ask for. Nothing in it waits for a client."""
    if count <= FEW_KEPT:
        yield
        return
    known = _busy.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    async with known.setdefault(dialogue.user.user, asyncio.Lock()):
        yield


_busy: Final[
    WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, asyncio.Lock]]
] = WeakKeyDictionary()


def _threaded(messages: Sequence[Threadable], algorithm: ThreadAlgorithm | None) -> bytes:
    is_by_subject = algorithm is ThreadAlgorithm.ORDEREDSUBJECT
    threads = by_ordered_subject(messages) if is_by_subject else by_references(messages)
    octets = format_thread(threads)
    let_go_of_threads(threads)
    return octets
