"""LIST, LSUB, RLIST, RLSUB from the host's own list; SUBSCRIBE and UNSUBSCRIBE at the backend of the user's INBOX.

RFC 3501 §6.3.6 to §6.3.9, RFC 3348, RFC 2193 §3, RFC 5258, RFC 5819, RFC 6154, RFC 8440. A plain LIST costs what the user
can see, and asks no backend; what the list cannot tell is asked of the backends concerned, of all at once.
"""

import asyncio
import heapq
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.frontend.imap.beside import Beside
from murder.frontend.imap.dialogue import FrontendImap
from murder.frontend.imap.list_all import ListAll, runs_of
from murder.frontend.imap.own import collect
from murder.login.imap import Running
from murder.model.acl import identifiers_of
from murder.model.listing import INBOX, ListQuery, ListRow, ListWalk
from murder.model.name import MailboxName, collation_key, inbox_of, name_of_key
from murder.net.relay import ImapUpstream
from murder.wire import mutf7
from murder.wire.imap.command import Command
from murder.wire.imap.list import (
    ListEntry,
    ListRequest,
    Return,
    Selection,
    attributes_of,
    format_list,
    parse_list,
    parse_list_response,
    separator_entry,
)
from murder.wire.token import Scanner

PAUSE_AFTER: Final = 500  # names walked before others get their turn
NO_USES: Final = frozenset(
    {"\\haschildren", "\\hasnochildren", "\\noselect", "\\nonexistent", "\\noinferiors"}
    | {"\\marked", "\\unmarked", "\\subscribed", "\\remote"}
)


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
    return _list(dialogue, command, request)


def run_xlist(dialogue: FrontendImap, command: Command) -> Running:
    """LIST with special uses and `\\Inbox`, as it was before RFC 6154."""
    request = parse_list(Scanner(command.octets, command.start))
    if request.extended:
        raise BadSyntax("XLIST takes a reference and a pattern")
    if request.asks_separator:
        return _tell_separator(dialogue, command, request.reference, b"XLIST")
    return _list(dialogue, command, request, b"XLIST")


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
    entry = separator_entry(reference, dialogue.frontend.namespace.separator)
    dialogue.send(format_list(entry, word))
    dialogue.send_ok(command)
    return None


def _query(dialogue: FrontendImap, request: ListRequest) -> ListQuery:
    reference, patterns = request.reference, request.patterns
    if dialogue.in_utf8:
        reference, patterns = mutf7.from_utf8(reference), tuple(map(mutf7.from_utf8, patterns))
    return ListQuery(dialogue.frontend.namespace, dialogue.user.user, reference, patterns)


# --- LIST


async def _list(
    dialogue: FrontendImap, command: Command, request: ListRequest, word: bytes = b"LIST"
) -> None:
    query = _query(dialogue, request)
    answer = _Answer(dialogue, request, word)
    await answer.prepare(query)
    selects = bool(request.selection - {Selection.REMOTE})
    recursive = Selection.RECURSIVEMATCH in request.selection
    walk = ListWalk(query, levels=not selects, own_levels=not selects, recursive=recursive)
    if answer.is_everything(query):
        await _list_all(dialogue, answer, walk, ListAll(query, word))
        dialogue.send_ok(command, answer.outcome())
        return
    for count, name in enumerate(answer.candidates(query), 1):
        answer.add(walk.push(name, exists=answer.exists(name), chosen=answer.is_chosen(name)))
        if count % PAUSE_AFTER == 0:
            await answer.send()
            await asyncio.sleep(0)
    answer.add(walk.end())
    await answer.send()
    dialogue.send_ok(command, answer.outcome())


async def _list_all(
    dialogue: FrontendImap, answer: "_Answer", walk: ListWalk, listing: ListAll
) -> None:
    """An administrator's LIST of everything."""
    for runs in runs_of(dialogue.frontend.mailboxes, listing):
        for special, keys in runs:
            if not special:
                answer.add(walk.end())
                await answer.send()
                dialogue.send(listing.lines(keys))
                continue
            dialogue.send(listing.lines((), following=keys[0]))
            for key in keys:
                answer.add(walk.push(name_of_key(key)))
        await dialogue.flush()
        await asyncio.sleep(0)
    dialogue.send(listing.lines((), following=b""))
    answer.add(walk.end())
    await answer.send()


