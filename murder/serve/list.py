"""NAMESPACE, LIST, XLIST, LSUB, RLIST, RLSUB as both roles answer them (RFC 2342, RFC 3501 §6.3.8, RFC 3348, RFC 5258).

What exists, what is subscribed to and what stands beside a name is a role's to say; which lines a client gets of that is
said here once, so that a frontend answers octet for octet as a backend that has everything.
"""

import functools
import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from murder.errors import BadSyntax
from murder.model.name import MailboxName, Namespace, collation_key, is_non_imap
from murder.model.query.listing import INBOX, ListQuery, ListRow, ListWalk, Node
from murder.net.turns import Turn, aside_if
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.serve.imap import ImapDialogue
from murder.wire import mutf7
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.list import (
    ListEntry,
    ListRequest,
    Return,
    Selection,
    attributes_of,
    format_list,
    parse_list,
    separator_entry,
)
from murder.wire.imap.namespace import format_namespace
from murder.wire.token import Scanner

MANY: Final = 1000  # names of which more are put in order aside
REMEMBERED_OCTETS: Final = 100  # of a pattern and its reference
MOST_REMEMBERED: Final = 1024  # of those queries, 3 KiB each
ROWS: Final = 500  # of an answer that are held before the client must take some


def run_namespace(dialogue: ImapDialogue, command: Command) -> Running:
    """RFC 2342: three prefixes, one separator."""
    Scanner(command.octets, command.start).end()
    namespace = dialogue.namespace
    prefixes = (namespace.personal_prefix, namespace.users_prefix, namespace.shared_prefix)
    dialogue.send(format_namespace(*([(prefix, namespace.separator)] for prefix in prefixes)))
    return dialogue.conclude(command)


async def read_list(dialogue: ImapDialogue, command: Command, word: bytes) -> ListRequest | None:
    """What is asked. None where that is the separator alone, which is told. Raises BadSyntax."""
    request = await arguments(command, parse_list)
    if request.extended and word != b"LIST":
        raise BadSyntax(f"{word.decode()} takes a reference and a pattern")
    if request.asks_separator:
        entry = separator_entry(request.reference, dialogue.namespace.separator)
        dialogue.send(format_list(entry, word))
        return None
    return request


def query_of(dialogue: ImapDialogue, request: ListRequest) -> ListQuery:
    """Reference and patterns as this client means them. Raises Refusal(LIMIT)."""
    reference, patterns = request.reference, request.patterns
    if dialogue.in_utf8:
        reference, patterns = mutf7.from_utf8(reference), tuple(map(mutf7.from_utf8, patterns))
    most = dialogue.service.limits.max_list_wildcards
    namespace, user, asked = dialogue.namespace, dialogue.user.user, tuple(patterns)
    if len(asked) == 1 and len(reference) + len(asked[0]) <= REMEMBERED_OCTETS:
        return remembered_query(namespace, user, reference, asked, most)
    return ListQuery(namespace, user, reference, asked, most)


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def remembered_query(
    namespace: Namespace, user: str, reference: bytes, patterns: tuple[bytes, ...], most: int
) -> ListQuery:
    """A client asks the same each time, and a query does not change: a third of what a short LIST costs. What is refused is
    not kept."""
    return ListQuery(namespace, user, reference, patterns, most)


async def tell_subscribed(
    dialogue: ImapDialogue,
    request: ListRequest,
    names: Iterable[MailboxName],
    is_there: Callable[[MailboxName], bool],
) -> None:
    """LSUB of what the user has subscribed to, existing or not (RFC 3501 §6.3.9).

    `is_there`: whether it is a mailbox that the user may see. What is not keeps its line, with `\\Noselect`: as LIST
    (SUBSCRIBED) says \\NonExistent of it, which implies \\Noselect (RFC 5258 §3).
    """
    walk = ListWalk(query_of(dialogue, request))
    subscribed = {name for name in names if dialogue.user.is_admin or not is_non_imap(name)}
    ordered = await _in_order(subscribed)
    lines: list[bytes] = []
    turn = Turn()
    for name in ordered:  # most may give no line
        lines += _lsub_lines(dialogue, walk.push(name), is_there)
        if turn.is_over or len(lines) >= ROWS:
            dialogue.send(b"".join(lines))
            lines.clear()
            await dialogue.flush()
            await turn.rest()
    lines += _lsub_lines(dialogue, walk.end(), is_there)
    dialogue.send(b"".join(lines))


def _lsub_lines(
    dialogue: ImapDialogue, rows: Iterable[ListRow], is_there: Callable[[MailboxName], bool]
) -> Iterator[bytes]:
    separator = dialogue.namespace.separator
    for row in rows:
        there = row.chosen and row.name is not None and is_there(row.name)
        attributes = () if there else ("\\Noselect",)
        entry = ListEntry(attributes, separator, dialogue.shown(row.external))
        yield format_list(entry, b"LSUB")


async def _in_order(names: Iterable[MailboxName]) -> list[MailboxName]:
    """Each once, as a walk wants them."""
    several = set(names)
    return await aside_if(len(several) > MANY, sorted, several, key=collation_key)


