"""From a login to a pipe: find the server, connect, log in there; the same for every protocol."""

import asyncio
import math
from dataclasses import dataclass
from typing import Final

from murder.config import Config
from murder.config.popmap import Place
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.address import MAX_HOPS
from murder.model.identity import Identity, Login
from murder.model.name import inbox_of
from murder.model.protocol import IMAP, ProtocolSpec
from murder.net.connection import Connection
from murder.net.outgoing.lines import LineUpstream, open_lines_at
from murder.net.outgoing.proving import GSSAPI
from murder.net.outgoing.upstream import Address, Upstreams
from murder.roles.frontend.locate import Locator
from murder.roles.frontend.multiplexor.find import Finder
from murder.roles.frontend.multiplexor.speech import Offers, Speech, Visitor, Welcome
from murder.roles.frontend.origin import checked_hops
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.wire.imap.id import HOPS_FIELD, ORIGIN_FIELD, PORT_FIELD, SESSION_FIELD

KEPT_S: Final = 10.0  # a connection that was let in waits for the client that gave the password
REMEMBERED: Final = 1000  # servers of which it is known what they offer


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a client has come from and in, as servers are told of it. `hops` are left before it is a loop; where there are
    less than none, it is one."""

    session: str
    address: str
    port: int
    local_address: str = ""
    local_port: int = 0
    hops: int = MAX_HOPS

    @classmethod
    def at(cls, connection: Connection) -> "Caller":
        return cls(
            connection.cid,
            connection.peer,
            connection.peer_port,
            *connection.local_address,
            connection.hops_left,
        )

    @property
    def came_to(self) -> tuple[str, int]:
        """Where, here."""
        return self.local_address, self.local_port

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """By the names that Dovecot has given them."""
        here = (
            ("x-connected-ip", self.local_address),
            ("x-connected-port", str(self.local_port)),
        )
        return (
            (ORIGIN_FIELD, self.address),
            (PORT_FIELD, str(self.port)),
            *(here if self.local_address else ()),
            (SESSION_FIELD, self.session),
            (HOPS_FIELD, str(self.hops)),
        )


class Multiplexor:
    """What all sessions of a worker share that are passed on as a whole."""

    def __init__(
        self, config: Config, mailboxes: MailboxList, locator: Locator, upstreams: Upstreams
    ) -> None:
        self._config = config
        self._mailboxes = mailboxes
        self._locator = locator
        self._upstreams = upstreams
        self.finder = Finder(config, mailboxes, locator)
        # what each told before a login when it was last entered
        self.offered: dict[Address, Offers] = {}
        self._odd: set[Address] = set()  # servers that are not to be entered `express`
        self._entered: dict[str, tuple[Place, str, LineUpstream, Welcome]] = {}

    def configure(self, config: Config) -> None:
        """For sessions from now on."""
        self._config = config
        self.finder.configure(config)
        self.offered.clear()
        self._odd.clear()

    # --- at once

    def at_once(self, login: Login) -> tuple[Address, str] | None:
        """How the user's server is reached, and who they are there, where that is known and the server is well, and takes a
        proxy in at one word; None where `reach` is to see to it."""
        config, upstreams = self._config, self._upstreams
        if (login.is_admin and config.master is not None) or upstreams.tells_origin:
            return None
        way = self.finder.ways.get(login.user)
        if way is None or way[0] is not login.identity or way[1] != self._mailboxes.stamp():
            stamp = self._mailboxes.stamp()
            try:
                place = self.finder.find_at_once(login)
            except UpstreamFailure:
                place = None  # `reach` comes to that too, and tells it
            if place is None:
                return None
            address, user = self._address_of(place, IMAP), place.user or login.user
            self.finder.remember_way(login, stamp, address, user)
        else:
            address, user = way[2], way[3]
        offers = self.offered.get(address)
        if (
            offers is None
            or config.multiplexor.login != "proxy"
            or b"SASL-IR" not in offers.words
            or address.within is not None
            or address.tls == "starttls"
            or address.auth == GSSAPI
            or address in self._odd
            or address.server in upstreams.health
        ):
            return None
        return address, user

    def note_odd(self, address: Address) -> None:
        """It has to be entered by all steps."""
        if len(self._odd) >= REMEMBERED:
            self._odd.clear()
        self._odd.add(address)

    # --- by all steps

    async def reach(
        self, login: Login, caller: Caller, speech: Speech, *, as_user: str = "", utf8: bool = False
    ) -> tuple[LineUpstream, Welcome] | None:
        """The user's server, entered for them; None where they are to be served by commands. Raises Refusal,
        UpstreamFailure."""
        if login.is_admin and self._config.master is not None:
            return None
        place = await self.finder.find(login)
        if place is None:
            return None
        kept = self._entered.pop(caller.session, None)
        if kept is not None and kept[:2] == (place, login.user) and not kept[2].is_lost:
            return kept[2], kept[3]
        visitor = self._visitor(login, place, caller, as_user, utf8)
        upstream, welcome = await self.enter(place, visitor, caller, speech)
        if not welcome.may_become_another or self._config.multiplexor.login != "proxy":
            return upstream, welcome
        upstream.close()  # the client could become somebody else there, with our certificate
        if self._locator.known(inbox_of(login.user)) is not None:
            return None
        text = "it offers UNAUTHENTICATE, by which clients could become others: turn that off there"
        raise upstream.failure(UpstreamKind.PROTOCOL, text)

    async def prove(self, user: str, password: bytes, caller: Caller, speech: Speech) -> bool:
        """Whether their server lets them in by this password. The connection there waits a moment for `reach`. Raises
        Refusal(NONEXISTENT) for who is nowhere, UpstreamFailure."""
        login = Login(user, Identity(user))
        place = await self.finder.find(login)
        by_commands = place is None
        if place is None:
            place = Place((await self._locator.find(inbox_of(user))).server)
        facts = caller.facts if self._config.multiplexor.tells_client else ()
        visitor = Visitor(place.user or user, password, facts)
        try:
            upstream, welcome = await self.enter(place, visitor, caller, speech)
        except UpstreamFailure as failure:
            if failure.kind is not UpstreamKind.AUTH:
                raise
            return False
        if by_commands:
            upstream.close()
            return True
        self._drop(caller.session)
        self._entered[caller.session] = (place, user, upstream, welcome)
        asyncio.get_running_loop().call_later(KEPT_S, self._drop, caller.session, upstream)
        return True

    def _drop(self, session: str, upstream: LineUpstream | None = None) -> None:
        """What nobody has come for; of this one, or of any."""
        kept = self._entered.get(session)
        if kept is not None and upstream in (None, kept[2]):
            del self._entered[session]
            kept[2].close()

    def _visitor(
        self, login: Login, place: Place, caller: Caller, as_user: str, utf8: bool
    ) -> Visitor:
        config = self._config.multiplexor
        password = None
        if config.login != "proxy":
            password = login.password
            if password is None or login.proxy or login.master:
                text = "Only a user's own password opens their mailbox here"
                raise Refusal(Code.AUTHORIZATION_FAILED, text)
        facts = caller.facts if config.tells_client else ()
        return Visitor(place.user or as_user or login.user, password, facts, utf8)

    def _address_of(self, place: Place, protocol: ProtocolSpec) -> Address:
        address = self._upstreams.address(place.server, protocol)
        return address._replace(port=place.port) if place.port else address

    async def enter(
        self, place: Place, visitor: Visitor, caller: Caller, speech: Speech
    ) -> tuple[LineUpstream, Welcome]:
        """Connect and log in. Raises UpstreamFailure, of the kind AUTH where they are not let in."""
        checked_hops(caller.hops, place.server)
        upstreams, address = self._upstreams, self._address_of(place, speech.protocol)
        origin = (caller.address, caller.port)
        known = self.offered.get(address)
        upstream = await open_lines_at(upstreams, address, speech.protocol, math.inf, origin)
        reached = upstream.connection
        if reached.peer and (reached.peer, reached.peer_port) == caller.came_to:
            reached.abort()
            text = "it is this node itself: whoever finds users there has the wrong name"
            raise upstream.failure(UpstreamKind.PROTOCOL, text)
        try:
            async with upstreams.entering(address.server):
                offers = await speech.begin(upstreams, upstream, known)
            welcome = await self._log_in(upstream, visitor, speech, offers)
        except BaseException:
            self.offered.pop(address, None)
            upstream.connection.abort()
            raise
        if offers is not known:
            if len(self.offered) >= REMEMBERED:
                self.offered.clear()
            self.offered[address] = offers
        return upstream, welcome

    async def _log_in(
        self, upstream: LineUpstream, visitor: Visitor, speech: Speech, offers: Offers
    ) -> Welcome:
        """What a login alone shows, as that the server takes its time for a wrong password, does not speak against it."""
        limit_s = self._config.frontend.upstream_login_timeout_s
        if visitor.password is not None:
            limit_s = max(limit_s, self._config.auth.timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                return await speech.log_in(self._upstreams, upstream, visitor, offers)
        except TimeoutError:
            text = f"no answer to a login in {limit_s:g} s"
            raise upstream.failure(UpstreamKind.TIMEOUT, text) from None
