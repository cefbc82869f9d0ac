"""LIST, LSUB, RLIST, RLSUB from the host's own list; SUBSCRIBE and UNSUBSCRIBE at the backend of the user's INBOX.

RFC 3501 §6.3.6 to §6.3.9, RFC 2193 §3, RFC 5258, RFC 5819, RFC 6154, RFC 8440. A plain LIST costs what the user can see,
and asks no backend; what the list cannot tell is asked of the backends concerned, of all at once.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.name import (
    MailboxName,
    collation_key,
    inbox_of,
    is_non_imap,
    name_of_key,
)
from murder.model.query.listing import ListRow, ListWalk
from murder.model.query.status import StatusItem
from murder.model.rights import rights_in
from murder.net.outgoing.relay import ImapUpstream
from murder.net.turns import Turn, in_turns
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import collect, want_modseqs
from murder.roles.frontend.imap.mailboxes.list_all import ListAll, runs_of
from murder.roles.frontend.imap.mailboxes.list_return import Beside
from murder.roles.frontend.imap.patience import Patience
from murder.roles.frontend.visible import shown_to
from murder.roles.mupdate.database.record import is_listable
from murder.serve.client import Running
from murder.serve.list import ListAnswer, read_list, tell_subscribed
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.list import ListRequest, Return, parse_list_response
from murder.wire.token import Scanner

NO_USES: Final = frozenset(
    {"\\haschildren", "\\hasnochildren", "\\noselect", "\\nonexistent", "\\noinferiors"}
    | {"\\marked", "\\unmarked", "\\subscribed", "\\remote"}
)


def run_rlist(dialogue: FrontendImap, command: Command) -> Running:
    """A client that asks so follows referrals from now on (RFC 2193 §3)."""
    dialogue.referrals_on = True
    return run_list(dialogue, command)


def run_rlsub(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 2193 §5: LSUB of a client that follows referrals."""
    dialogue.referrals_on = True
    return run_lsub(dialogue, command)