class ListAnswer(ABC):
    """The answer to one LIST as it grows."""

    def __init__(self, dialogue: ImapDialogue, request: ListRequest, word: bytes) -> None:
        self.request = request
        self.query = query_of(dialogue, request)
        self.word = word
        self.subscribed: frozenset[MailboxName] = frozenset()
        self._client = dialogue
        self._visible: set[MailboxName] = set()
        self._rows: list[ListRow] = []
        self._has_sent = False
        self.whole: bytes | None = None  # all of it, where it was one portion
        self.nodes: list[Node] | None = None  # see `ListWalk`; a role may ask for them

    # --- what a role gives

    @abstractmethod
    async def prepare(self) -> None:
        """Whatever is not at hand; `subscribed`, where `needs_subscribed`. Raises Refusal, UpstreamFailure."""

    @abstractmethod
    def visible(self) -> Iterator[MailboxName]:
        """What the user sees below the prefixes of the query, in collation order."""

    @abstractmethod
    def uses(self, name: MailboxName) -> tuple[str, ...]:
        """Special uses, told to the owner in every LIST (RFC 6154 §2 leaves that open)."""

    @abstractmethod
    async def beside(self, rows: Sequence[ListRow]) -> Mapping[bytes, Sequence[bytes]]:
        """What RETURN wants to be told of these mailboxes (STATUS, MYRIGHTS, METADATA), by the name it is told for."""

    # --- the answer

    @property
    def selects_subscribed(self) -> bool:
        """Whether only subscriptions are wanted (RFC 5258 §3)."""
        return Selection.SUBSCRIBED in self.request.selection

    @property
    def needs_subscribed(self) -> bool:
        """Whether subscriptions must be known, to choose by them or to tell of them."""
        return self.selects_subscribed or Return.SUBSCRIBED in self.request.returns

    @property
    def selects(self) -> bool:
        """Whether not all that exists is wanted."""
        return bool(self.request.selection - {Selection.REMOTE})

    async def tell(self) -> None:
        """All of it. Raises Refusal, UpstreamFailure where it would be wrong without what `prepare` did not get."""
        await self.prepare()
        recursive = Selection.RECURSIVEMATCH in self.request.selection
        levels = not self.selects
        await self.walk(
            ListWalk(
                self.query,
                levels=levels,
                own_levels=levels,
                recursive=recursive,
                nodes=self.nodes,
            )
        )

    async def walk(self, walk: ListWalk) -> None:
        """Through all names in order, sent in portions; others have their turn between."""
        turn = Turn()
        selects, by_subscription = self.selects, self.selects_subscribed
        for name in await self._candidates():
            exists = name in self._visible if by_subscription else True
            chosen = self._is_chosen(name) if selects else True
            self.add(walk.push(name, exists=exists, chosen=chosen))
            if len(self._rows) >= ROWS:
                await self.send()
            if turn.is_over:
                await self.send()
                await turn.rest()
        self.add(walk.end())
        await self.send()

    async def _candidates(self) -> Iterator[MailboxName]:
        """Names that may be told, in collation order: what the user sees, and with SUBSCRIBED what they subscribed to."""
        if not self.selects_subscribed:
            return self.visible()
        wanted = [
            name
            for name in self.subscribed
            if name.startswith(self.query.prefixes) and not is_non_imap(name)
        ]
        merged = heapq.merge(
            self._remember(self.visible()), await _in_order(wanted), key=collation_key
        )
        return (name for name, _ in groupby(merged))

    def _remember(self, names: Iterable[MailboxName]) -> Iterator[MailboxName]:
        """Pass them on, and note that they exist (they run ahead of the walk by one at most)."""
        for name in names:
            self._visible.add(name)
            yield name

    def _is_chosen(self, name: MailboxName) -> bool:
        """Whether the mailbox fulfils the selection options."""
        if Selection.SPECIAL_USE in self.request.selection and not self.uses(name):
            return False
        return not self.selects_subscribed or name in self.subscribed

    def add(self, rows: Iterable[ListRow]) -> None:
        self._rows += rows

    async def send(self) -> None:
        """What has come together, behind each name what is told beside it."""
        rows, self._rows = self._rows, []
        answers = await self.beside(rows)
        lines: list[bytes] = []
        turn = Turn()
        for row in rows:
            if turn.is_over:
                await turn.rest()
            as_seen = self._client.shown(row.external)
            lines.append(self.line(row, as_seen))
            lines += answers.get(as_seen, ())
        octets = b"".join(lines)
        self.whole = octets if not self._has_sent else None
        self._has_sent = True
        self._client.send(octets)
        await self._client.flush()

    def line(self, row: ListRow | Node, as_seen: bytes) -> bytes:
        """Of one row, without what is told beside it."""
        request = self.request
        attributes = attributes_of(row, request.extended)
        if row.name in self.subscribed:
            attributes = (*attributes, "\\Subscribed")
        if row.name is not None and row.exists:
            attributes += self.uses(row.name)
            if self.word == b"XLIST" and row.external == INBOX:
                attributes = (*attributes, "\\Inbox")
        recursive = Selection.RECURSIVEMATCH in request.selection
        child_info = ("SUBSCRIBED",) if recursive and row.chosen_below else ()
        separator = self._client.namespace.separator
        return format_list(ListEntry(attributes, separator, as_seen, child_info), self.word)
