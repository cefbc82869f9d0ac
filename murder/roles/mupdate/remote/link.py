"""A connection to a MUPDATE server, up to and with login: banner, STARTTLS, AUTHENTICATE. Then whoever asked takes it over.

The master of a murder shows a certificate of the cluster's authority with the role `mupdate`, or (a Cyrus master) one in
the name under which it was called.
"""

import asyncio
import ssl
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from murder import __version__
from murder.config import Config
from murder.errors import BadSyntax, Refusal, UpstreamFailure, UpstreamKind
from murder.log import logger
from murder.model.versions import misfit
from murder.net.bulk import BULK_OCTETS
from murder.net.connection import Connection
from murder.net.outgoing.connect import connect, why
from murder.net.outgoing.proving import GSSAPI, Tickets
from murder.net.tls import calling_context
from murder.net.turns import TURN_S
from murder.session.mupdate_client import Event, MupdateClientSession, is_answer
from murder.session.sasl import ScramClient, plain_response
from murder.wire.mupdate import Banner, Kind, Response, Verb

SERVICE: Final = "mupdate"  # as Kerberos calls it
MASTER_ROLE: Final = "mupdate"
SCRAM: Final = "SCRAM-SHA-256"
# things that it says until then; a banner, and three answers with their challenges
MAX_BEFORE_LOGIN: Final = 200


