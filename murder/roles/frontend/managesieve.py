"""ManageSieve at a frontend: log the user in, then each command goes to the backend of their INBOX as it is, and its answer
comes back as it is (RFC 5804). Where that backend is lost the session lives on, and the next command finds it again.

What a backend says of the language of scripts is known from its greeting; before the login that is told which all have.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import ClassVar, Final

from murder.api.referral import ReferralQuestion
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.model.identity import Login
from murder.model.name import inbox_of
from murder.model.protocol import SIEVE
from murder.net.bulk import SLICE_OCTETS
from murder.net.connection import Connection
from murder.net.dialogue import CLOSE_GRACE_S
from murder.net.outgoing.lines import LineUpstream, open_lines
from murder.net.outgoing.managesieve import ANNOUNCED, MAX_SHOWN, begin, enter, execute, tell
from murder.net.outgoing.proving import Proof
from murder.roles.frontend.multiplexor.become import enter_as_pipe
from murder.roles.frontend.multiplexor.sieve import SIEVE_SPEECH, XCLIENT
from murder.roles.frontend.multiplexor.speech import Welcome
from murder.roles.frontend.origin import xclient_line
from murder.roles.frontend.placement import servers
from murder.roles.frontend.shared import Frontend
from murder.serve.line import LOGGED_IN
from murder.serve.managesieve import COMMON, Capability, Row, SieveDialogue
from murder.serve.service import ClientService
from murder.session.sasl import plain_response
from murder.wire.managesieve import (
    Command,
    Kind,
    client_string,
    format_string,
    format_url,
    parse_status,
)

MOST_ASKED: Final = 20  # of the servers that a table names
LARGE_OCTETS: Final = 64 * 1024  # of a command: what is longer is asked about first
MAX_NAME: Final = 1024
FIRST_LOOK_S: Final = 1.0  # what the greeting waits for backends that nobody has been at yet
TOLD: Final = (b"SIEVE", b"NOTIFY", b"EXTLISTS", b"MAXREDIRECTS")  # of a backend's, to clients
_RELAYED: Final = (
    *(b"CHECKSCRIPT", b"DELETESCRIPT", b"GETSCRIPT", b"HAVESPACE"),
    *(b"LISTSCRIPTS", b"PUTSCRIPT", b"RENAMESCRIPT", b"SETACTIVE"),
)


class FrontendSieve(SieveDialogue):
    """See the module."""

    def __init__(self, connection: Connection, service: ClientService, frontend: Frontend) -> None:
        super().__init__(connection, service, frontend.config.max_literal_bytes)
        self.frontend = frontend
        self._upstream: LineUpstream | None = None
        self._home = ""  # the server whose language is told
        self._is_believed = False  # by the backend, about whose connection it is
        frontend.sessions.add(self)

    # --- what the backends understand

    def greet(self) -> None:
        """Behind a look at backends that nobody has been at yet."""
        known = servers(self.frontend)
        if self.frontend.multiplexor is not None:
            known |= frozenset(islice(self.frontend.multiplexor.finder.servers(), MOST_ASKED))
        now = self.loop.time()
        looked_at = self.frontend.sieve_looked_at
        unknown = [
            server
            for server in self.frontend.languages.unknown_of(known)
            if looked_at.get(server, 0.0) <= now
        ]
        if not unknown:
            super().greet()
            return
        looked_at.update(dict.fromkeys(unknown, now + self.frontend.config.upstream_idle_s))
        self._task = self.loop.create_task(self._run(None, self._greet_late(unknown)))

    async def _greet_late(self, unknown: Collection[str]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await asyncio.gather(*map(self._look_at, unknown))
        self.tell_capabilities()

    async def _look_at(self, server: str) -> None:
        try:
            upstream = await self._open(server)
            try:
                await self._begin_upstream(upstream)
                upstream.send(b"LOGOUT\r\n")
            finally:
                upstream.close()
        except UpstreamFailure as failure:
            self.log.warning("upstream.failed", backend=server, kind=failure.kind.value)

    def language(self) -> Sequence[Capability]:
        languages = self.frontend.languages
        language = languages.of(self._home) if self._home else languages.common()
        rows: list[Capability] = [(b"SIEVE", language.get(b"SIEVE", b""))]
        rows += [(name, language[name]) for name in TOLD[1:] if language.get(name)]
        return rows

    # --- the login

    async def _enter(self, login: Login) -> None:
        """As a multiplexor where it is one: for who is not to go to their server themselves."""
        if self.frontend.multiplexor is not None:
            entry = self.frontend.locator.known(inbox_of(login.user))
            if entry is not None:
                try:
                    self._refer(login, entry)
                except Refusal as refusal:
                    self.log_not_served(login, refusal)
                    raise

        def say(welcome: Welcome) -> None:
            self.send(welcome.line)

        if not await enter_as_pipe(self, self.frontend, login, SIEVE_SPEECH, say):
            await super()._enter(login)

    async def entered_here(self, login: Login) -> None:
        self.login = login
        try:
            await self._connect()
        except BaseException:
            self.login = None
            raise

    def left_here(self) -> None:
        self._drop()
        self._home = ""

    async def _connect(self) -> LineUpstream:
        """To the backend of the user's INBOX, as the user. Raises Refusal, UpstreamFailure."""
        login = self.login
        assert login is not None
        try:
            entry = await self.frontend.locator.find(inbox_of(login.user))
        except Refusal as refusal:
            raise Refusal(Code.NONEXISTENT, "You have no mailbox here") from refusal
        self._refer(login, entry)
        upstream = await self._open(entry.server)
        try:
            async with self.frontend.upstreams.entering(entry.server):
                await self._begin_upstream(upstream)
                await self._enter_upstream(upstream, login)
        except BaseException:
            upstream.connection.abort()
            raise
        self._upstream, self._home = upstream, entry.server
        return upstream

    def _refer(self, login: Login, entry: MailboxEntry) -> None:
        """Raises Refusal(REFERRAL) where the site wants them to go there themselves."""
        if not self.frontend.refers_logins:
            return
        question = ReferralQuestion(
            "AUTHENTICATE", entry, login.user, login.is_admin, False, self.connection.peer
        )
        if self.frontend.refers(question):
            raise Refusal(Code.REFERRAL, "Your scripts are there", self._url(entry.server))

    def _url(self, server: str) -> str:
        """Where clients find its scripts (RFC 5804 §3)."""
        config, key = self.frontend.whole_config, SIEVE.keys[0]
        host, port = config.address_of(server), config.server(server).port(key)
        return format_url(host, None if port == key.port else port)

    async def _open(self, server: str) -> LineUpstream:
        timeout_s = self.frontend.config.upstream_timeout_s
        upstreams = self.frontend.upstreams
        upstream = await open_lines(upstreams, server, SIEVE, timeout_s, self.connection)
        upstream.reads_slowly = True
        return upstream

    async def _begin_upstream(self, upstream: LineUpstream) -> None:
        """Greeting, TLS, and what it understands. Raises UpstreamFailure."""
        capabilities = await begin(self.frontend.upstreams, upstream)
        self._is_believed = XCLIENT in capabilities
        passed_on = {name: capabilities[name] for name in TOLD if name in capabilities}
        self.frontend.languages.learn(upstream.server, passed_on)

    async def _enter_upstream(self, upstream: LineUpstream, login: Login) -> None:
        """Raises UpstreamFailure where it does not let us in."""
        xclient = xclient_line(self.connection, upstream.server)
        if self._is_believed:
            await tell(upstream, xclient)
        if login.is_admin and login.password is not None:
            proof = Proof(b"PLAIN", plain_response("", login.user, login.password))
        else:
            proof = self.frontend.upstreams.proof(upstream.address, login.user)
        await enter(upstream, proof)

    # --- commands, relayed

    async def _relay(self, command: Command) -> None:
        upstream = self._upstream
        if upstream is None or upstream.is_lost or upstream.has_said_more:
            self._drop()
            upstream = await self._connect()
        try:
            if len(command.octets) > LARGE_OCTETS and await self._is_refused(upstream, command):
                return
            octets = command.octets
            # as it takes them: a script is not there twice
            for at in range(0, len(octets), SLICE_OCTETS):
                upstream.send(octets[at : at + SLICE_OCTETS])
                await upstream.drain()
            await self._pass_answer(upstream)
        except BaseException:
            self._drop()
            raise

    async def _is_refused(self, upstream: LineUpstream, command: Command) -> bool:
        """Whether the backend has no room for so large a script: it is asked first, and its answer is the client's. A server
        may end the connection else, in the middle of it."""
        if command.name not in (b"CHECKSCRIPT", b"PUTSCRIPT") or not command.args:
            return False
        size = len(command.args[-1])
        asked = b"HAVESPACE %b %d\r\n" % (client_string(command.args[0][:MAX_NAME]), size)
        if command.name == b"CHECKSCRIPT":  # which has no name, and is not kept
            asked = b'HAVESPACE "checked" %d\r\n' % size
        answer = await execute(upstream, asked, MAX_SHOWN)
        code = answer.status.code
        if answer.status.kind is not Kind.NO or not code.startswith(b"QUOTA"):
            return False
        if command.name == b"CHECKSCRIPT" and code != b"QUOTA/MAXSIZE":
            return False
        self.send(b"NO (%b) %b\r\n" % (code, format_string(answer.text.encode())))
        return True

    async def _pass_answer(self, upstream: LineUpstream) -> None:
        """Up to and with its status. What a backend says as BYE is the end of it, not of the client."""
        while True:
            line = await upstream.line()
            status = parse_status(line + b"\r\n")
            if status is not None and status.kind is Kind.BYE:
                raise upstream.failure(UpstreamKind.LOST, "it said BYE")
            if status is not None and status.kind is Kind.OK and not status.code:
                if ANNOUNCED.search(line) is None:
                    line = b"OK"  # a text that tells nobody anything ends Cyrus' sieveshell; Dovecot has one
            await self._pass_line(upstream, line)
            if status is not None:
                return

    async def _pass_line(self, upstream: LineUpstream, line: bytes) -> None:
        """With the literals in it, piece by piece."""
        while (announced := ANNOUNCED.search(line)) is not None:
            self.send(line + b"\r\n")
            left = int(announced[1])
            while left:
                piece = await upstream.octets(left)
                self.send(piece)
                left -= len(piece)
                await self.flush()
            line = await upstream.line()
        self.send(line + b"\r\n")
        await self.flush()

    def _drop(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self.loop.call_later(CLOSE_GRACE_S, self._upstream.connection.abort)
            self._upstream = None

    def ended(self) -> None:
        self.frontend.sessions.discard(self)
        self._drop()

    TABLE: ClassVar[Mapping[bytes, Row]] = {
        **COMMON,
        **dict.fromkeys(_RELAYED, Row(LOGGED_IN, _relay, 0, 2)),
    }