class _Answer:
    """The answer to one LIST as it grows."""

    def __init__(self, dialogue: FrontendImap, request: ListRequest, word: bytes) -> None:
        self._word = word
        self._dialogue = dialogue
        self._request = request
        self._subscribed: frozenset[MailboxName] = frozenset()
        self._uses: dict[MailboxName, tuple[str, ...]] = {}
        self._visible: set[MailboxName] = set()
        self._rows: list[ListRow] = []
        self._own = inbox_of(dialogue.user.user)
        self._missing: dict[str, str] = {}
        asks_beside = request.returns & {Return.STATUS, Return.MYRIGHTS, Return.METADATA}
        self._beside = Beside(dialogue, request) if asks_beside else None

    @property
    def _selects_subscribed(self) -> bool:
        return Selection.SUBSCRIBED in self._request.selection

    async def prepare(self, query: ListQuery) -> None:
        """Ask the backend of the user's INBOX what only it knows. Raises Refusal, UpstreamFailure where the answer would
        be wrong without it."""
        request, dialogue = self._request, self._dialogue
        wants_subscribed = self._selects_subscribed or Return.SUBSCRIBED in request.returns
        wants_uses = any(
            self._own.startswith(prefix) or prefix.startswith(self._own)
            for prefix in query.prefixes
        )
        if not (wants_uses or wants_subscribed):
            return
        try:
            async with self._in_time():
                home = await home_upstream(dialogue)
                if home is not None and wants_subscribed:
                    self._subscribed = frozenset(await subscriptions(dialogue, home))
                if home is not None and wants_uses and b"SPECIAL-USE" in home.capabilities:
                    self._uses = await _special_uses(dialogue, home)
        except (Refusal, UpstreamFailure, TimeoutError) as error:
            if request.selection - {Selection.REMOTE}:
                raise
            entry = dialogue.frontend.locator.known(self._own)
            server = entry.server if entry is not None else "mailbox list"
            dialogue.log.warning("list.incomplete", backend=server, problem=str(error))
            self._missing[server] = (
                error.kind.value if isinstance(error, UpstreamFailure) else "timeout"
            )

    def _in_time(self) -> "asyncio.Timeout":
        """LIST goes on soon without what another server does not tell; a mailbox selected there has the usual time."""
        dialogue = self._dialogue
        entry = dialogue.frontend.locator.known(self._own)
        selected = dialogue.selected
        is_selected = entry and selected and selected.server == entry.server
        strict = bool(self._request.selection - {Selection.REMOTE})
        config = dialogue.frontend.config
        return asyncio.timeout(None if is_selected or strict else config.connect_timeout_s)

    def outcome(self) -> str:
        """The text of the tagged OK: what is missing."""
        beside = self._beside.missing if self._beside is not None else {}
        missing = {**self._missing, **beside}
        if not missing:
            return "Completed"
        servers = ", ".join(f"{server} ({why})" for server, why in sorted(missing.items()))
        return f"Completed, without what these servers would have told: {servers}"

    def is_everything(self, query: ListQuery) -> bool:
        """Whether an administrator wants a plain list of all there is."""
        request, dialogue = self._request, self._dialogue
        return (
            dialogue.user.is_admin
            and query.shows_all
            and not (request.extended or request.selection or request.returns)
            and not (dialogue.in_utf8 or query.namespace.alternative)
        )

    def candidates(self, query: ListQuery) -> Iterator[MailboxName]:
        """Names that may be told, in collation order: what the user sees, and with SUBSCRIBED what he subscribed to."""
        login = self._dialogue.user
        identifiers = identifiers_of(login.user, login.identity.groups)
        rows = self._dialogue.frontend.mailboxes.shown_to(
            None if login.is_admin else identifiers, query.prefixes
        )
        visible = (row.name for row in rows)
        if not self._selects_subscribed:
            return visible
        wanted = [name for name in self._subscribed if name.startswith(query.prefixes)]
        merged = heapq.merge(
            self._remember(visible), sorted(wanted, key=collation_key), key=collation_key
        )
        return (name for name, _ in groupby(merged))

    def _remember(self, names: Iterable[MailboxName]) -> Iterator[MailboxName]:
        for name in names:
            self._visible.add(name)
            yield name

    def exists(self, name: MailboxName) -> bool:
        return not self._selects_subscribed or name in self._visible

    def is_chosen(self, name: MailboxName) -> bool:
        """Whether the mailbox fulfils the selection options."""
        if Selection.SPECIAL_USE in self._request.selection and name not in self._uses:
            return False
        return not self._selects_subscribed or name in self._subscribed

    def add(self, rows: Iterable[ListRow]) -> None:
        self._rows += rows

    async def send(self) -> None:
        """Send what has come together, behind each name what RETURN asks of its backend."""
        rows, self._rows = self._rows, []
        if self._beside is None:
            self._dialogue.send(b"".join(map(self._line, rows)))
        else:
            names = [row.name for row in rows if row.exists and row.name is not None]
            await self._beside.ask(names)
            told = self._beside.lines
            lines: list[bytes] = []
            for row in rows:
                lines += [self._line(row), *told.get(self._dialogue.shown(row.external), ())]
            self._dialogue.send(b"".join(lines))
        await self._dialogue.flush()

    def _line(self, row: ListRow) -> bytes:
        request = self._request
        attributes = attributes_of(row, request.extended)
        if row.name in self._subscribed:
            attributes = (*attributes, "\\Subscribed")
        if row.name is not None and row.exists:
            attributes += self._uses.get(row.name, ())
            if self._word == b"XLIST" and row.external == INBOX:
                attributes = (*attributes, "\\Inbox")
        recursive = Selection.RECURSIVEMATCH in request.selection
        child_info = ("SUBSCRIBED",) if recursive and row.chosen_below else ()
        separator = self._dialogue.frontend.namespace.separator
        return format_list(
            ListEntry(attributes, separator, self._dialogue.shown(row.external), child_info),
            self._word,
        )


