"""SEARCH and UID SEARCH with all their RETURN options (RFC 3501 §6.4.4, RFC 4731, RFC 5182, RFC 9394)."""

import heapq
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, ParamSpec, TypeVar

from murder.errors import BadSyntax, Code, Refusal
from murder.model.charset import US_ASCII, UTF_8
from murder.model.message import ModSeq, Uid
from murder.model.ordering import in_order
from murder.model.query.search import (
    DEFAULT_RETURNS,
    All,
    ReturnOption,
    SearchKey,
    SearchRequest,
    SearchResult,
    has_numbers,
    uses_modseq,
    uses_saved,
)
from murder.model.seqset import Ranges, compress, compress_in_order
from murder.net.turns import Turn, aside_if
from murder.roles.backend.changes.powers import FINDS_BY_FLAG
from murder.roles.backend.changes.updates import Happened, View
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.message_sets import batches, found_by_flag, window
from murder.roles.backend.imap.search.context import Context, FoundResults, Results
from murder.roles.backend.imap.search.criteria import (
    Scene,
    bare,
    bounds,
    compile_key,
    is_bounds_only,
    needs_messages,
    settled,
    split_flags,
    weight_of,
)
from murder.roles.backend.imap.search.judging import Judge
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mail.search import (
    format_esearch,
    format_search,
    parse_cancelupdate,
    parse_search,
)
from murder.wire.imap.response import status_line
from murder.wire.token import Scanner, string

P = ParamSpec("P")
T = TypeVar("T")

ASIDE_WEIGHT: Final = 2000  # of criteria: making them ready is some milliseconds
MAX_CONTEXT_WEIGHT: Final = 2000  # of a search that is kept up to date: made ready for each change
FEW_NUMBERS: Final = 500  # looked up in less than a turn
ASIDE_NUMBERS: Final = 10_000  # found: writing them is some milliseconds
OFFERED: Final = frozenset(
    {
        ReturnOption.MIN,
        ReturnOption.MAX,
        ReturnOption.ALL,
        ReturnOption.COUNT,
        ReturnOption.SAVE,
        ReturnOption.PARTIAL,
        ReturnOption.CONTEXT,  # a hint, which changes nothing here
        ReturnOption.UPDATE,
    }
)


ASKS_SAVE: Final = re.compile(rb" RETURN \([^)]*\bSAVE\b", re.IGNORECASE)
SILENT: Final = frozenset({ReturnOption.SAVE, ReturnOption.CONTEXT, ReturnOption.UPDATE})


class Found:
    """What a search found, in UID order, and the highest mod-sequence among it."""

    __slots__ = ("modseq", "uids")

    def __init__(self) -> None:
        self.uids: array[int] = array("I")
        self.modseq = ModSeq(0)


def run_search(dialogue: BackendImap, command: Command) -> Running:
    """SEARCH (RFC 3501 §6.4.4, ESEARCH, SAVE, UPDATE, PARTIAL): answers in sequence numbers."""
    return _search(dialogue, command, by_uid=False)


def run_uid_search(dialogue: BackendImap, command: Command) -> Running:
    """UID SEARCH (RFC 3501 §6.4.8): answers in UIDs."""
    return _search(dialogue, command, by_uid=True)


@contextmanager
def emptied_by_refusal(dialogue: BackendImap, command: Command) -> Iterator[None]:
    """RFC 5182 §2.1: a NO to what asks for SAVE empties `$`, a BAD does not."""
    try:
        yield
    except Refusal:
        if ASKS_SAVE.match(command.octets, command.start):
            dialogue.saved = ()
        raise


async def _search(dialogue: BackendImap, command: Command, by_uid: bool) -> None:
    with emptied_by_refusal(dialogue, command):
        request = await arguments(command, parse_search, dialogue.backend.config.max_search_keys)
        check(dialogue, request, command.tag)
        if dialogue.manner.utf8 and request.charset.upper() not in (US_ASCII, UTF_8):
            # RFC 6855 §3
            raise BadSyntax("The character set must be UTF-8: UTF8=ACCEPT is enabled")
        await _answer(dialogue, command, request, by_uid)


def check(dialogue: BackendImap, request: SearchRequest, tag: bytes) -> None:
    """Raises Refusal, BadSyntax for what this client may not ask here."""
    if wants_updates(request) and dialogue.contexts.find(tag) is not None:
        raise BadSyntax("A search with this tag is kept up to date already: use another tag")
    if request.returns is not None and not request.returns <= OFFERED:
        raise Refusal(Code.CANNOT, "A RETURN option is not offered here")
    if has_numbers(request.key):
        dialogue.need_numbers()
    dialogue.need_rights("r")
    if uses_modseq(request.key):
        dialogue.enable_condstore()