@dataclass(frozen=True, slots=True)
class Target:
    """A master and how to get in. `tls` is None where it is spoken to in the clear; without `user`, EXTERNAL."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    connect_timeout_s: float = 5.0
    command_timeout_s: float = 30.0
    # masters of the same list, asked where this one does not answer (`masters`)
    others: tuple[tuple[str, int], ...] = ()
    failover_s: float = 0.5  # with others: silence after which they are asked
    caller: str = ""  # this node's name
    tickets: Tickets | None = field(default=None, compare=False)  # by which it gets in, as `user`

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"


def master_target(config: Config) -> Target | None:
    """From the configuration; None where this node has no master. Raises OSError, ssl.SSLError for its files."""
    mupdate, master = config.mupdate, config.master
    if master is None:
        return None
    tls = None
    if mupdate.master_tls != "none":
        tls = calling_context(config.tls)
        tls.check_hostname = False  # `_check_name` does, and knows the cluster's roles
    is_plain, is_gssapi = mupdate.master_auth == "plain", mupdate.master_auth == GSSAPI
    return Target(
        master.host,
        master.port,
        tls,
        mupdate.master_user if is_plain or is_gssapi else "",
        mupdate.master_password if is_plain else "",
        mupdate.connect_timeout_s,
        mupdate.command_timeout_s,
        tuple((other.host, other.port) for other in master.others),
        mupdate.failover_s,
        config.node.name,
        Tickets(config.node.keytab) if is_gssapi else None,
    )


class Link:
    """One logged-in connection. Events go to `sink` once `take_over` has named one; `on_lost` hears of the end."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.session = MupdateClientSession()
        self.banner = Banner()
        self.connection: Connection | None = None
        self.is_lost = False
        self.heard = 0  # how often something has come
        self._sink: Callable[[Event], None] | None = None
        self._on_lost: Callable[[UpstreamFailure], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._pump_is_due = False  # its turn is over, the next one is asked for
        self._has_ended = False  # nothing more comes
        self._said = 0  # things, up to the login

    def failure(self, kind: UpstreamKind, text: str, cure: str = "") -> UpstreamFailure:
        return UpstreamFailure(kind, self.target.name, text, cure)

    # Receiver

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        self.heard += 1
        self.session.receive(data)
        if self._sink is not None:
            if not self._pump_is_due:
                self._pump()
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.connection is not None and self.session.held >= BULK_OCTETS:
            self.connection.pause_reading()  # until `_next` has looked at it

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        self._has_ended = True
        if not self._pump_is_due:  # else behind all that came before: an OK counts
            self._end()

    def _end(self) -> None:
        self.is_lost = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._on_lost is not None:
            self._on_lost(self.failure(UpstreamKind.LOST, "the connection was lost"))

    def take_over(
        self, sink: Callable[[Event], None], on_lost: Callable[[UpstreamFailure], None]
    ) -> None:
        """From now on every event goes to `sink`."""
        self._sink = sink
        self._on_lost = on_lost
        if self.connection is not None:
            self.connection.resume_reading()
        if self.is_lost:
            on_lost(self.failure(UpstreamKind.LOST, "the connection was lost"))
            return
        self._pump()

    def pause(self) -> None:
        """Take no more events for now; the master waits with us."""
        self._paused = True
        if self.connection is not None:
            self.connection.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if not self._pump_is_due and not self.is_lost:
            self._pump()

    def _pump(self) -> None:
        """Events for one turn; while more wait for the next, nothing is read."""
        sink = self._sink
        assert sink is not None
        turn_ends = time.perf_counter() + TURN_S
        try:
            while not self._paused:
                if (event := self.session.next_event()) is None:
                    if self._has_ended:
                        self._end()
                    elif self.connection is not None:
                        self.connection.resume_reading()
                    return
                sink(event)
                if time.perf_counter() >= turn_ends:
                    self._pump_is_due = True
                    asyncio.get_running_loop().call_soon(self._pump_again)
                    if self.connection is not None:
                        self.connection.pause_reading()
                    return
            if self._has_ended:
                self._end()  # who pauses does not wait for what is left
        except BadSyntax as error:
            if self._has_ended:
                self._end()  # which has cut it off
                return
            self.abort()
            if self._on_lost is not None:
                on_lost, self._on_lost = self._on_lost, None
                on_lost(self.failure(UpstreamKind.PROTOCOL, str(error)))

    def _pump_again(self) -> None:
        self._pump_is_due = False
        if not self.is_lost:
            self._pump()

    def abort(self) -> None:
        if self.connection is not None:
            self.connection.abort()

    def drop(self) -> None:
        """Abort, and hear no more of it; what the master has not read yet is void, and its kernel is told."""
        self._sink = _unheard
        self._on_lost = None
        if self.connection is not None:
            self.connection.reset()

    def write(self, octets: bytes) -> None:
        if self.connection is not None:
            self.connection.write(octets)

    def send(self, verb: Verb, *args: bytes) -> bytes:
        """Send a command; its tag."""
        tag, octets = self.session.send(verb, *args)
        self.write(octets)
        return tag

    # Getting in

    async def _next(self) -> Event:
        while (event := self.session.next_event()) is None:
            if self.is_lost:
                raise self.failure(UpstreamKind.LOST, "the connection was lost before login")
            self._waiter = asyncio.get_running_loop().create_future()
            if self.connection is not None:
                self.connection.resume_reading()
            await self._waiter
        self._said += 1
        if self._said > MAX_BEFORE_LOGIN:
            raise BadSyntax("it says more before the login than any master does")
        return event

    async def _answer(self, tag: bytes) -> Response:
        while True:
            event = await self._next()
            if isinstance(event, Response) and is_answer(event, tag):
                return event
            if isinstance(event, Response) and event.kind is Kind.BYE:
                raise self.failure(UpstreamKind.LOST, f"the server says BYE: {event.text}")

    async def greet(self) -> None:
        """Wait for the banner. Raises UpstreamFailure, BadSyntax."""
        event = await self._next()
        if isinstance(event, Response) and event.kind is Kind.BYE:
            raise self.failure(UpstreamKind.UNAVAILABLE, f"the master says BYE: {event.text}")
        if not isinstance(event, Banner):
            raise self.failure(UpstreamKind.PROTOCOL, "no MUPDATE banner")
        self.banner = event
        if event.implementation == "murder" and (why := misfit(event.version, __version__)):
            link_log = logger()
            link_log.warning("version.misfit", master=self.target.host, problem=why)

    async def enter(self) -> None:
        await self.greet()
        if self.target.tls is not None:
            await self._starttls(self.target.tls)
        await self._authenticate()
        self.session.authenticated()

    async def _starttls(self, tls: ssl.SSLContext) -> None:
        assert self.connection is not None
        if not self.banner.starttls:
            raise self.failure(UpstreamKind.TLS, "the master offers no STARTTLS")
        answer = await self._answer(self.send(Verb.STARTTLS))
        if answer.kind is not Kind.OK:
            raise self.failure(UpstreamKind.TLS, f"STARTTLS was refused: {answer.text}")
        self.session.restart()
        await self.connection.start_tls(tls, server_side=False, server_hostname=self.target.host)
        self._check_name()
        await self.greet()

    def _check_name(self) -> None:
        certificate = self.connection.certificate if self.connection is not None else None
        if certificate is None:
            raise self.failure(UpstreamKind.TLS, "the master shows no certificate")
        if MASTER_ROLE in certificate.roles or self.target.host.lower() in certificate.names:
            return
        raise self.failure(
            UpstreamKind.TLS,
            f"the certificate of {certificate.name or 'nobody'} is neither a master's nor "
            f"{self.target.host}'s",
        )

    async def _authenticate(self) -> None:
        target, offered, cure = self.target, self.banner.mechanisms, ""
        in_the_clear = target.tls is None
        if target.tickets is not None:
            proof = target.tickets.proof(target.name, SERVICE, target.host, "", target.user)
            answer, cure = await self._exchange("GSSAPI", None, proof.answer), proof.cure
        elif not target.user:
            answer = await self._exchange("EXTERNAL", b"", None)
        elif SCRAM in offered and (in_the_clear or "PLAIN" not in offered):
            scram = ScramClient(target.user, target.password)

            async def prove(challenge: bytes) -> bytes:
                return scram.answer(challenge)

            answer = await self._exchange(SCRAM, scram.first(), prove)
        else:
            response = plain_response(target.user, target.user, target.password.encode())
            answer = await self._exchange("PLAIN", response, None)
        if answer.kind is not Kind.OK:
            text = f"the master refuses our login: {answer.text}"
            raise self.failure(UpstreamKind.AUTH, text, cure)

    async def _exchange(
        self,
        mechanism: str,
        first: bytes | None,
        prove: Callable[[bytes], Awaitable[bytes]] | None,
    ) -> Response:
        words = () if first is None else (b64encode(first),)
        tag = self.send(Verb.AUTHENTICATE, mechanism.encode(), *words)
        self.session.expect_lines()
        try:
            while True:
                event = await self._next()
                if isinstance(event, Response):
                    if is_answer(event, tag) or event.kind is Kind.BYE:
                        return event
                elif isinstance(event, bytes):
                    answer = await prove(b64decode(event)) if prove else b""
                    self.write(b64encode(answer) + b"\r\n")
        finally:
            self.session.expect_lines(False)


def _unheard(_: Event) -> None:
    """Nobody waits for it any more."""


async def open_link(target: Target) -> Link:
    """Connect and log in, within the connect timeout and the command timeout; `target.others` are not asked (`masters`).
    Raises UpstreamFailure."""
    link = Link(target)
    link.connection = await connect(
        target.host,
        target.port,
        lambda connection: link,
        server=target.name,
        timeout_s=target.connect_timeout_s,
    )
    try:
        async with asyncio.timeout(target.command_timeout_s):
            await link.enter()
    except BaseException as error:
        link.abort()
        raise _as_failure(link, error) from error
    return link


async def greets(target: Target, within_s: float) -> bool:
    """Whether it says its banner in that time."""
    link = Link(target)
    try:
        async with asyncio.timeout(within_s):
            link.connection = await connect(
                target.host,
                target.port,
                lambda connection: link,
                server=target.name,
                timeout_s=within_s,
            )
            await link.greet()
    except (TimeoutError, OSError, UpstreamFailure, BadSyntax):
        return False
    finally:
        link.abort()
    return True


def _as_failure(link: Link, error: BaseException) -> BaseException:
    match error:
        case TimeoutError():
            seconds = f"{link.target.command_timeout_s:g} s"
            return link.failure(UpstreamKind.TIMEOUT, f"no answer in {seconds}")
        case ssl.SSLError():  # which is a ValueError, too, where a certificate is wrong
            return link.failure(UpstreamKind.TLS, why(error))
        case BadSyntax() | ValueError():
            return link.failure(UpstreamKind.PROTOCOL, str(error))
        case Refusal():
            return link.failure(UpstreamKind.AUTH, error.text)
        case OSError():
            return link.failure(UpstreamKind.LOST, str(error))
        case _:
            return error
