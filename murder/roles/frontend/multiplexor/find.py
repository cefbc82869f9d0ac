"""Which server a user's whole session goes to: what the auth plugin said, a table, the mailbox list, a hash of their name.

Who has mailboxes on several servers of the list goes to none: they are served command by command.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from murder.config import Config
from murder.config.popmap import Place, parse_place
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.log import logger
from murder.model.acl import identifiers_of
from murder.model.entry import MailboxEntry
from murder.model.identity import Identity, Login
from murder.model.name import inbox_of
from murder.net.outgoing.upstream import Address
from murder.net.turns import line_up
from murder.roles.frontend.locate import Locator
from murder.roles.frontend.multiplexor.tables import Tables
from murder.roles.mupdate.database.mboxlist import MailboxList

AT_ONCE: Final = 200  # rows of the list looked at in one turn
REMEMBERED: Final = 4096  # users of whom it is known that all of theirs is at one server


class Finder:
    """See the module."""

    def __init__(self, config: Config, mailboxes: MailboxList, locator: Locator) -> None:
        self._config = config
        self._mailboxes = mailboxes
        self._locator = locator
        self._log = logger()
        self._tables = Tables()
        # of a user, by the list as it was then: the server that has all of theirs; "" where the list does not know them
        self._whole: dict[str, tuple[int, frozenset[str], str]] = {}
        # of a user, by who they are and by the list as it was then: how their server is reached, and who they are there
        self.ways: dict[str, tuple[Identity, int, Address, str]] = {}

    def read_table(self) -> None:
        """Raises Refusal with a sentence."""
        self._tables = Tables.read(self._config)
        self.ways.clear()

    async def read_table_again(self) -> None:
        """Beside everything else; what cannot be read leaves the one that there is."""
        try:
            self._tables = await asyncio.to_thread(Tables.read, self._config)
            self.ways.clear()
        except Refusal as refusal:
            self._log.error("multiplexor.table_failed", problem=refusal.text)

    def configure(self, config: Config) -> None:
        """From now on; the table is read by `read_table_again`."""
        self._config = config
        self._whole.clear()
        self.ways.clear()

    def servers(self) -> frozenset[str]:
        """Those that a table or the hash may name."""
        config = self._config.multiplexor
        servers = self._tables.servers()
        if "hash" in config.find:
            servers.update(config.hash_servers)
        return frozenset(servers)

    async def find(self, login: Login) -> Place | None:
        """Where the session goes; None where it is to be served by commands. Raises Refusal for who is nowhere,
        UpstreamFailure where that cannot be known now."""
        user = login.user
        known = self._locator.known(inbox_of(user))
        if known is not None and not await self.is_at(known, login):
            return None
        for way in self._config.multiplexor.find:
            if way == "list":
                place = await self._by_list(user, known)
            else:
                place = self._by_name(way, login)
            if place is not None:
                return place
        raise Refusal(Code.NONEXISTENT, "You have no mailbox here")

    def find_at_once(self, login: Login) -> Place | None:
        """As `find`, without waiting; None where only that can tell."""
        user, stamp = login.user, self._mailboxes.stamp()
        whole = self._whole.get(user)
        if whole is None or whole[0] != stamp or whole[1] != login.identity.groups:
            known = self._locator.known(inbox_of(user))
            if known is not None and not self._is_seen_at(known, login):
                return None
            whole = stamp, login.identity.groups, "" if known is None else known.server
            self._remember(user, whole)
        for way in self._config.multiplexor.find:
            if way == "list":
                return Place(whole[2]) if whole[2] else None
            place = self._by_name(way, login)
            if place is not None:
                return place
        return None

    def remember_way(self, login: Login, stamp: int, address: Address, user: str) -> None:
        """As `find_at_once` has just said, with a list that was this then."""
        if len(self.ways) >= REMEMBERED:
            self.ways.clear()
        self.ways[login.user] = login.identity, stamp, address, user

    def _by_name(self, way: str, login: Login) -> Place | None:
        """By what needs no list."""
        match way:
            case "host":
                return _place_of_host(login.identity.host) if login.identity.host else None
            case "table":
                return self._tables.place_of(login.user)
            case _:
                servers = self._config.multiplexor.hash_servers
                return Place(server_by_hash(login.user, servers)) if servers else None

    async def _by_list(self, user: str, known: MailboxEntry | None) -> Place | None:
        if known is not None:
            return Place(known.server)
        if self._config.master is None:
            return None
        try:
            return Place((await self._locator.find(inbox_of(user))).server)
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise
        return None

    # --- whether one server has all

    async def is_at(self, inbox: MailboxEntry, login: Login) -> bool:
        """Whether all of theirs is at the server of their INBOX: what they may see, or their own alone. Remembered as long
        as the list does not change."""
        server, groups = inbox.server, login.identity.groups
        stamp = self._mailboxes.stamp()
        if self._whole.get(login.user) == (stamp, groups, server):
            return True
        for number, entry in enumerate(self._seen_by(inbox, login), 1):
            if entry.is_active and entry.server != server:
                return False
            if number % AT_ONCE == 0:
                await line_up()
        self._remember(login.user, (stamp, groups, server))
        return True

    def _is_seen_at(self, inbox: MailboxEntry, login: Login) -> bool:
        """Whether that is seen in one turn."""
        rows = list(islice(self._seen_by(inbox, login), AT_ONCE + 1))
        server = inbox.server
        return len(rows) <= AT_ONCE and all(
            entry.server == server for entry in rows if entry.is_active
        )

    def _seen_by(self, inbox: MailboxEntry, login: Login) -> Iterable[MailboxEntry]:
        if self._config.multiplexor.shared == "own":
            return self._mailboxes.below(inbox.name)
        return self._mailboxes.visible(identifiers_of(login.user, login.identity.groups))

    def _remember(self, user: str, whole: tuple[int, frozenset[str], str]) -> None:
        if len(self._whole) >= REMEMBERED:
            self._whole.clear()
        self._whole[user] = whole


@lru_cache(maxsize=REMEMBERED)
def _place_of_host(host: str) -> Place:
    """Raises UpstreamFailure where what the auth plugin says is no server."""
    try:
        return parse_place(host)
    except ValueError as error:
        text = f"the auth plugin names no server by `host`: {error}"
        raise UpstreamFailure(UpstreamKind.RESOLVE, "authentication", text) from None


@lru_cache(maxsize=REMEMBERED)
def server_by_hash(user: str, servers: Sequence[str]) -> str:
    """The one that the user's name is nearest to: every server has its own order of users, so that one that is added or
    taken away moves only those that it gets or had (rendezvous hashing)."""
    name = user.encode("utf-8", "surrogateescape")

    def nearness(server: str) -> bytes:
        return hashlib.sha256(server.encode() + b"\0" + name).digest()

    return max(servers, key=nearness)
