"""MUPDATE's server side: the commands of RFC 3656 on the mailbox list, for a master and for replicas that serve others.

Commands of one connection are carried out in order. Writes that arrive together become one batch of proposals, commits
are shared by all connections (`ledger`), and replies of a batch are one write, after the commit. A command that only
reads waits for the writes before it on its own connection.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final

from murder import __version__
from murder.auth.gate import Gate, NotAdmitted
from murder.config import MupdateConfig
from murder.errors import BadSyntax, Code, Misuse, Refusal, UpstreamFailure
from murder.log import logger
from murder.net.connection import Connection
from murder.net.seconds import until_look
from murder.roles.mupdate.commits.bounds import bounds_of
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.commits.owner import peer_of
from murder.roles.mupdate.commits.proposal import Peer
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.serving.alone import NOTED_OCTETS, AloneDialogue, format_found
from murder.roles.mupdate.serving.pages import pages
from murder.roles.mupdate.serving.pulse import ALONE_S, BEAT_S, Pulse
from murder.roles.mupdate.serving.stream import Hub, Subscriber, format_rows, why_not_from
from murder.roles.mupdate.serving.untaken import Untaken
from murder.roles.mupdate.serving.writes import AWAY, Counters, Writes
from murder.session.mupdate_server import (
    WRITES,
    Event,
    Line,
    MupdateServerSession,
    Owed,
    State,
    Wrong,
)
from murder.trail.audit import NOBODYS, AuditLog
from murder.trail.figures import Figures
from murder.wire.base64line import decode_response
from murder.wire.mupdate import (
    AS_OF_NOW,
    LISTS,
    MASTER,
    OUR_LISTS,
    TELLING,
    UNAVAILABLE,
    Banner,
    Command,
    Kind,
    Verb,
    format_banner,
    format_status,
)
from murder.wire.nodes.control_answers import SessionShown

PROTOCOL: Final = "mupdate"
IMPLEMENTATION: Final = "murder"
LEAST_IDLE_S: Final = 15 * 60.0  # RFC 3656 §2
# as `net.dialogue`: a node has many connections that wait for one disk
HELD_OCTETS: Final = 16 * 1024
STREAMING: Final = "streaming"  # a session that follows the list
# Of one peer; above it writers wait. TLS has as much again, and keeps what it ever had
UNTAKEN_OCTETS: Final = 16 * 1024
PIECE_OCTETS: Final = 16 * 1024  # of a page
UNREAD_OCTETS: Final = 16 * 1024  # of TLS records that are not yet decrypted
NEVER_S: Final = 10 * 365 * 86400.0

Running = Coroutine[Any, Any, None] | None


@dataclass(slots=True)
class MupdateService:
    """What all MUPDATE connections of one node share. `ledger` is None on a replica: it is read-only there."""

    server_name: str
    config: MupdateConfig
    gate: Gate
    mailboxes: MailboxList
    hub: Hub
    ledger: Ledger | None
    tls: ssl.SSLContext | None = None
    master: str = MASTER
    max_failures: int = 5
    counters: Counters = field(default_factory=Counters)
    dialogues: "set[MupdateDialogue]" = field(default_factory=set)
    role: str = PROTOCOL
    audit: AuditLog = NOBODYS
    figures: Figures = field(default_factory=Figures)
    within: None = None  # nobody else serves it on the same port
    pulse: Pulse | None = None  # a master's, which counts while it is one of several
    untaken: Untaken = field(init=False)
    _beat: asyncio.TimerHandle | None = None
    _was_ready: bool = False

    def __post_init__(self) -> None:
        self.untaken = Untaken(self.config.max_streams_bytes)
        if self.ledger is not None:
            self.pulse = Pulse()
            self.beat()

    def beat(self) -> None:
        """Look whether the process has stood still, and whether the list has gone; and again, as long as the service is
        there."""
        if self.pulse is not None and self.ledger is not None:
            if not self.pulse.beats():
                self.goes_on()
            is_ready = self.ledger.is_ready
            if self._was_ready and not is_ready:
                self._retire(self.ledger.why_not_ready)
            self._was_ready = is_ready
            pause_s = until_look(BEAT_S if self.is_shared else ALONE_S)
            self._beat = asyncio.get_running_loop().call_later(pause_s, self.beat)

    def _retire(self, reason: str) -> None:
        """The list is kept elsewhere from here on: who follows it here would never hear of anything again."""
        following = [dialogue for dialogue in self.dialogues if dialogue.is_streaming]
        log = logger(role=PROTOCOL)
        log.warning("master.retired", subscribers=len(following), problem=reason)
        for dialogue in following:
            dialogue.retire(reason)

    @property
    def is_shared(self) -> bool:
        """Whether there are other masters of the same list, to whom clients may have gone."""
        return self.ledger is not None and self.ledger.is_shared

    def goes_on(self) -> bool:
        """It has stood still: where there are other masters who spoke before is cut off, they are there now; and False."""
        if not self.is_shared:
            return True
        log = logger(role=PROTOCOL)
        log.warning("master.stood_still", connections=len(self.dialogues))
        for dialogue in list(self.dialogues):
            dialogue.connection.reset()
        return False

    def stop(self) -> None:
        """No more looks."""
        if self._beat is not None:
            self._beat.cancel()

    @property
    def login_timeout_s(self) -> float:
        """All the time there is for a login."""
        return self.config.login_timeout_s

    def __call__(self, connection: Connection) -> "MupdateDialogue":
        return MupdateDialogue(connection, self)


class MupdateDialogue(AloneDialogue):
    """One connection to a MUPDATE server."""

    protocol = PROTOCOL
    service: MupdateService
    session: MupdateServerSession
    held_octets = HELD_OCTETS

    def __init__(self, connection: Connection, service: MupdateService) -> None:
        config = service.config
        session = MupdateServerSession(config.max_line_bytes, config.max_literal_bytes)
        super().__init__(connection, session, config.login_timeout_s)
        self.activity_counts = False
        self.service = service
        self.peer = None
        self._writes = Writes(
            self, service.ledger, bounds_of(config), service.counters, service.pulse
        )
        self._is_narrow = False  # nothing is written before what there was is taken
        self._held = None
        self._subscriber: Subscriber | None = None
        service.dialogues.add(self)
        service.counters.connections += 1

    @property
    def is_streaming(self) -> bool:
        """Whether the peer follows the list."""
        return self._subscriber is not None

    def retire(self, reason: str) -> None:
        """End the stream: with BYE, or at once where the list is just being told."""
        if self._subscriber is None:
            return
        if self._subscriber.is_live:
            self._bye(f"{UNAVAILABLE}{reason}")
        else:
            self._subscriber.cut(reason)

    def describe(self) -> SessionShown:
        user = self.peer.name if self.peer else ""
        state = STREAMING if self._subscriber is not None else ""
        return replace(super().describe(), user=user, state=state)

    # The banner, errors, the end

    def begin(self) -> None:
        super().begin()
        sock = self.connection.transport.get_extra_info("socket")
        self.connection.read_at_most(UNREAD_OCTETS)
        self.connection.write_at_most(UNTAKEN_OCTETS)
        # who is silent for ever, as a backend may be, is asked by TCP whether it is there
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def greet(self) -> None:
        """Nobody is greeted where there is no list to speak of (any more): who has other masters goes there at once. A Cyrus
        calls again later; its replica would end at a BYE here until its supervisor starts it no more, and a NO to
        UPDATE it takes for an empty list."""
        service = self.service
        if service.ledger is not None and not service.ledger.is_ready:
            self.session.ended()
            self.connection.reset()
            return
        offered = service.gate.mechanisms(self.connection, PROTOCOL)
        self.send(
            format_banner(
                Banner(
                    host=service.server_name,
                    implementation=IMPLEMENTATION,
                    version=__version__,
                    master=service.master,
                    mechanisms=offered,
                    starttls=service.tls is not None and not self.connection.is_tls,
                    compress=True,
                    partial_update=True,
                    mark=service.mailboxes.mark(),
                    force=service.ledger is not None,
                    lists=OUR_LISTS,
                )
            )
        )

    def failed(self, event: Event, error: Exception) -> None:
        """The one place where an exception becomes a MUPDATE reply, and is logged."""
        tag = event.tag if isinstance(event, Command | Wrong) else b"*"
        verb = event.verb.name if isinstance(event, Command) else ""
        self.note_failure(error, command=verb)
        match error:
            case BadSyntax():
                self.send(format_status(tag, Kind.BAD, error.text))
                self.was_malformed()
            case Refusal(code=Code.UNAVAILABLE):
                self.send(format_status(tag, Kind.NO, f"{UNAVAILABLE}{error.text}"))
            case Refusal():
                self.send(format_status(tag, Kind.NO, error.text))
            case UpstreamFailure():
                self.send(format_status(tag, Kind.NO, AWAY))
            case TimeoutError():
                self.timed_out()
            case _:
                self.send(format_status(tag, Kind.NO, "internal error; the log has it"))

    def was_malformed(self) -> None:
        """One more command that is none."""
        if self.count_bad():
            self._bye("too many bad commands")

    def say_hopeless(self, error: BadSyntax) -> None:
        self._bye(error.text)

    def timed_out(self) -> None:
        self._bye("idle for too long" if self.peer else "login took too long")

    def _bye(self, text: str, tag: bytes = b"*") -> None:
        self.session.ended()
        self.send(format_status(tag, Kind.BYE, text))
        self.close()

    def say_bye(self, text: str, code: Code = Code.UNAVAILABLE) -> None:
        self._bye(text)

    def ended(self) -> None:
        self.service.dialogues.discard(self)
        self.service.untaken.forget(self)
        self.service.counters.connections -= 1
        if self._subscriber is not None:
            self.service.hub.remove(self._subscriber)

    def is_quiet(self) -> bool:
        return super().is_quiet() and self._writes.is_answered

    def _pump(self) -> None:
        super()._pump()
        if not self._writes.is_idle:
            self._writes.submit()

    def send(self, data: bytes) -> None:
        """At once; while input is taken up, with what else is said to it."""
        if self._pumping:
            self.connection.gather(data, later=False)
        else:
            self.connection.write(data)
        if len(data) >= NOTED_OCTETS:
            self._note_untaken()

    async def send_all(self, data: bytes) -> None:
        """For `stream.Outlet`: in pieces, as the peer takes them. What waits here waits once; in TLS, twice and more. Raises
        ConnectionResetError."""
        for at in range(0, len(data), PIECE_OCTETS):
            self.send(data[at : at + PIECE_OCTETS])
            await self.flush()

    def _note_untaken(self) -> None:
        untaken = self.service.untaken
        untaken.note(self)
        if untaken.is_spent is not self._is_narrow and not self.connection.is_lost:
            self._is_narrow = untaken.is_spent
            self.connection.write_at_most(1 if self._is_narrow else UNTAKEN_OCTETS)

    def untaken_octets(self) -> int:
        """For `untaken.Peer`."""
        return self.connection.pending()

    def writable(self) -> None:
        self._note_untaken()
        if self._subscriber is not None:
            self._subscriber.writable()
        super().writable()

    @property
    def is_full(self) -> bool:
        """For `stream.Outlet`."""
        return self.connection.writing_paused

    def cut(self, reason: str) -> None:
        """For `stream.Outlet`."""
        self.log.warning("subscriber.cut", problem=reason)
        self.connection.abort()

    # Dispatch

    def may_proceed(self) -> bool:
        return self._held is None and not self._writes.is_full

    def is_done(self) -> bool:
        return super().is_done() and self._writes.is_answered

    def handle(self, event: Event) -> Running:
        if type(event) is list:
            self.bad_commands = 0
            self._writes.add_all(event)
            return None
        if type(event) is Command:
            if event.verb in WRITES and self.session.state is State.AUTHENTICATED:
                assert self.peer is not None
                self.bad_commands = 0
                if event.verb is Verb.FORCE:
                    words = b" ".join(event.args).decode("utf-8", "backslashreplace")
                    self.service.audit.note("FORCE", {**self.log_facts(), "arguments": words})
                self._writes.add(event, self.peer)
                return None
            if not self._writes.is_idle:
                self._held = event
                return None
            return self._run_command(event)
        if not self._writes.is_idle:
            if isinstance(event, Wrong):
                self._writes.refuse(event.tag, event.error)
                return None
            assert isinstance(event, Owed)
        if isinstance(event, Owed):
            self.send(event.octets)
        elif isinstance(event, Wrong):
            raise event.error
        else:
            raise Misuse(f"nobody waits for {type(event).__name__}")
        return None

    def _run_command(self, command: Command) -> Running:
        self.session.check(command)
        self.bad_commands = 0
        if command.verb in TELLING and self.service.ledger is not None:
            self.service.ledger.check_ready()
        match command.verb:
            case Verb.NOOP:
                return self._noop(command)
            case Verb.FIND:
                return self._find(command)
            case verb if verb in LISTS:
                return self._list(command)
            case Verb.UPDATE | Verb.FOLLOW:
                return self._stream(command)
            case Verb.AUTHENTICATE:
                return self._authenticate(command)
            case Verb.STARTTLS:
                return self._starttls(command)
            case Verb.COMPRESS:
                return self._compress(command)
            case Verb.LOGOUT:
                self._bye("bye-bye", command.tag)
                return None
            case _:
                raise Misuse(f"{command.verb} is a write")

    def written(self) -> None:
        """The read that waited, then what has come in meanwhile."""
        if not self._writes.is_answered or self.connection.is_lost or self.is_closing:
            return
        if self._held is not None:
            command, self._held = self._held, None
            self._start(command)
        if self.session.held:
            self.resume()
        elif self.connection.is_held_back:
            self.connection.resume_reading()
        if self._input_ended:
            self.loop.call_soon(self.close_if_done)  # behind what goes on now

    # Reads

    def _find(self, command: Command) -> Running:
        ledger, row = self.service.ledger, self.service.mailboxes.row(command.args[0])
        if row is None and ledger is not None and ledger.is_shared:
            return self._find_at_present(ledger, command)
        self.send(format_found(command.tag, command.args[0], row))
        return None

    async def _find_at_present(self, ledger: Ledger, command: Command) -> None:
        """Not here: another master may know of it already."""
        await ledger.catch_up()
        name = command.args[0]
        self.send(format_found(command.tag, name, self.service.mailboxes.row(name)))

    async def _list(self, command: Command) -> None:
        """All rows, or those of a location; or those of a hierarchy or an identifier, as of now at any master."""
        ledger = self.service.ledger
        if ledger is not None and ledger.is_shared:
            await self._come_to_present(ledger, must=command.verb in AS_OF_NOW)
        for rows in pages(self.service.mailboxes, command):
            if rows:
                lines = format_rows(command.tag, rows)
                del rows  # their octets wait for the peer once, not twice
                await self.send_all(lines)
            await self.rest()
        self.send(b'%b OK "list complete"\r\n' % command.tag)

    async def _come_to_present(self, ledger: Ledger, *, must: bool = True) -> bool:
        """Until all is here that any master has acknowledged; whether that is so. Where it cannot be told, UpstreamFailure
        if it must; else what is here serves: a backend that compares its mailboxes with an old list deletes none."""
        try:
            await ledger.catch_up()
        except (UpstreamFailure, Refusal):
            if must:
                raise
            ledger.check_ready()  # the list may have gone just now
            return False
        return True

    def _noop(self, command: Command) -> Running:
        ok = b'%b OK "Noop done"\r\n' % command.tag
        if self.service.ledger is not None and self.service.ledger.is_shared:
            return self._noop_at_present(self.service.ledger, ok)
        if self._subscriber is not None and not self._subscriber.is_current():
            return self._noop_when_current(self._subscriber, ok)
        self.send(ok)
        return None

    async def _noop_at_present(self, ledger: Ledger, ok: bytes) -> None:
        """Other masters commit, too: what they have acknowledged counts."""
        await ledger.catch_up()
        if self._subscriber is None:
            self.send(ok)
        else:
            await self._noop_when_current(self._subscriber, ok)

    async def _noop_when_current(self, subscriber: Subscriber, ok: bytes) -> None:
        """RFC 3656 §4.8: the OK says that all pending updates have been sent."""
        while not subscriber.is_current():
            await self.flush()
            await self.rest()
        self.send(ok)

    async def _stream(self, command: Command) -> None:
        self.session.check(command)  # BYE may have been said since the command came
        service = self.service
        ok = b'%b OK "streaming starts"\r\n' % command.tag
        is_present = True
        if service.ledger is not None and service.ledger.is_shared:
            is_present = await self._come_to_present(service.ledger, must=False)
        if command.verb is Verb.FOLLOW:
            seq = None
            if command.args:
                mark = command.args[0].decode("ascii", "replace")
                seq = service.mailboxes.seq_of_mark(mark)
                if seq is None and not is_present and service.mailboxes.is_behind(mark):
                    # who has more than this master keeps it, and asks another one, or later
                    raise Refusal(Code.UNAVAILABLE, "the list here is older than that, for now")
                if seq is None:
                    raise Refusal(Code.CANNOT, why_not_from(service.mailboxes, mark))
            subscriber = Subscriber(service.hub, self, command.tag, positions=True)
        else:
            seq = None
            if any(not host for host in command.args):
                raise BadSyntax("Badly formed arguments")
            subscriber = Subscriber(service.hub, self, command.tag, hosts=command.args)
        self._subscriber = subscriber
        self.session.streaming()
        self.log.info("subscriber.began", command=command.verb.name, resumed=seq is not None)
        await subscriber.run(seq, ok)

    # Getting in

    async def _authenticate(self, command: Command) -> None:
        mechanism = command.args[0].decode("ascii", "replace").upper()
        user = ""
        try:
            initial = decode_response(command.args[1]) if len(command.args) > 1 else None
            login = await self.sasl(mechanism, initial)
            user = login.user
            peer = peer_of(self.service.config, login, mechanism, self.connection.certificate)
            self._check_connections(peer)
        except Refusal as error:
            user = error.user if isinstance(error, NotAdmitted) else user
            if self.login_failed(user, error.text):
                self.send(format_status(command.tag, Kind.NO, error.text))
                self._bye("too many failed logins")
                return
            raise
        if self.session.state is State.LOGOUT:  # an operator has ended it meanwhile
            return
        self.peer = peer
        self.session.logged_in()
        self.entered_as(login, self._idle_timeout_s(), admin=peer.is_admin)
        self.send(format_status(command.tag, Kind.OK, "Authenticated"))

    def _check_connections(self, peer: Peer) -> None:
        """Raises Refusal where a node or an operator has as many as they may have: a key that was stolen does not take all
        there are."""
        most = self.service.config.max_connections_per_node
        if not most or not (peer.servers or self.connection.certificate is not None):
            return
        names = [dialogue.peer.name for dialogue in self.service.dialogues if dialogue.peer]
        present = names.count(peer.name)
        if present >= most:
            raise Refusal(
                Code.LIMIT,
                f"{peer.name} has {present} connections here, and may have no more (mupdate.max_connections_per_node)",
            )

    def _idle_timeout_s(self) -> float:
        configured = self.service.config.idle_timeout_s
        return max(configured, LEAST_IDLE_S) if configured else NEVER_S

    async def ask(self, challenge: bytes) -> bytes:
        """RFC 3656 §4.2: base64 and CRLF, no string. `*` cancels."""
        self.send(b64encode(challenge) + b"\r\n")
        self.session.expect_line()
        try:
            event = await self.next_event(self.time_left_s)
        finally:
            self.session.expect_line(False)
        if not isinstance(event, Line):
            raise BadSyntax("a SASL response is a line of base64")
        if event.octets == b"*":
            raise BadSyntax("Client canceled authentication")
        return decode_response(event.octets)

    async def _starttls(self, command: Command) -> None:
        if self.connection.is_tls:
            raise Refusal(Code.CANNOT, "TLS is active already")
        if self.service.tls is None:
            raise BadSyntax("STARTTLS is not offered")  # RFC 3656 §4.10
        if self.connection.is_deflated:
            raise BadSyntax("STARTTLS must come before COMPRESS")
        await self.switch_to_tls(format_status(command.tag, Kind.OK, "Begin TLS negotiation now"))
        self.session.take_rest()
        self.greet()

    def _compress(self, command: Command) -> Running:
        if command.args[0].upper() != b"DEFLATE":
            raise Refusal(Code.CANNOT, "Unknown COMPRESS algorithm")
        if self.connection.is_deflated:
            raise Refusal(Code.CANNOT, "DEFLATE is active already")
        self.deflate(format_status(command.tag, Kind.OK, "DEFLATE active"))
        return None
