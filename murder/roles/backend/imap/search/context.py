"""Searches that are kept up to date: what came to their results, and what left them (RFC 5267 §4.3).

A context is judged anew message by message, as these arrive or change: a mailbox is never searched again. Knows the
session's view, and nothing of its connection.
"""

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, MutableSet, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from murder.mime.sort import Keyed, put_in_order
from murder.model.message import MAX_UID, Message, Uid
from murder.model.ordering import each_once, in_order
from murder.model.pieces import put_into, set_of, slices, take_off
from murder.model.query.fetch import FetchItem
from murder.model.query.search import SearchKey, SortOrder
from murder.model.seqset import compress
from murder.net.turns import Turn, aside, aside_if
from murder.roles.backend.changes.looking import PART
from murder.roles.backend.changes.updates import MANY, Happened, View
from murder.roles.backend.imap.search.criteria import Scene
from murder.roles.backend.imap.search.judging import Judge
from murder.roles.backend.imap.search.sortables import read_keyed
from murder.wire.imap.mail.search import format_context_change

MAX_CONTEXTS: Final = 16  # of one session; RFC 5267 §4.3.1 wants one at least
MAX_FOUND: Final = 250_000  # results of a SEARCH that are kept: a megabyte
# results of a SORT that are kept, with what is compared of them: some 5 MB
MAX_SORTED: Final = 20_000
FEW: Final = 64  # so many are cut out or put in one by one; more rebuild the array

Moves = Sequence[
    tuple[int, int]
]  # position (0: there is no order) and UID, in the order the client has to go by


class Results(Protocol):
    """The messages that a search has found, in its order."""

    @property
    def too_many(self) -> bool: ...

    def __contains__(self, uid: object) -> bool: ...

    def remove(self, uids: Sequence[int]) -> Moves: ...

    async def add(self, view: View, uids: Sequence[int]) -> Moves: ...


class FoundResults:
    """Of SEARCH: by UID, told without positions."""

    def __init__(self, uids: Iterable[int]) -> None:
        self._uids = array("I", uids)
        self.too_many = len(self._uids) > MAX_FOUND

    def __contains__(self, uid: object) -> bool:
        if not isinstance(uid, int):
            return False
        at = bisect_left(self._uids, uid)
        return at < len(self._uids) and self._uids[at] == uid

    def remove(self, uids: Sequence[int]) -> Moves:
        if len(uids) > FEW:
            gone = set_of(uids)
            self._uids = array("I", (uid for uid in self._uids if uid not in gone))
        else:
            for uid in uids:
                del self._uids[bisect_left(self._uids, uid)]
        return [(0, uid) for uid in in_order(uids)]

    async def add(self, view: View, uids: Sequence[int]) -> Moves:
        return await aside_if(len(uids) > MANY, self._add, uids)

    def _add(self, uids: Sequence[int]) -> Moves:
        ordered = in_order(uids)
        if len(uids) > FEW:
            self._uids = array("I", heapq.merge(self._uids, ordered))
        else:
            for uid in uids:
                self._uids.insert(bisect_left(self._uids, uid), uid)
        return [(0, uid) for uid in ordered]


class SortedResults:
    """Of SORT: in the order asked for, told with positions."""

    def __init__(
        self, orders: Sequence[SortOrder], rows: Iterable[Keyed], ordered: Sequence[int]
    ) -> None:
        self._orders = orders
        self.too_many = len(ordered) > MAX_SORTED
        self._ordered = [] if self.too_many else list(ordered)
        self._rows = {} if self.too_many else {row.number: row for row in rows}

    def __contains__(self, uid: object) -> bool:
        return uid in self._rows

    def remove(self, uids: Sequence[int]) -> Moves:
        moves: list[tuple[int, int]] = []
        gone = set_of(uids)
        for at, uid in enumerate(self._ordered, 1):
            if uid in gone:
                del self._rows[uid]
                moves.append((at - len(moves), uid))  # where it is when those before it have gone
        self._ordered = [uid for uid in self._ordered if uid not in gone]
        return moves

    async def add(self, view: View, uids: Sequence[int]) -> Moves:
        added = await read_keyed(view, sorted(uids), self._orders)
        self._rows.update((message.number, message) for message in added)
        rows = list(self._rows.values())
        self._ordered = await aside(put_in_order, rows, self._orders)
        new = {message.number for message in added}
        return [(at, uid) for at, uid in enumerate(self._ordered, 1) if uid in new]


@dataclass(slots=True)
class Context:
    """One search that is kept up to date. `items`: what is told of a new message that it finds (RFC 5465 §7)."""

    tag: bytes
    by_uid: bool
    key: SearchKey
    results: Results
    items: tuple[FetchItem, ...] = ()

    def told(self, view: View, added: bool, moves: Moves) -> bytes:
        """ADDTO or REMOVEFROM, in this client's numbers."""
        numbered = [
            (position, uid if self.by_uid else number)
            for position, uid in moves
            if (number := view.seq_of(uid)) is not None
        ]
        if not numbered:
            return b""
        return format_context_change(self.tag, self.by_uid, added, _runs(numbered, added))


