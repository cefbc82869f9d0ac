"""LIST, LSUB, SUBSCRIBE, UNSUBSCRIBE (RFC 3501 §6.3.6 to §6.3.9, RFC 3348, RFC 5258, RFC 5819, RFC 8440)."""

import asyncio
import heapq
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from murder.backend.imap.dialogue import BackendImap
from murder.backend.imap.metadata import entries_of
from murder.backend.imap.status import format_status_of
from murder.backend.news import Kind, News
from murder.errors import BadSyntax, Code, Refusal
from murder.login.imap import Running
from murder.login.rights import with_old_rights
from murder.model.acl import format_rights
from murder.model.listing import INBOX, ListQuery, ListRow, ListWalk
from murder.model.name import MailboxName, collation_key, inbox_of, owner_of
from murder.wire import mutf7
from murder.wire.imap.acl import format_myrights
from murder.wire.imap.command import Command
from murder.wire.imap.list import (
    ListEntry,
    ListRequest,
    Return,
    Selection,
    attributes_of,
    format_list,
    parse_list,
    separator_entry,
)
from murder.wire.imap.mailbox import parse_mailbox
from murder.wire.imap.metadata import format_metadata
from murder.wire.token import Scanner

PAUSE_AFTER: Final = 500  # names walked before others get their turn


def run_list(dialogue: BackendImap, command: Command) -> Running:
    request = parse_list(Scanner(command.octets, command.start))
    if request.asks_separator:
        return _tell_separator(dialogue, command, request.reference, b"LIST")
    return _list(dialogue, command, request)


def run_rlist(dialogue: BackendImap, command: Command) -> Running:
    """RFC 2193 §3. Without remote mailboxes: they are in a frontend's LIST, and here a referral tells where they are."""
    return run_list(dialogue, command)


def run_rlsub(dialogue: BackendImap, command: Command) -> Running:
    return run_lsub(dialogue, command)


def run_xlist(dialogue: BackendImap, command: Command) -> Running:
    """What LIST was before RFC 6154, as Gmail made it and Cyrus has it: special uses, and `\\Inbox`."""
    request = parse_list(Scanner(command.octets, command.start))
    if request.extended:
        raise BadSyntax("XLIST takes a reference and a pattern")
    if request.asks_separator:
        return _tell_separator(dialogue, command, request.reference, b"XLIST")
    return _list(dialogue, command, request, b"XLIST")


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
    entry = separator_entry(reference, dialogue.backend.namespace.separator)
    dialogue.send(format_list(entry, word))
    return dialogue.conclude(command)


async def _list(
    dialogue: BackendImap, command: Command, request: ListRequest, word: bytes = b"LIST"
) -> None:
    await dialogue.backend.notice(inbox_of(dialogue.user.user))
    query = query_of(dialogue, request)
    answer = _Answer(dialogue, request, await _subscribed(dialogue, request), word)
    selects = bool(request.selection - {Selection.REMOTE})
    recursive = Selection.RECURSIVEMATCH in request.selection
    walk = ListWalk(query, levels=not selects, own_levels=not selects, recursive=recursive)
    for count, name in enumerate(_candidates(dialogue, query, answer), 1):
        exists = name in answer.visible if answer.selects_subscribed else True
        answer.add(walk.push(name, exists=exists, chosen=answer.is_chosen(name)))
        if count % PAUSE_AFTER == 0:
            await answer.send()
            await asyncio.sleep(0)
    answer.add(walk.end())
    await answer.send()
    await dialogue.finish(command)


def query_of(dialogue: BackendImap, request: ListRequest) -> ListQuery:
    """Reference and patterns as this client means them."""
    reference, patterns = request.reference, request.patterns
    if dialogue.manner.utf8:
        reference, patterns = mutf7.from_utf8(reference), tuple(map(mutf7.from_utf8, patterns))
    return ListQuery(dialogue.backend.namespace, dialogue.user.user, reference, patterns)


async def _subscribed(dialogue: BackendImap, request: ListRequest) -> frozenset[MailboxName]:
    """The user's subscriptions, where the request needs them."""
    if Selection.SUBSCRIBED in request.selection or Return.SUBSCRIBED in request.returns:
        return frozenset(await dialogue.backend.store.subscriptions(dialogue.user.user))
    return frozenset()


def _candidates(
    dialogue: BackendImap, query: ListQuery, answer: "_Answer"
) -> Iterator[MailboxName]:
    """Names that may be told, in collation order: what the user sees, and with SUBSCRIBED what he subscribed to."""
    visible = (
        entry.name for entry in dialogue.backend.mailboxes.visible(dialogue.user, query.prefixes)
    )
    if not answer.selects_subscribed:
        return visible
    wanted = [name for name in answer.subscribed if name.startswith(query.prefixes)]
    merged = heapq.merge(
        answer.remember(visible), sorted(wanted, key=collation_key), key=collation_key
    )
    return (name for name, _ in groupby(merged))


