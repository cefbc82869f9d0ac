"""POP3 at a frontend: log the user in, find their INBOX, then relay octets both ways (RFC 1939).

UTF8 (RFC 6856) comes before the login, so it is offered where all backends do, and said to the user's before the login ends.
Nothing is read of what passes. A client that goes without QUIT takes the backend's connection with it, and so deletes
nothing.
"""

import asyncio
import functools
import re
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.log import plain_log
from murder.model.identity import Login
from murder.model.name import inbox_of
from murder.model.protocol import POP3
from murder.net.bulk import BULK_OCTETS, LITTLE_OCTETS, took_much, write_much
from murder.net.connection import Connection
from murder.net.dialogue import CLOSE_GRACE_S
from murder.net.outgoing.leaving import GRACE_S
from murder.net.outgoing.lines import LineUpstream, open_lines, prove
from murder.net.outgoing.proving import Proof
from murder.net.sweep import NOWHERE, SLOT_S
from murder.roles.frontend.multiplexor.become import enter_as_pipe
from murder.roles.frontend.multiplexor.pipe import QUIET_S
from murder.roles.frontend.multiplexor.pop3 import POP3_SPEECH, XCLIENT
from murder.roles.frontend.multiplexor.speech import Welcome
from murder.roles.frontend.origin import xclient_line
from murder.roles.frontend.placement import servers
from murder.roles.frontend.pop3_express import Pop3Express, way_of
from murder.roles.frontend.shared import Frontend
from murder.serve.client import Running
from murder.serve.line import PRE_LOGIN_LINE_OCTETS, Row
from murder.serve.pop3 import PASSWORD_WANTED, Pop3Dialogue
from murder.serve.service import ClientService
from murder.session.lines import MAX_LINE_OCTETS, LineSession
from murder.session.sasl import plain_response
from murder.wire.pop3 import ok

# As clients spell them, whole. Groups: the name of USER; PASS
ENTERING: Final = re.compile(rb"(?i)(?:USER ([!-~]{1,255})|PASS ([^\r\n\0]{1,255}))\r\n\Z")
LOGGED_IN: Final = ok("Logged in")
FIRST_LOOK_S: Final = 1.0  # what CAPA waits for backends that nobody has been at yet
MAX_CAPABILITIES: Final = 100
MAX_WORD: Final = 64  # octets of one
UNMARKED: Final = POP3.name, False, False  # the greeting of who is no proxy
SHORT_OCTETS: Final = 64  # of a line of a client's that is looked at once more