def run_list(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 3501 §6.3.8, RFC 5258, 5819: from our own copy of the list; backends are asked for what it does not have."""
    return _list(dialogue, command, b"LIST")


def run_xlist(dialogue: FrontendImap, command: Command) -> Running:
    """LIST with special uses and `\\Inbox`, as it was before RFC 6154."""
    return _list(dialogue, command, b"XLIST")


# --- LIST


async def _list(dialogue: FrontendImap, command: Command, word: bytes) -> None:
    request = await read_list(dialogue, command, word)
    if request is None:
        dialogue.send_ok(command)
        return
    if StatusItem.HIGHESTMODSEQ in request.status_items:
        await want_modseqs(dialogue, "")
    answer = _Answer(dialogue, request, word)
    await answer.tell()
    dialogue.send_ok(command, answer.outcome())


class _Answer(ListAnswer):
    """What a frontend knows: its list, and what the backends tell."""

    def __init__(self, dialogue: FrontendImap, request: ListRequest, word: bytes) -> None:
        super().__init__(dialogue, request, word)
        self._dialogue = dialogue
        self._uses: dict[MailboxName, tuple[str, ...]] = {}
        self._own = inbox_of(dialogue.user.user)
        self._missing: dict[str, str] = {}
        self._own_names: list[MailboxName] = []  # that are to be told, in collation order
        asks_beside = request.returns & {Return.STATUS, Return.MYRIGHTS, Return.METADATA}
        self._beside = Beside(dialogue, request) if asks_beside else None

    async def prepare(self) -> None:
        """Ask the backend of the user's INBOX what they subscribed to, and all with mailboxes of their own what these are
        used for. Raises Refusal, UpstreamFailure where the answer would be wrong without it."""
        self._dialogue.check_own_known()  # clients would drop what they know of it
        wants_uses = any(
            self._own.startswith(prefix) or prefix.startswith(self._own)
            for prefix in self.query.prefixes
        )
        if not (wants_uses or self.needs_subscribed):
            return
        asked = [self._ask_home(wants_uses)]
        if wants_uses:
            servers = await self._own_servers()
            home = self._dialogue.frontend.locator.known(self._own)
            others = servers - {home and home.server}
            asked += [self._ask_for_uses(server) for server in others]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        if wants_uses:  # others may have begun to move meanwhile, or may while the first are told
            own_names, _, _ = await self._look_at_own()
            self._own_names = [name for name in own_names if name.startswith(self.query.prefixes)]

    async def _own_servers(self) -> set[str]:
        """Those of all below the user's INBOX. What is just being moved is waited for; what takes longer, as where a backend
        has died in the middle, is shown (`visible`): clients would drop what they know of it."""
        patience = Patience(self._dialogue)
        while True:
            _, is_any_on_its_way, servers = await self._look_at_own()
            if not is_any_on_its_way or not await patience.pause():
                return servers

    async def _look_at_own(self) -> tuple[list[MailboxName], bool, set[str]]:
        """All that is the user's, whether some of it is on its way now (the others may go the next moment, as a move takes
        one after the other), and the servers of what is below their INBOX."""
        mailboxes, servers = self._dialogue.frontend.mailboxes, set[str]()
        inbox = mailboxes.find(self._own)
        names = [self._own] if inbox is not None else []
        is_any_on_its_way = inbox is not None and not inbox.is_active
        async for head in in_turns(mailboxes.heads_below(self._own)):
            if head.is_active:
                servers.add(head.server)
            if is_listable(head.name) and not is_non_imap(head.name):
                names.append(head.name)
                is_any_on_its_way = is_any_on_its_way or not head.is_active
        return names, is_any_on_its_way, servers

    async def _ask_home(self, wants_uses: bool) -> None:
        entry = self._dialogue.frontend.locator.known(self._own)
        async with self._without(entry.server if entry is not None else "", self.selects):
            home = await home_upstream(self._dialogue)
            if home is not None and self.needs_subscribed:
                self.subscribed = frozenset(await subscriptions(self._dialogue, home))
            if home is not None and wants_uses:
                await self._take_uses(home)

    async def _ask_for_uses(self, server: str) -> None:
        async with self._without(server):
            await self._take_uses(await self._dialogue.upstream(server))

    async def _take_uses(self, upstream: ImapUpstream) -> None:
        if b"SPECIAL-USE" in upstream.capabilities:
            self._uses.update(await _special_uses(self._dialogue, upstream))

    @asynccontextmanager
    async def _without(self, server: str, strict: bool = False) -> AsyncIterator[None]:
        """Unless it is `strict`, LIST goes on soon without what a server does not tell; a mailbox selected there has the
        usual time."""
        dialogue = self._dialogue
        is_selected = dialogue.selected is not None and dialogue.selected.server == server
        limit_s = dialogue.frontend.config.connect_timeout_s
        try:
            async with asyncio.timeout(None if is_selected or strict else limit_s):
                yield
        except (Refusal, UpstreamFailure, TimeoutError) as error:
            if strict:
                raise
            server = server or "mailbox list"
            dialogue.log.warning("list.incomplete", backend=server, problem=str(error))
            self._missing[server] = (
                error.kind.value if isinstance(error, UpstreamFailure) else "timeout"
            )

    def outcome(self) -> str:
        """The text of the tagged OK: what is missing."""
        beside = self._beside.missing if self._beside is not None else {}
        missing = {**self._missing, **beside}
        if not missing:
            return "Completed"
        servers = ", ".join(f"{server} ({why})" for server, why in sorted(missing.items()))
        return f"Completed, without the answers of these servers: {servers}"

    def visible(self) -> Iterator[MailboxName]:
        dialogue = self._dialogue
        rows = shown_to(dialogue.frontend, dialogue.user, self.query.prefixes)
        return _with_all(self._own_names, (row.name for row in rows))

    def uses(self, name: MailboxName) -> tuple[str, ...]:
        return self._uses.get(name, ())

    async def beside(self, rows: Sequence[ListRow]) -> Mapping[bytes, Sequence[bytes]]:
        if self._beside is None:
            return {}
        await self._beside.ask(row.name for row in rows if row.exists and row.name is not None)
        return self._beside.lines

    # --- an administrator's LIST of everything

    async def walk(self, walk: ListWalk) -> None:
        if self._is_everything:
            await self._tell_all(walk, ListAll(self.query, self.word))
        else:
            await super().walk(walk)

    @property
    def _is_everything(self) -> bool:
        request, query, dialogue = self.request, self.query, self._dialogue
        return (
            dialogue.user.is_admin
            and query.shows_all
            and not (request.extended or request.selection or request.returns)
            and not (dialogue.in_utf8 or query.namespace.alternative)
        )

    async def _tell_all(self, walk: ListWalk, listing: ListAll) -> None:
        dialogue = self._dialogue
        for runs in runs_of(dialogue.frontend.mailboxes, listing):
            for special, keys in runs:
                if not special:
                    self.add(walk.end())
                    await self.send()
                    dialogue.send(listing.lines(keys))
                    continue
                dialogue.send(listing.lines((), following=keys[0]))
                for key in keys:
                    self.add(walk.push(name_of_key(key)))
            await dialogue.flush()
            await dialogue.rest()
        dialogue.send(listing.lines((), following=b""))
        self.add(walk.end())
        await self.send()


def _with_all(own: Sequence[MailboxName], seen: Iterable[MailboxName]) -> Iterator[MailboxName]:
    """What is seen, and of one's own also what is not any more; both in collation order. Mostly all of that is seen."""
    left = iter(own)
    due = next(left, None)
    for name in seen:
        if name == due:
            due = next(left, None)
        elif due is not None:
            key = collation_key(name)
            while due is not None and collation_key(due) <= key:
                if due != name:
                    yield due
                due = next(left, None)
        yield name
    if due is not None:
        yield due
        yield from left