@dataclass(slots=True)
class News:
    """What has to be told behind the changes themselves: the responses, and the items of new messages that were found."""

    octets: bytes = b""
    items: dict[Uid, tuple[FetchItem, ...]] = field(default_factory=dict)


class Contexts:
    """All contexts of one selected mailbox."""

    def __init__(self) -> None:
        self._contexts: dict[bytes, Context] = {}
        self._changed: MutableSet[Uid] = set()
        self._vanished: MutableSet[Uid] = set()

    def __bool__(self) -> bool:
        return bool(self._contexts)

    def find(self, tag: bytes) -> Context | None:
        return self._contexts.get(tag)

    def add(self, context: Context) -> bool:
        """Whether it will be kept up to date: False where there are too many of them, or of its results."""
        if len(self._contexts) >= MAX_CONTEXTS or context.results.too_many:
            return False
        self._contexts[context.tag] = context
        return True

    @property
    def tags(self) -> Iterable[bytes]:
        return tuple(self._contexts)

    def cancel(self, tags: Iterable[bytes]) -> None:
        """CANCELUPDATE (RFC 5267 §4.3.2); tags that are not known are passed over."""
        for tag in tags:
            self._contexts.pop(tag, None)

    def note(self, happened: Happened) -> None:
        """The view's `on_happened`."""
        if self._contexts:
            self._changed = put_into(self._changed, happened.changed)
            self._vanished = put_into(self._vanished, happened.vanished)

    def removals(self, view: View) -> bytes:
        """REMOVEFROM for messages that are gone: told as soon as it is known, for their numbers are still valid."""
        vanished, self._vanished = in_order(list(self._vanished)), set()
        lines: list[bytes] = []
        take_off(self._changed, vanished)
        for context in self._contexts.values():
            gone = [uid for uid in vanished if uid in context.results]
            if gone:
                lines.append(context.told(view, False, context.results.remove(gone)))
        return b"".join(lines)

    async def changes(self, view: View, arrived: Sequence[Uid]) -> News:
        """REMOVEFROM and ADDTO for new flags and new messages; after the client has been told of these."""
        news = News()
        if not self._contexts:
            return news
        changed, self._changed = self._changed, set()
        if not changed and not arrived:
            return news
        is_much = len(changed) + len(arrived) > MANY
        uids = await aside_if(is_much, lambda: each_once([*changed, *arrived]))
        for some in slices(uids, MANY):
            await self._judge(view, some, arrived, news)
        return news

    async def _judge(
        self, view: View, uids: Sequence[int], arrived: Sequence[Uid], news: News
    ) -> None:
        """Some of what has changed or arrived."""
        messages: dict[Uid, Message] = {}
        for some in slices(uids, PART):
            asked = [Uid(uid) for uid in some]
            messages |= {message.uid: message for message in await view.mailbox.messages(asked)}
        first_new = arrived[0] if arrived else MAX_UID
        turn = Turn()
        for context in self._contexts.values():
            matching = await _matching(view, context.key, messages, turn)
            left, came = _moved(context.results, messages, matching)
            if left:
                moves = context.results.remove(left)
                news.octets += context.told(view, False, moves)
            if came:
                moves = await context.results.add(view, came)
                news.octets += context.told(view, True, moves)
            for uid in came if context.items else ():
                if uid >= first_new:
                    news.items[uid] = (*news.items.get(uid, ()), *context.items)
            if turn.is_over:
                await turn.rest()


def _moved(
    results: Results, messages: Mapping[Uid, Message], matching: Collection[Uid]
) -> tuple[list[Uid], list[Uid]]:
    """Who leaves the results, who comes to them."""
    left = [uid for uid in messages if uid in results and uid not in matching]
    return left, in_order([uid for uid in matching if uid not in results])


async def _matching(
    view: View, key: SearchKey, messages: Mapping[Uid, Message], turn: Turn
) -> set[Uid]:
    """Those of the messages, known to the client, that fulfil the criteria."""
    scene = Scene(view.exists, view.uids[-1] if view.uids else 0, (), datetime.now(UTC))
    judge = Judge(view, key, scene, turn)
    return {message.uid for message in await judge.chosen(list(messages.values()))}


def _runs(moves: Moves, added: bool) -> list[tuple[int, tuple[tuple[int, int], ...]]]:
    """Positions with sets of numbers, neighbours together: RFC 5267 §4.3.3 and §4.3.4 prefer that."""
    if all(position == 0 for position, _ in moves):
        return [(0, compress(in_order([number for _, number in moves])))]
    runs: list[tuple[int, list[int]]] = []
    for position, number in moves:
        if runs:
            start, numbers = runs[-1]
            expected = start + len(numbers) if added else start
            if position == expected and number == numbers[-1] + 1:
                numbers.append(number)
                continue
        runs.append((position, [number]))
    return [(start, ((numbers[0], numbers[-1]),)) for start, numbers in runs]