class FrontendPop3(Pop3Dialogue):
    """See the module."""

    _upstream: LineUpstream | None = None
    _opening: Pop3Express | None = None
    _is_pipe = False
    _is_fed = False  # the session has had octets, and may hold some
    # how often the client has said something in the pipe since nothing was under way, and the last of it, if that is short;
    # of a pipe that was not made by an express it is not known
    asked, said = 2, b""

    def __init__(self, connection: Connection, service: ClientService, frontend: Frontend) -> None:
        # as those of `LineDialogue` and `Dialogue`, in one place
        limits = service.limits
        self.connection, self.service, self.frontend = connection, service, frontend
        self.idle_timeout_s, self.write_timeout_s = limits.login_timeout_s, limits.write_timeout_s
        sweep = self.sweep = frontend.sweep
        loop = self.loop = sweep.loop
        self.active_at = loop.time()
        self.is_closing = self._pump_is_due = self.activity_counts = False
        self._task = None
        self.sweep_slot = NOWHERE
        frontend.sessions.add(self)

    @functools.cached_property
    def session(self) -> LineSession:  # type: ignore[override]  # made for who takes the long way
        """Cuts lines."""
        return LineSession(min(self.service.limits.max_line_bytes, PRE_LOGIN_LINE_OCTETS))

    def begin(self) -> None:
        """As any dialogue's, in few calls."""
        sweep = self.sweep
        slot = int((self.active_at + self.idle_timeout_s) / SLOT_S) + 1
        if (ones := sweep.slots.get(slot)) is None:
            sweep.watch(self, self.active_at + self.idle_timeout_s)
        else:  # the same
            self.sweep_slot = slot
            ones.add(self)
        connection, service = self.connection, self.service
        greeting = service.greetings.get(UNMARKED)
        if (
            greeting is None
            or not connection.is_plain
            or connection.certificate is not None
            or service.gate.client_address_from
        ):
            self.greet()
        else:  # the same
            connection.transport.write(greeting)

    # --- what the backends offer

    @property
    def offers_utf8(self) -> bool:
        return self.frontend.maildrops.all_offer(b"UTF8", servers(self.frontend))

    def tell_capabilities(self) -> Running:
        """Those of backends that nobody has been at yet are asked for first."""
        maildrops = self.frontend.maildrops
        unknown = maildrops.to_be_asked(servers(self.frontend), self.loop.time())
        return self._look_first(unknown) if unknown else super().tell_capabilities()

    async def _look_first(self, unknown: Collection[str]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await asyncio.gather(*map(self._look_at, unknown))
        super().tell_capabilities()

    async def _look_at(self, server: str) -> None:
        try:
            upstream = await self._open(server)
        except UpstreamFailure as failure:
            self.log.warning("upstream.failed", backend=server, kind=failure.kind.value)
            return
        try:
            await self._begin_upstream(upstream)
            upstream.send(b"QUIT\r\n")
        except UpstreamFailure as failure:
            self.log.warning("upstream.failed", backend=server, kind=failure.kind.value)
        finally:
            upstream.close()

    # --- login

    async def _enter(self, login: Login) -> None:
        """As a multiplexor where it is one."""

        def say(welcome: Welcome) -> None:
            self.send(welcome.line + b"\r\n")

        name = _with_detail(login)
        if not await enter_as_pipe(
            self, self.frontend, login, POP3_SPEECH, say, as_user=name, utf8=self.utf8
        ):
            await super()._enter(login)

    async def open_maildrop(self, login: Login) -> bytes:
        """Become a pipe to the user's backend; its word on the maildrop is ours."""
        try:
            name = self.maildrop_of(login, self.frontend.namespace)
            if name != inbox_of(login.user):  # the backend that is entered would make one
                self.frontend.locator.check_inbox(login.user)
            entry = await self.frontend.locator.find(name)
        except Refusal as refusal:
            raise Refusal(Code.NONEXISTENT, "You have no mailbox here") from refusal
        upstream = await self._open(entry.server)
        try:
            async with self.frontend.upstreams.entering(entry.server):
                answer = await self._enter_upstream(upstream, login)
        except BaseException:
            upstream.connection.abort()
            raise
        if not answer.startswith(b"+OK"):
            upstream.close()
            return answer + b"\r\n"
        self._upstream = upstream
        self.loop.call_soon(self._become_pipe)
        return LOGGED_IN

    async def _open(self, server: str) -> LineUpstream:
        timeout_s = self.frontend.config.upstream_timeout_s
        upstreams = self.frontend.upstreams
        return await open_lines(upstreams, server, POP3, timeout_s, self.connection)

    async def _begin_upstream(self, upstream: LineUpstream) -> None:
        """Greeting, TLS, and what it offers, where that is not known. Raises UpstreamFailure."""
        if not (await upstream.line()).startswith(b"+OK"):
            raise upstream.failure(UpstreamKind.PROTOCOL, "it greets with an error")
        address = upstream.address
        if address.tls == "starttls":
            upstream.send(b"STLS\r\n")
            if not (await upstream.line()).startswith(b"+OK"):
                raise upstream.failure(UpstreamKind.TLS, "it refuses STLS")
            await upstream.starttls(self.frontend.upstreams)
        maildrops = self.frontend.maildrops
        if maildrops.is_known(upstream.server, self.loop.time()):
            return
        upstream.send(b"CAPA\r\n")
        words: list[bytes] = []
        if (await upstream.line()).startswith(b"+OK"):
            while (line := await upstream.line()) != b".":
                words.append(line.upper().partition(b" ")[0])
                if len(words) > MAX_CAPABILITIES or len(words[-1]) > MAX_WORD:
                    raise upstream.failure(UpstreamKind.PROTOCOL, "it offers too much")
        maildrops.learn(upstream.server, frozenset(words), self.loop.time())

    async def _enter_upstream(self, upstream: LineUpstream, login: Login) -> bytes:
        """All up to AUTH as the user; the last answer. Raises UpstreamFailure."""
        xclient = xclient_line(self.connection, upstream.server)
        await self._begin_upstream(upstream)
        address = upstream.address
        if self.frontend.maildrops.offers(XCLIENT, upstream.server):
            upstream.send(xclient)
            await upstream.line()  # who is not believed may go on all the same
        if self.utf8:
            upstream.send(b"UTF8\r\n")
            if not (await upstream.line()).startswith(b"+OK"):
                self.frontend.maildrops.forget(upstream.server)
                raise upstream.failure(UpstreamKind.PROTOCOL, "it refuses UTF8")
        user = _with_detail(login)
        if login.is_admin and login.password is not None:
            proof = Proof(b"PLAIN", plain_response("", user, login.password))
        else:
            proof = self.frontend.upstreams.proof(address, user)
        answer = await prove(upstream, proof, b"+ ")
        if not answer.startswith(b"+OK") and b"[AUTH]" in answer:
            text = answer.decode("utf-8", "replace")
            raise upstream.failure(UpstreamKind.AUTH, text, proof.cure)
        return answer

    # --- in few steps

    def _take_at_once(self, match: re.Match[bytes]) -> bool:
        """USER and PASS as clients send them, one at a time, where nothing has to be waited for."""
        if self.login is not None or self.is_closing:
            return False
        if self._is_fed and self.session.held:
            return False
        gate, connection = self.service.gate, self.connection
        if not (connection.is_tls or gate.allow_plaintext):
            return False
        name, password = match.groups()
        if password is None:
            self._user = name
            self.bad_commands = 0
            if connection.is_plain and not connection.gathered:
                connection.transport.write(PASSWORD_WANTED)
            else:
                connection.write(PASSWORD_WANTED)
            return True
        if self._user is None or not self._user.isascii():  # one that took the long way
            return False
        user = self._user.decode("ascii")
        login = gate.admit_at_once(user, password, connection, self.protocol, "USER")
        way = way_of(self, login) if login is not None else None
        if login is None or way is None:
            return False
        connections = gate.connections  # as `count_in`, in a call less
        if not connections.counter.enter(login.user, connections.most):
            return False  # to be refused again, and told
        self._counted_as, self._user = login.user, None
        self._opening = Pop3Express(self, login, *way)
        return True

    def let_in(self, upstream: LineUpstream, login: Login, early: bytes) -> None:
        """They are in at their backend, whose connection is the other end of the pipe."""
        self._opening, self._upstream = None, upstream
        connection, service = self.connection, self.service
        limits = service.limits
        # as `entered`, of who is no administrator and whose login does not expire
        self.login, self._log = login, None
        if self._is_fed:
            self.session.max_line = min(limits.max_line_bytes, MAX_LINE_OCTETS)
        self.idle_timeout_s, self.activity_counts = limits.idle_timeout_s, True
        self.active_at = self.loop.time()
        if limits.idle_timeout_s < limits.login_timeout_s:
            self.sweep.watch_sooner(self, self.active_at + limits.idle_timeout_s)
        if connection.is_tls:
            connection.became_known()
        elif (on_known := connection.on_known) is not None:  # the same
            connection.on_known = None
            on_known(connection)
        facts: dict[str, object] = {
            "role": service.role,
            "protocol": self.protocol,
            "cid": connection.cid,
            "peer": connection.peer,
            "user": login.user,
            "mechanism": connection.attempt[0] if connection.attempt is not None else "",
            "proxy": login.proxy,
            "admin": False,
            "tls": connection.is_tls,
        }
        if connection.through is not None:
            facts = {**self.log_facts(), **facts}
        plain_log.info("login.succeeded", facts)
        service.figures.count_login(connection.attempt, self.protocol, "succeeded")
        self.bad_commands = 0
        if connection.is_plain and not connection.gathered:
            connection.transport.write(LOGGED_IN)
        else:
            connection.write(LOGGED_IN)
        if early or self._is_fed or self._input_ended or connection.is_held_back:
            self._join(upstream, early)
        else:  # the same
            self._is_pipe, self.asked = True, 0
            upstream.pipe, upstream.gone = self._to_client, self._upstream_gone
            upstream.drained = connection.resume_reading

    def not_let_in(self, failure: UpstreamFailure) -> None:
        """It has failed; they may try again."""
        self._opening = None
        self.count_out()
        if not self.connection.is_lost:
            self.failed(None, failure)
            self.resume()

    def enter_anew(self, login: Login) -> None:
        """The long way, from the beginning."""
        self._opening = None
        self.count_out()
        if not self.connection.is_lost:
            self.go_on(None, self._enter(login))

    # --- the pipe

    def _become_pipe(self) -> None:
        upstream = self._upstream
        if upstream is None or self.connection.is_lost or upstream.is_lost:
            self._upstream_gone()
            return
        self._join(upstream, upstream.take_rest())

    def _join(self, upstream: LineUpstream, early: bytes) -> None:
        """`early`: what the backend has said behind the login."""
        self._is_pipe = True
        upstream.pipe = self._to_client
        upstream.gone = self._upstream_gone
        upstream.drained = self.connection.resume_reading
        if early:
            self._to_client(early)
        if self._is_fed and self.session.held:
            self._to_backend(self.session.take_rest())
        if self.connection.is_held_back:
            self.connection.resume_reading()
        if self._input_ended:  # before there was a pipe
            self.active_at = self.loop.time()
            self.close_when_quiet(QUIET_S)

    def received(self, data: bytes) -> None:
        if self._is_pipe:
            self.active_at = self.loop.time()
            upstream = self._upstream  # as `_to_backend`, in a step less
            if upstream is not None and not upstream.is_lost:
                backend = upstream.connection
                if backend.is_plain and not backend.gathered:
                    backend.transport.write(data)
                else:
                    backend.write(data)
                if backend.writing_paused:
                    self.connection.pause_reading()
            self.asked += 1
            self.said = data if len(data) <= SHORT_OCTETS else b""
            if len(data) >= BULK_OCTETS:
                took_much(self.connection)
        elif (
            self._task is not None
            or self._opening is not None
            or (match := ENTERING.match(data)) is None
            or not self._take_at_once(match)
        ):
            self._is_fed = True
            super().received(data)

    def input_ended(self) -> bool:
        """The backend's answers still pass; TLS to it knows no half of a connection, so the pipe is watched."""
        if not self._is_pipe:
            return super().input_ended()
        if self._upstream is None or self._upstream.is_lost:
            self.close()
        else:
            self.close_when_quiet(QUIET_S)
        return True

    def may_proceed(self) -> bool:
        return self._upstream is None and self._opening is None

    def _to_backend(self, octets: bytes) -> None:
        upstream = self._upstream
        if upstream is None or upstream.is_lost:
            return
        upstream.connection.write(octets)
        if upstream.connection.writing_paused:
            self.connection.pause_reading()

    def _to_client(self, octets: bytes) -> None:
        self.active_at = self.loop.time()
        connection = self.connection
        if connection.is_plain and not connection.gathered and len(octets) <= LITTLE_OCTETS:
            connection.transport.write(octets)
        else:
            write_much(connection, octets)
        if self.connection.writing_paused and self._upstream is not None:
            self._upstream.connection.pause_reading()

    def writable(self) -> None:
        if self._is_pipe and self._upstream is not None:
            self._upstream.connection.resume_reading()
        else:
            super().writable()

    def _upstream_gone(self) -> None:
        """As `close`, where there is a pipe: nothing is held then."""
        if not self._is_pipe:
            self.close()
        elif not self.is_closing:
            self.is_closing = True
            self.connection.finish()
            self._ends_at = self.loop.time() + CLOSE_GRACE_S
            self.sweep.watch(self, self._ends_at)

    def part(self, now: float) -> None:
        """The client's connection ends here, behind the answer to QUIT, as at any server; the backend ends its own."""
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        upstream.pipe = upstream.gone = None
        leaving = self.frontend.leaving
        leaving.until[upstream] = now + GRACE_S
        if not leaving.sweep_slot:
            leaving.begin(now)
        client = self.connection
        is_held = client.is_tls or not client.is_plain or client.gathered
        if not is_held and not client.transport.get_write_buffer_size():
            self.is_closing = True
            client.transport.close()
        else:  # it takes its time, which is limited
            self._upstream_gone()
            upstream.connection.resume_reading()

    def not_allowed(self, keyword: bytes, row: Row | None) -> Running:
        if self.login is None:
            return super().not_allowed(keyword, row)
        raise UpstreamFailure(UpstreamKind.LOST, self.service.server_name, "the backend has gone")

    def is_quiet(self) -> bool:
        """A pipe is quiet when nothing has passed for a moment; without QUIT the client loses no mail."""
        if self._is_pipe:
            return self.loop.time() - self.active_at > QUIET_S and not self.connection.pending()
        return super().is_quiet() and self._opening is None

    def lost(self, error: Exception | None) -> None:
        """As any dialogue's, in few steps where the backend's end is over, or is let go of."""
        is_plain_end = self._task is None and self._waiter is None and self.watched is None
        if not is_plain_end or self._opening is not None or self._upstream is not None:
            super().lost(error)
            return
        self.is_closing = True
        if self._counted_as is not None:  # as `count_out`
            self.service.gate.connections.counter.leave(self._counted_as)
            self._counted_as = None
        if self.sweep_slot:  # as `forget`
            self.sweep.slots[self.sweep_slot].discard(self)
            self.sweep_slot = NOWHERE
        self.frontend.sessions.discard(self)  # as `ended`

    def ended(self) -> None:
        self.frontend.sessions.discard(self)
        if self._opening is not None:
            self._opening.give_up()
            self._opening = None
        if self._upstream is not None and not self._upstream.is_lost:
            self._upstream.gone = None
            backend = self._upstream.connection
            is_slow = backend.is_tls or backend.pending()
            backend.close()  # a QUIT that the client did not wait for still arrives
            if is_slow:
                self.loop.call_later(CLOSE_GRACE_S, backend.abort)


def _with_detail(login: Login) -> str:
    """As the backend takes it: `user+detail[@domain]`."""
    if not login.detail:
        return login.user
    local, mark, domain = login.user.partition("@")
    return f"{local}+{login.detail}{mark}{domain}"