# --- what the backend of the user's INBOX knows


async def home_upstream(dialogue: FrontendImap) -> ImapUpstream | None:
    """The backend of the user's INBOX; None if they have none. Raises UpstreamFailure."""
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
    turn = Turn()
    for line in await collect(dialogue, home, command, word):
        if turn.is_over:
            await turn.rest()
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
        own_uses = tuple(attribute for attribute in attributes if attribute.lower() not in NO_USES)
        if own_uses:
            uses[name] = own_uses
    return uses


# --- LSUB, SUBSCRIBE


def run_lsub(dialogue: FrontendImap, command: Command) -> Running:
    """RFC 3501 §6.3.9: subscriptions are kept at the user's INBOX."""
    return _lsub(dialogue, command)


async def _lsub(dialogue: FrontendImap, command: Command) -> None:
    """Subscriptions are with the user's INBOX, of mailboxes that exist or not (RFC 3501 §6.3.6)."""
    request = await read_list(dialogue, command, b"LSUB")
    if request is not None:
        home = await home_upstream(dialogue)
        names = await subscriptions(dialogue, home) if home else ()
        await tell_subscribed(dialogue, request, names, lambda name: _is_there(dialogue, name))
    dialogue.send_ok(command)


def _is_there(dialogue: FrontendImap, name: MailboxName) -> bool:
    """Whether it is a mailbox that the user sees in LIST, or one that is just being moved (its row has no ACL then), and
    that they may know of.

    A list that has never been complete says of nothing that it is not there.
    """
    mailboxes, login = dialogue.frontend.mailboxes, dialogue.user
    entry = mailboxes.find(name)
    if entry is None:
        return not mailboxes.synchronised
    if not entry.is_active:
        return dialogue.may_know_of_new(name)
    return "l" in rights_in(entry, login.identity, login.is_admin)


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