class _Answer:
    """The answer to one LIST as it grows."""

    def __init__(
        self,
        dialogue: BackendImap,
        request: ListRequest,
        subscribed: frozenset[MailboxName],
        word: bytes,
    ) -> None:
        self._word = word
        self.subscribed = subscribed
        self.visible: set[MailboxName] = set()
        self._dialogue = dialogue
        self._request = request
        self._rows: list[ListRow] = []

    @property
    def selects_subscribed(self) -> bool:
        return Selection.SUBSCRIBED in self._request.selection

    def remember(self, names: Iterable[MailboxName]) -> Iterator[MailboxName]:
        """Pass them on, and note that they exist (they run ahead of the walk by one at most)."""
        for name in names:
            self.visible.add(name)
            yield name

    def is_chosen(self, name: MailboxName) -> bool:
        """Whether the mailbox fulfils the selection options."""
        if Selection.SPECIAL_USE in self._request.selection and not self._uses(name):
            return False
        return not self.selects_subscribed or name in self.subscribed

    def _uses(self, name: MailboxName) -> tuple[str, ...]:
        """Special uses, told to the owner in every LIST (RFC 6154 §2 leaves that open)."""
        user = self._dialogue.user.user
        if owner_of(name) != user:
            return ()
        return self._dialogue.backend.annotations.special_uses(name, user)

    def add(self, rows: Iterable[ListRow]) -> None:
        self._rows += rows

    async def send(self) -> None:
        """Send what has come together, with what RETURN asks for beside each name."""
        rows, self._rows = self._rows, []
        lines: list[bytes] = []
        for row in rows:
            lines.append(self._line(row))
            if row.exists and row.name is not None:
                lines += await self._beside(self._dialogue.shown(row.external), row.name)
        self._dialogue.send(b"".join(lines))
        await self._dialogue.flush()

    def _line(self, row: ListRow) -> bytes:
        request = self._request
        attributes = attributes_of(row, request.extended)
        if row.name in self.subscribed:
            attributes = (*attributes, "\\Subscribed")
        if row.name is not None and row.exists:
            attributes += self._uses(row.name)
            if self._word == b"XLIST" and row.external == INBOX:
                attributes = (*attributes, "\\Inbox")
        recursive = Selection.RECURSIVEMATCH in request.selection
        child_info = ("SUBSCRIBED",) if recursive and row.chosen_below else ()
        separator = self._dialogue.backend.namespace.separator
        return format_list(
            ListEntry(attributes, separator, self._dialogue.shown(row.external), child_info),
            self._word,
        )

    async def _beside(self, external: bytes, name: MailboxName) -> list[bytes]:
        """`* STATUS` and `* MYRIGHTS` of one mailbox (RFC 5819, RFC 8440); nothing where it has just gone."""
        dialogue, returns = self._dialogue, self._request.returns
        lines: list[bytes] = []
        try:
            found = dialogue.backend.mailboxes.look(name, dialogue.user)
            if Return.MYRIGHTS in returns:
                rights = format_rights(with_old_rights(found.rights))
                lines.append(format_myrights(external, rights))
            if Return.METADATA in returns and "r" in found.rights:
                lines.append(self._metadata(external, name))
            if Return.STATUS in returns and "r" in found.rights:
                mailbox = await dialogue.backend.store.open(name, dialogue.user.user)
                try:
                    items = self._request.status_items
                    lines.append(await format_status_of(dialogue, external, mailbox, items))
                finally:
                    mailbox.close()
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise
        return lines

    def _metadata(self, external: bytes, name: MailboxName) -> bytes:
        """RFC 9590: the entries asked for, NIL where they are not set."""
        present = entries_of(self._dialogue, name)
        asked = [entry.decode("latin-1").lower() for entry in self._request.metadata_entries]
        return format_metadata(external, {entry: present.get(entry) for entry in asked})


async def _lsub(dialogue: BackendImap, command: Command, request: ListRequest) -> None:
    backend = dialogue.backend
    query = query_of(dialogue, request)
    rows = ListWalk(query).rows(await sorted_subscriptions(dialogue))
    separator = backend.namespace.separator
    lines = [
        format_list(
            ListEntry(
                () if row.chosen else ("\\Noselect",), separator, dialogue.shown(row.external)
            ),
            b"LSUB",
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
    user = dialogue.user.user
    await dialogue.backend.store.subscribe(user, name, subscribed)
    with dialogue.causing((Kind.SUBSCRIBED, name)):
        dialogue.backend.tracker.tell(News(Kind.SUBSCRIBED, name, user=user))
    await dialogue.finish(command)
