"""What a client's connection is, whatever it speaks: who is in, how often that failed, what is counted, TLS, compression,
the log. Below IMAP, the protocols of lines, and MUPDATE; a protocol gives the words, and the one place where errors become
them.
"""

import contextlib
import math
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol, Self

from murder.auth.exchange import run_sasl
from murder.auth.gate import Gate, as_given
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.log import Log, logger, plain_log
from murder.model.address import MAX_HOPS, hops_behind, plain_address
from murder.model.identity import Login
from murder.model.protocol import ProtocolSpec, protocol_named
from murder.net.dialogue import NO_ROOM, OVERDUE_S, Dialogue
from murder.net.listener import Service
from murder.net.seldom import TLS_FAILURES, why_no_tls
from murder.net.tap import Tap
from murder.serve.watched import BackendSession
from murder.trail.audit import AuditLog
from murder.trail.figures import Figures
from murder.wire.nodes.control_answers import SessionShown

Running = Coroutine[Any, Any, None] | None  # what of a command is not done at once
NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
EXPIRED: Final = "Your login has expired: log in again"
# for a command that runs, as a large message on its way; then it is cut off
EXPIRED_GRACE_S: Final = 300.0
NO_COMMAND: Final = " is no command"  # behind what has come in place of one
MAX_BAD_COMMANDS: Final = 20  # in a row: then the peer speaks something else


class Serving(Protocol):
    """What all connections of one service share, as far as this is about it."""

    @property
    def role(self) -> str:
        """`frontend`, `backend` or `mupdate`."""
        ...

    @property
    def server_name(self) -> str:
        """In greetings, and in what is told of itself."""
        ...

    @property
    def gate(self) -> Gate:
        """Who lets clients in."""
        ...

    @property
    def tls(self) -> ssl.SSLContext | None:
        """None where there is no certificate for clients."""
        ...

    @property
    def login_timeout_s(self) -> float:
        """All the time there is for a login."""
        ...

    @property
    def max_failures(self) -> int:
        """Wrong passwords before the connection ends."""
        ...

    @property
    def audit(self) -> AuditLog:
        """Where changes of what others have are written."""
        ...

    @property
    def figures(self) -> Figures:
        """What is counted here."""
        ...

    @property
    def within(self) -> Callable[[], Mapping[ProtocolSpec, Service]] | None: ...