async def _answer(
    dialogue: BackendImap, command: Command, request: SearchRequest, by_uid: bool
) -> None:
    results = await find(dialogue, request)
    view = dialogue.now
    modseq = await modseq_of(view, request, results, results.uids)
    numbers = results.uids if by_uid else await numbers_of(view, results.uids)
    if request.returns is None and dialogue.manner.imap4rev2:  # RFC 9051 §6.4.4
        request = replace(request, returns=DEFAULT_RETURNS)
    if request.returns is None:
        dialogue.send(await large(numbers, format_search, numbers, modseq))
    else:
        await save(dialogue, request, results.uids)
        if request.returns != {ReturnOption.SAVE}:
            result = await large(numbers, result_of, request, numbers, modseq)
            dialogue.send(format_esearch(command.tag, by_uid, result))
        follow(dialogue, command.tag, request, by_uid, FoundResults(results.uids))
    await conclude(dialogue, command, request, by_uid)


async def conclude(
    dialogue: BackendImap, command: Command, request: SearchRequest, by_uid: bool
) -> None:
    """The end of SEARCH, SORT, THREAD. Where numbers must stay as they are, EXPUNGEISSUED tells that some are of messages
    that others have removed, and that were left out (RFC 5530); with QRESYNC the mod-sequence tells it."""
    removals = by_uid and not has_numbers(request.key)
    stays = dialogue.now.gone and not removals and not dialogue.manner.qresync
    code = b"EXPUNGEISSUED" if stays else b""
    await dialogue.finish(command, code=code, removals=removals)


def wants_updates(request: SearchRequest) -> bool:
    return request.returns is not None and ReturnOption.UPDATE in request.returns


def follow(
    dialogue: BackendImap, tag: bytes, request: SearchRequest, by_uid: bool, results: Results
) -> None:
    """Keep what was found up to date, where UPDATE asks for it; refused, the search is answered all the same (RFC 5267
    §4.3.1)."""
    if not wants_updates(request):
        return
    view = dialogue.now
    is_light = weight_of(request.key) <= MAX_CONTEXT_WEIGHT
    saved = _saved_for(dialogue, request.key)
    key = settled(request.key, view.uids, saved) if is_light else All()
    is_light = is_light and weight_of(key) <= MAX_CONTEXT_WEIGHT  # `$` may be many ranges
    context = Context(tag, by_uid, key, results, request.update_items)
    if is_light and dialogue.contexts.add(context):
        view.on_happened = dialogue.contexts.note
        dialogue.contexts.note(Happened(vanished=list(view.gone)))  # found, and gone already
    else:
        code = b"NOUPDATE " + string(tag)
        dialogue.send(status_line(b"*", b"NO", "Too large a result to keep up to date", code))


def run_cancelupdate(dialogue: BackendImap, command: Command) -> Running:
    """RFC 5267 §4.3.5. OK for a search that is not kept up to date, too: NOUPDATE may cross this on its way."""
    dialogue.contexts.cancel(parse_cancelupdate(Scanner(command.octets, command.start)))
    return dialogue.conclude(command, "No further updates")


async def modseq_of(
    view: View, request: SearchRequest, outcome: Found, ordered: Sequence[int]
) -> ModSeq | None:
    """The highest mod-sequence of what is told, where the criteria ask for it: with MIN and MAX alone of these messages
    only (RFC 4731 §3.2)."""
    if not outcome.uids or not uses_modseq(request.key):
        return None
    ends = {ReturnOption.MIN: ordered[0], ReturnOption.MAX: ordered[-1]}
    results = (request.returns or frozenset()) - SILENT
    if not results or not results <= ends.keys():
        return outcome.modseq
    messages = await view.messages(sorted({Uid(ends[option]) for option in results}))
    return max((message.modseq for message in messages), default=outcome.modseq)


async def numbers_of(view: View, uids: Sequence[int]) -> Sequence[int]:
    """The session's numbers of these messages."""
    if len(uids) == view.exists and uids == view.uids:
        return range(1, view.exists + 1)
    if len(uids) <= FEW_NUMBERS:
        known, exists = view.uids, view.exists  # as `seq_of` does, without a call for each
        return [
            at + 1 for uid in uids if (at := bisect_left(known, uid)) < exists and known[at] == uid
        ]
    turn = Turn()
    numbers = array("I")
    for batch in batches(uids):  # type: ignore[arg-type] # UIDs
        numbers.extend(seq for uid in batch if (seq := view.seq_of(uid)) is not None)
        if turn.is_over:
            await turn.rest()
    return numbers