# --- what the backend of the user's INBOX knows


async def home_upstream(dialogue: FrontendImap) -> ImapUpstream | None:
    """The backend of the user's INBOX; None if he has none. Raises UpstreamFailure."""
    try:
        entry = await dialogue.find(inbox_of(dialogue.user.user))
    except Refusal:
        return None
    return await dialogue.upstream(entry.server)


async def subscriptions(dialogue: FrontendImap, home: ImapUpstream) -> list[MailboxName]:
    """All that the user has subscribed to, existing or not. Raises Refusal, UpstreamFailure."""
    rows = await _named(dialogue, home, b'LSUB "" "*"', b"LSUB")
    return [
        name
        for name, attributes in rows
        if "\\noselect" not in {attribute.lower() for attribute in attributes}
    ]


async def _named(
    dialogue: FrontendImap, home: ImapUpstream, command: bytes, word: bytes
) -> list[tuple[MailboxName, tuple[str, ...]]]:
    """Names and attributes that another server lists; a name that we could not have is left out."""
    rows = []
    for line in await collect(dialogue, home, command, word):
        try:
            entry = parse_list_response(Scanner(line, 6))
            rows.append((dialogue.name_of(entry.name), entry.attributes))
        except Refusal:
            continue
        except BadSyntax as error:
            raise home.failure(UpstreamKind.PROTOCOL, str(error)) from error
    return rows


async def _special_uses(
    dialogue: FrontendImap, home: ImapUpstream
) -> dict[MailboxName, tuple[str, ...]]:
    """RFC 6154: of the user's own mailboxes."""
    uses = {}
    for name, attributes in await _named(dialogue, home, b'LIST (SPECIAL-USE) "" "*"', b"LIST"):
        found = tuple(one for one in attributes if one.lower() not in NO_USES)
        if found:
            uses[name] = found
    return uses


# --- LSUB, SUBSCRIBE


async def _lsub(dialogue: FrontendImap, command: Command, request: ListRequest) -> None:
    """Subscriptions are with the user's INBOX, of mailboxes that exist or not (RFC 3501 §6.3.6)."""
    query = _query(dialogue, request)
    home = await home_upstream(dialogue)
    names = await subscriptions(dialogue, home) if home else []
    separator = dialogue.frontend.namespace.separator
    lines = [
        format_list(
            ListEntry(
                () if row.chosen else ("\\Noselect",), separator, dialogue.shown(row.external)
            ),
            b"LSUB",
        )
        for row in ListWalk(query).rows(sorted(set(names), key=collation_key))
    ]
    dialogue.send(b"".join(lines))
    dialogue.send_ok(command)


def run_subscribe(dialogue: FrontendImap, command: Command) -> Running:
    """SUBSCRIBE and UNSUBSCRIBE."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    dialogue.name_of(scanner.astring())  # refuses what can be no name
    return _subscribe(dialogue, command)


async def _subscribe(dialogue: FrontendImap, command: Command) -> None:
    home = await home_upstream(dialogue)
    if home is None:
        raise Refusal(Code.NONEXISTENT, "You have no INBOX, and so nowhere to keep subscriptions")
    await dialogue.relay_at(home.server, command)