class ClientDialogue(Dialogue):
    """See the module. The attributes begin as they stand here: no connection pays for a constructor."""

    protocol: str
    service: Serving
    login: Login | None = None
    _was_in = False  # somebody, who has left
    bad_commands = 0  # in a row
    _failures = 0
    _counted_as: str | None = None
    _log: Log | None = None
    session_told = ""  # as a proxy calls it
    watched: BackendSession | None = None  # where a proxy has told that the session is traced

    # --- what a protocol gives

    @property
    def account(self) -> str:
        return self.connection.peer if self.login is None else self.login.user

    async def ask(self, challenge: bytes) -> bytes:
        """Send a SASL challenge and await the answer, within the time for a login; both without base64. Raises BadSyntax
        where the client breaks off."""
        raise NotImplementedError

    def say_hopeless(self, error: BadSyntax) -> None:
        """Say that the stream cannot be cut any more, and close."""
        raise NotImplementedError

    def say_bye(self, text: str, code: Code = Code.UNAVAILABLE) -> None:
        """Say at a quiet point that this end closes, and close. `code`: UNAVAILABLE or EXPIRED."""
        raise NotImplementedError

    # --- the log

    @property
    def log(self) -> Log:
        """Bound on first use: most connections never log more than their login."""
        if self._log is None:
            self._log = logger(**self.log_facts())
        return self._log

    def log_facts(self) -> dict[str, object]:
        """What stands in each line of this connection."""
        facts: dict[str, object] = {
            "role": self.service.role,
            "protocol": self.protocol,
            "cid": self.connection.cid,
            "peer": self.connection.peer,
        }
        if self.login is not None:
            facts["user"] = self.login.user
        through = self.connection.through
        if through is not None and through[0] not in ("", self.connection.peer):
            facts["through"] = through[0]
        if self.session_told:
            facts["session"] = self.session_told
        return facts

    def describe(self) -> SessionShown:
        """For `murder ctl sessions`; who knows more of it adds that."""
        return SessionShown(
            self.connection.cid,
            self.connection.peer,
            self.connection.is_tls,
            self.protocol,
            self.login.user if self.login else "",
            self.login.proxy if self.login else "",
            idle_s=round(self.loop.time() - self.active_at, 1),
        )

    def note_act(
        self, act: str, arguments: str, result: str, named: Mapping[str, object] = NOTHING
    ) -> None:
        """Into the audit trail: a command that changes what others have, what it names, and how it ended."""
        login = self.login
        by: dict[str, object] = {}
        if login is not None:
            by = {"user": login.user, "admin": login.is_admin, "proxy": login.proxy or login.master}
        facts = {**self.log_facts(), **by, "arguments": arguments, **named, "result": result}
        self.service.audit.note(act, facts)

    async def run_audited(
        self,
        begin: Callable[[], Running],
        act: str,
        arguments: str,
        answer: Callable[[Exception], str],
        named: Mapping[str, object] = NOTHING,
    ) -> None:
        """A command that changes what others have, to its end, and `note_act`. `answer`: what the client hears
        of an error."""
        result = "broken off"
        try:
            running = begin()
            if running is not None:
                await running
            result = "OK"
        except Exception as error:
            result = answer(error).partition("\r\n")[0]
            raise
        finally:
            self.note_act(act, arguments, result, named)

    # --- what goes wrong

    def hopeless(self, error: BadSyntax) -> None:
        self.log.info("connection.protocol_error", problem=self._fit_for_log(error))
        self.say_hopeless(error)

    def say_no_room(self) -> None:
        """To who waits for no answer: it would come into the middle of one."""
        self.log.info("connection.no_room")
        if self.is_done():
            self.say_bye(NO_ROOM)

    def _fit_for_log(self, error: BadSyntax) -> str:
        """Before the login what has come may be a password in a wrong place: where that is is told, not what."""
        if self.login is not None:
            return str(error)
        text, _, _ = error.text.partition(", found ")
        _, is_none, rest = text.partition(NO_COMMAND)
        text = f"what has come{NO_COMMAND}{rest}" if is_none else text
        return text if error.offset is None else f"{text} (at octet {error.offset})"

    def note_failure(self, error: BaseException, **facts: object) -> None:
        """Into the log, as its kind deserves; what is refused, and what was not in time, tells itself."""
        match error:
            case BadSyntax():
                problem = self._fit_for_log(error)
                self.log.info("command.malformed", **facts, problem=problem)
            case UpstreamFailure():
                figures = self.service.figures
                figures.add("upstream_failures", error.server, error.kind.value)
                self.log.warning(
                    "upstream.failed",
                    **facts,
                    backend=error.server,
                    kind=error.kind.value,
                    problem=error.text,
                )
            case Refusal() | TimeoutError():
                pass
            case _:
                self.log.error("command.crashed", **facts, exc_info=error)

    def count_bad(self) -> bool:
        """One more bad command in a row; whether that is one too many."""
        self.bad_commands += 1
        return self.bad_commands >= MAX_BAD_COMMANDS

    # --- proxies of other makers

    @property
    def may_tell_client(self) -> bool:
        """Whether the peer is believed when it tells whose connection this is: who is no node of ours only until somebody
        is in, whose words it passes on (they may UNAUTHENTICATE, and tell what they like)."""
        if self.login is not None:
            return False
        gate = self.service.gate
        return gate.is_proxy(self.connection) if self._was_in else gate.believes(self.connection)

    def is_clients(self, address: str, port: str, session: str) -> None:
        """A proxy has told whose connection this is: what the login costs and the log go by that. An address that is none
        says nothing."""
        connection = self.connection
        with contextlib.suppress(ValueError):
            client = plain_address(address)
            connection.through = connection.through or (connection.peer, connection.peer_port)
            connection.peer = client
            connection.peer_port = int(port) if port.isdecimal() and len(port) <= 5 else 0
        self.session_told = as_given(session)
        self._log = None

    def take_xclient(self, words: Sequence[bytes]) -> None:
        """XCLIENT of POP3 and ManageSieve, as Dovecot has it: `NAME=value`, none of it encoded. Raises BadSyntax."""
        fields: dict[bytes, str] = {}
        for word in words:
            name, mark, value = word.partition(b"=")
            if not mark:
                raise BadSyntax("XCLIENT takes NAME=value")
            fields[name.upper()] = value.decode("ascii", "replace")
        facts = (fields.get(name, "") for name in (b"ADDR", b"PORT", b"SESSION"))
        self.is_clients(*facts)
        self.take_hops(fields.get(b"TTL", ""))

    def take_hops(self, ttl: str) -> None:
        """How far the session may still go, by the proxy before: from anybody, who can only shorten their own way."""
        hops = hops_behind(ttl)
        if hops is not None:
            self.connection.hops_left = hops

    def _told_nothing(self) -> None:
        """What a proxy told before counts no more."""
        connection = self.connection
        if connection.through is not None:
            connection.peer, connection.peer_port = connection.through
            connection.through = None
        connection.hops_left = MAX_HOPS
        self.session_told, self._log = "", None

    # --- TLS and compression

    @property
    def may_start_tls(self) -> bool:
        """Whether STARTTLS is of use: there is a certificate, and no TLS yet."""
        return self.service.tls is not None and not self.connection.is_tls

    async def switch_to_tls(self, agreed: bytes) -> None:
        """Send the agreement and put TLS under the connection."""
        assert self.service.tls is not None
        self.session.take_rest()  # what came in plain text behind it was injected (CVE-2011-0411)
        self.send(agreed)
        try:
            await self.begin_tls(self.service.tls)
        except OSError as error:
            facts = TLS_FAILURES.facts()
            if facts is not None:
                self.log.info("tls.failed", problem=why_no_tls(error), **facts)
            raise ConnectionResetError("no TLS") from error
        self._told_nothing()

    def deflate(self, agreed: bytes) -> None:
        """Send the agreement; everything behind it is deflated, both ways (RFC 4978)."""
        rest = self.session.take_rest()
        self.send(agreed)
        self.connection.start_deflate()
        if rest:
            self.loop.call_soon(self.connection.inflate, rest)

    # --- the login

    async def sasl(self, mechanism: str, initial: bytes | None) -> Login:
        """One whole exchange. Raises NotAdmitted, BadSyntax, UpstreamFailure."""
        service = self.service
        login, final = await run_sasl(
            service.gate,
            mechanism,
            initial,
            self.ask,
            self.connection,
            self.protocol,
        )
        if final:
            await self.ask(final)
        return login

    def count_in(self, login: Login) -> None:
        """One more connection of theirs. Raises Refusal(LIMIT)."""
        self.count_out()
        if not login.proxy:  # which counts its own
            self.service.gate.connections.enter(login.user)
            self._counted_as = login.user

    def count_out(self) -> None:
        """The user has one connection less (again)."""
        if self._counted_as is not None:
            self.service.gate.connections.counter.leave(self._counted_as)
            self._counted_as = None

    def take_count(self, before: "ClientDialogue") -> None:
        """Of who has been counted by the dialogue before this one, on the same connection, and what a proxy called it."""
        self.session_told = before.session_told
        self._counted_as, before._counted_as = before._counted_as, None

    def entered_as(self, login: Login, idle_timeout_s: float, **facts: object) -> None:
        """Somebody is in: from here on only silence ends it; said in the log."""
        self.login = login
        self._log = None
        self.begin_time(idle_timeout_s, activity_counts=True)
        if login.identity.expires_at is not None:
            self.sweep.watch_sooner(self, self.loop.time() + self._valid_s(login))
        self.connection.became_known()
        if (attempt := self.connection.attempt) is not None:
            facts = {"mechanism": attempt[0], **facts}
        plain_log.info("login.succeeded", {**self.log_facts(), **facts})
        self._count_login("succeeded")
        if login.is_admin or login.master:
            self.service.audit.note("login", {**self.log_facts(), **facts})
        if login.master:
            self.log.info("login.by_master", master=login.master)

    def _valid_s(self, login: Login) -> float:
        """How long what proved who it is counts still; less than nothing: no more."""
        expires_at = login.identity.expires_at
        return math.inf if expires_at is None else expires_at - time.time()

    def look(self, now: float) -> float | None:
        """As any dialogue; and a login that has expired ends as soon as no command runs."""
        due, login = super().look(now), self.login
        if due is None or login is None or login.identity.expires_at is None or self.is_closing:
            return due
        left = self._valid_s(login)
        if left > 0:
            return min(due, now + left)
        is_cut_off = left <= -EXPIRED_GRACE_S
        if not is_cut_off and not self.is_quiet():
            return now + OVERDUE_S
        self.log.info("login.expired", cut_off=is_cut_off)
        if is_cut_off:
            self.connection.abort()
        else:
            self.say_bye(EXPIRED, Code.EXPIRED)
        return None

    def login_failed(self, user: str, problem: str) -> bool:
        """Count and log; whether it was once too often, and the connection ends behind the reply."""
        self._failures += 1
        if isinstance(self.connection.receiver, Tap):
            self.connection.receiver.login_failed(user)
        self._not_in(user, problem)
        return self._failures >= self.service.max_failures

    def log_not_served(self, login: Login, refusal: Refusal) -> None:
        """Log: who has proven who they are, and is not served all the same. It is no mistake of theirs."""
        self._not_in(login.user, refusal.code.value)

    def _not_in(self, user: str, problem: str) -> None:
        attempt = self.connection.attempt
        facts = {"mechanism": attempt[0]} if attempt is not None else {}
        self.log.info("login.failed", user=user, **facts, problem=problem)
        self._count_login("failed")

    def _count_login(self, outcome: str) -> None:
        self.service.figures.count_login(self.connection.attempt, self.protocol, outcome)
        self.connection.attempt = None  # of a mechanism that there is not the next never begins

    def is_for_within(self, login: Login) -> bool:
        """Whether who has logged in speaks with the server beside this proxy."""
        return login.within and self.service.within is not None

    def pass_on(self) -> Self:
        """The server beside this proxy takes the connection over, as it is; its dialogue. This one is over."""
        assert self.service.within is not None
        heir: Any = self.service.within()[protocol_named(self.protocol)](self.connection)
        heir._failures, heir.session_told = self._failures, self.session_told
        self.hand_over(heir)
        taken: Self = heir
        return taken

    def no_longer_watched(self) -> None:
        """The traced session is over."""
        if self.watched is not None:
            self.watched.end(self.connection.cid, self.login.user if self.login else "")
            self.watched = None

    def forget_login(self) -> None:
        """As before the login, with TLS, compression and the peer's certificate kept (RFC 8437)."""
        if self.watched is not None:
            self.no_longer_watched()
        self.count_out()
        is_told = self.session_told or self.connection.through is not None
        if is_told and self.login is not None and self.login.proxy:
            self._told_nothing()  # the next one may be another's
        self._was_in = True
        self.login = None
        self._log = None
        self.begin_time(self.service.login_timeout_s, activity_counts=False)

    def lost(self, error: Exception | None) -> None:
        """As any dialogue's; in few steps where nothing runs and nothing waits."""
        if self.watched is not None:
            self.no_longer_watched()
        if self._counted_as is not None:  # as `count_out`
            self.service.gate.connections.counter.leave(self._counted_as)
            self._counted_as = None
        if self._task is not None or self._waiter is not None:
            super().lost(error)
            return
        self.is_closing = True
        self.sweep.forget(self)
        self.ended()