async def large(many: Sized, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What a function makes of so many things."""
    return await aside_if(len(many) > ASIDE_NUMBERS, function, *arguments, **named)


async def find(dialogue: BackendImap, request: SearchRequest) -> Found:
    """All messages of the view that fulfil the criteria; of those that another session has removed such as the store keeps
    for clients that count them still."""
    view = dialogue.now
    if view.is_dirty:
        await view.poll()
    results = await _find(dialogue, request)
    if view.gone:  # whatever the criteria, and whether they have looked at the messages or not
        results.uids = await large(results.uids, _without, results.uids, view.gone)
        await _add_expunged(dialogue, request, results)
    return results


async def _add_expunged(dialogue: BackendImap, request: SearchRequest, results: Found) -> None:
    view = dialogue.now
    gone = await large(view.gone, lambda: in_order(list(view.gone)))
    added: list[Uid] = []
    judge: Judge | None = None
    for batch in batches(gone):
        for message in await view.expunged(batch):
            if judge is None:
                is_heavy = weight_of(request.key) > ASIDE_WEIGHT
                scene = _scene(dialogue, request.key)
                judge = await aside_if(is_heavy, Judge, view, request.key, scene, Turn())
            if await judge.fulfils(message):
                added.append(message.uid)
                results.modseq = max(results.modseq, message.modseq)
    if added:
        known = results.uids
        results.uids = await large(
            range(len(known) + len(added)), lambda: array("I", heapq.merge(known, in_order(added)))
        )


def _scene(dialogue: BackendImap, key: SearchKey) -> Scene:
    """Raises Refusal for `$` where it is not known any more."""
    view = dialogue.now
    last = view.uids[-1] if view.uids else 0
    return Scene(view.exists, last, _saved_for(dialogue, key), datetime.now(UTC))


def _saved_for(dialogue: BackendImap, key: SearchKey) -> Ranges:
    """Likewise."""
    return dialogue.saved_result() if uses_saved(key) else ()


def _without(uids: Sequence[int], gone: Collection[int]) -> "array[int]":
    return array("I", (uid for uid in uids if uid not in gone))


async def _find(dialogue: BackendImap, request: SearchRequest) -> Found:
    view = dialogue.now
    key = request.key
    scene = _scene(dialogue, key)
    is_heavy = weight_of(key) > ASIDE_WEIGHT
    uids = await aside_if(is_heavy, bounds, key, scene, view.uids)
    flags, rest = split_flags(key)
    mailbox = view.mailbox
    if flags and (finding := FINDS_BY_FLAG.of(mailbox)) is not None:
        key = rest
        for flag, present in flags:
            uids = await found_by_flag(finding, flag, uids, present=present)  # type: ignore[arg-type] # UIDs
    results = Found()
    if is_bounds_only(key):
        results.uids = array("I", uids)
        return results
    turn = Turn()
    if not needs_messages(key):
        test = await aside_if(is_heavy, compile_key, key, scene)
        for uid in uids:
            seq = view.seq_of(uid)
            if seq is not None and test(bare(uid, seq, view.recent)):
                results.uids.append(uid)
            if turn.is_over:
                await turn.rest()
        return results
    judge = await aside_if(is_heavy, Judge, view, key, scene, turn)
    for batch in batches(uids):  # type: ignore[arg-type] # UIDs
        for message in await judge.chosen(await view.mailbox.messages(batch)):
            results.uids.append(message.uid)
            results.modseq = max(results.modseq, message.modseq)
        await dialogue.flush()  # and the end, if the client has gone
        await turn.rest()
    return results


async def save(dialogue: BackendImap, request: SearchRequest, uids: Sequence[int]) -> None:
    """Keep the result (in the order that MIN and MAX go by) for `$`, where RETURN (SAVE) asks for it."""
    if request.returns is not None and ReturnOption.SAVE in request.returns:
        kept = _saved(request, uids)
        dialogue.saved = await large(kept, lambda: compress(in_order(kept)))


def _saved(request: SearchRequest, uids: Sequence[int]) -> Sequence[int]:
    """RFC 5182 §2.1, RFC 9394 §3.2: with MIN, MAX or PARTIAL alone only these are saved."""
    returns = request.returns or frozenset()
    if not uids or returns & {ReturnOption.ALL, ReturnOption.COUNT}:
        return uids
    ends: list[int] = []
    if request.partial is not None:
        ends += window(uids, request.partial)
    if ReturnOption.MIN in returns:
        ends.append(uids[0])
    if ReturnOption.MAX in returns:
        ends.append(uids[-1])
    return ends if ends or request.partial is not None else uids


def result_of(
    request: SearchRequest, numbers: Sequence[int], modseq: ModSeq | None
) -> SearchResult:
    """What ESEARCH tells; of a SORT in its order (RFC 5267 §3.2)."""
    returns = request.returns or frozenset()
    compressed = compress_in_order if request.sort else compress
    return SearchResult(
        least=numbers[0] if numbers and ReturnOption.MIN in returns else None,
        greatest=numbers[-1] if numbers and ReturnOption.MAX in returns else None,
        count=len(numbers) if ReturnOption.COUNT in returns else None,
        all=compressed(numbers) if numbers and ReturnOption.ALL in returns else None,
        modseq=modseq,
        partial=None
        if request.partial is None
        else (request.partial, compressed(window(numbers, request.partial))),
    )
