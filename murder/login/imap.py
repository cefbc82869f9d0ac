"""IMAP before and at login, and the dispatch of everything after it; the base of both roles' IMAP dialogues.

RFC 3501 §6.1 and §6.2, RFC 4959 (SASL-IR), RFC 2971 (ID), RFC 5161 (ENABLE), RFC 8437 (UNAUTHENTICATE is the role's). What a
command may do in which state stands in one table a role; rows of this file are in `LOGIN_ROWS`.
"""

import base64
import binascii
import functools
import re
import ssl
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Final

from murder import __version__
from murder.errors import BadSyntax, Code, Misuse, Refusal, UpstreamFailure
from murder.log import Log, logger
from murder.login.gate import Login, NotAdmitted, as_given, run_sasl
from murder.login.service import ClientService
from murder.model.name import MailboxName, Namespace, display
from murder.net.connection import Connection
from murder.net.dialogue import Dialogue
from murder.session.imap_server import (
    Event,
    ImapServerSession,
    Line,
    Owed,
    State,
    Wrong,
)
from murder.session.sasl import MAX_RESPONSE_OCTETS, PlainCredentials
from murder.wire import mutf7
from murder.wire.imap.command import Command
from murder.wire.imap.response import (
    Status,
    bye,
    continuation,
    status_for,
    status_line,
    untagged,
)
from murder.wire.token import Scanner, nstring

Running = Coroutine[Any, Any, None] | None

NOT_AUTHENTICATED: Final = frozenset({State.NOT_AUTHENTICATED})
AUTHENTICATED: Final = frozenset({State.AUTHENTICATED, State.SELECTED})
SELECTED: Final = frozenset({State.SELECTED})
ANY: Final = frozenset({State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED})

MAX_BAD_COMMANDS: Final = 20  # in a row: then it is no IMAP client
MAX_ID_FIELDS: Final = 30  # RFC 2971 §3.3
MAX_ID_OCTETS: Final = 1024  # of a value, RFC 2971 §3.3: of what is longer the rest is not kept


@dataclass(frozen=True, slots=True)
class Row:
    """One command: in which states it is allowed, who carries it out (at once, or as a coroutine), and what else is to be
    known of it before that."""

    states: frozenset[State]
    run: Callable[[Any, Command], Running]
    _: KW_ONLY
    streams: bool = False  # its message comes as a stream: a large literal is not collected
    numbered: bool = (
        False  # its arguments or answers are sequence numbers: not with UIDONLY (RFC 9586 §3.2)
    )
    relayed: bool = False  # at a frontend: goes to the selected backend as it is
    inside: bool = False  # of the selected mailbox: may be begun anew where that has moved to


Table = Mapping[bytes, Row]


# what cyradm looks for in the answer to its CAPABILITY, which it sends before login only
ASKED_EARLY: Final = frozenset(
    {b"CREATE-SPECIAL-USE", b"LIST-EXTENDED", b"METADATA", b"SPECIAL-USE"}
)


class ImapDialogue(Dialogue):
    """An IMAP connection. Roles give `TABLE`, `capabilities`, `entered`, `in_utf8`."""

    TABLE: ClassVar[Table] = {}
    STREAMED: ClassVar[frozenset[bytes]] = frozenset()  # those of its rows, for the session
    RELAYED: ClassVar[frozenset[bytes]] = frozenset()  # likewise, for the hot path
    session: ImapServerSession

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.STREAMED = frozenset(name for name, row in cls.TABLE.items() if row.streams)
        cls.RELAYED = frozenset(name for name, row in cls.TABLE.items() if row.relayed)

    def __init__(self, connection: Connection, service: ClientService) -> None:
        limits = service.limits
        session = ImapServerSession(
            limits.max_line_bytes,
            limits.max_literal_bytes,
            limits.max_message_bytes,
            streamed=self.STREAMED,
        )
        session.literal_minus = limits.literal_minus
        super().__init__(connection, session, limits.login_timeout_s)
        self.write_timeout_s = limits.write_timeout_s
        self.activity_counts = False
        self.service = service
        self.login: Login | None = None
        self.client_id: dict[str, str] = {}
        self.enabled: set[bytes] = set()
        self._bad_commands = 0
        self._failures = 0
        self._counted_as: str | None = None
        self._log: Log | None = None

    # --- what a role gives

    def capabilities(self) -> bytes:
        """The capability words of this role after login, IMAP4rev1 first."""
        raise NotImplementedError

    async def entered(self) -> None:
        """The client has logged in; the tagged OK follows. May raise to refuse him."""

    @property
    def in_utf8(self) -> bool:
        """Whether this client reads and writes names in UTF-8 (RFC 6855, RFC 9051)."""
        raise NotImplementedError

    def closing_words(self) -> bytes:
        """Untagged responses that a role owes before BYE."""
        return b""

    def describe(self) -> dict[str, object]:
        """For `murder ctl sessions`."""
        return {
            "protocol": "imap",
            "user": self.login.user if self.login else "",
            "address": self.peer_address,
            "proxy": self.login.proxy if self.login else "",
            "state": self.session.state.value,
            "idle_s": round(self.loop.time() - self.active_at, 1),
            **self.details(),
        }

    def details(self) -> dict[str, object]:
        """What a role adds: the selected mailbox, the backends."""
        return {}

    # --- names

    @property
    def user(self) -> Login:
        """Who is logged in."""
        if self.login is None:
            raise Misuse("nobody is logged in")
        return self.login

    @property
    def namespace(self) -> Namespace:
        return self.service.namespace

    def name_of(self, external: bytes) -> MailboxName:
        """The canonical name of what the client calls so. Raises Refusal."""
        if self.in_utf8:
            external = mutf7.from_utf8(external)
        return self.namespace.internal(external, self.user.user)

    def external(self, name: MailboxName) -> bytes:
        """As the client writes it."""
        return self.shown(self.namespace.external(name, self.user.user))

    def shown(self, external: bytes) -> bytes:
        """An external name as this client reads it."""
        return mutf7.to_utf8(external) if self.in_utf8 else external

    # --- greeting, errors, the end

    @property
    def log(self) -> Log:
        """Bound on first use: most connections never log more than their login."""
        if self._log is None:
            self._log = logger(
                role=self.service.role,
                protocol="imap",
                cid=self.connection.cid,
                peer=self.peer_address,
                **({"session": self.client_id["x-session-id"]} if self.is_vouched else {}),
            )
        return self._log

    @property
    def is_vouched(self) -> bool:
        """Whether the peer is a proxy of ours that told (by ID) on whose behalf it speaks."""
        return "x-session-id" in self.client_id and self.service.gate.is_proxy(self.connection)

    @property
    def peer_address(self) -> str:
        """The client's address: the one a proxy vouches for, else the peer's."""
        if self.is_vouched:
            return self.client_id.get("x-originating-ip", self.connection.peer)
        return self.connection.peer

    def greet(self) -> None:
        text = f"{self.service.server_name} murder {__version__} server ready"
        self.send(status_line(b"*", b"OK", text, b"CAPABILITY " + self.capability_words()))

    def send_ok(self, command: Command, text: str = "Completed", code: bytes = b"") -> None:
        self.send(status_line(command.tag, b"OK", text, code))

    def conclude(self, command: Command, text: str = "Completed", code: bytes = b"") -> Running:
        """The end of a command: what is to be told first is the role's to know."""
        self.send_ok(command, text, code)
        return None

    def send_status(self, command: Command, status: Status) -> None:
        self.send(status.line(command.tag))

    def failed(self, event: Event, error: Exception) -> None:
        """Whatever goes wrong, a literal that is still announced is not waited for."""
        literal = getattr(event, "literal", None)
        if isinstance(event, Command) and literal is not None:
            try:
                self.session.refuse_literal(literal)
            except Misuse:
                pass  # it was answered before
            except BadSyntax as hopeless:
                self._reply_to(event, error)
                self.hopeless(hopeless)
                return
        self._reply_to(event, error)

    def _reply_to(self, event: Event, error: Exception) -> None:
        """The one place where an exception becomes an IMAP reply, and is logged."""
        tag = event.tag if isinstance(event, Command | Wrong) else b"*"
        name = event.name.decode() if isinstance(event, Command) else ""
        match error:
            case BadSyntax():
                self.log.info("command.malformed", command=name, problem=str(error))
                self._count_bad()
            case Refusal():
                pass
            case UpstreamFailure():
                self.log.warning(
                    "upstream.failed",
                    command=name,
                    backend=error.server,
                    kind=error.kind.value,
                    problem=error.text,
                )
            case TimeoutError():
                self.timed_out()
                return
            case _:
                self.log.error("command.crashed", command=name, exc_info=error)
        self.send(self.status_for(error).line(tag))

    def status_for(self, error: Exception) -> Status:
        """The reply that an error deserves, with mailboxes as this client calls them."""
        status = status_for(error)
        if not isinstance(error, Refusal) or self.login is None:
            return status
        text = status.text
        for name in sorted(error.names, key=len, reverse=True):
            seen = display(self.external(MailboxName(name))).replace("\\", r"\\")
            text = re.sub(rf"(?<!\S){re.escape(display(name))}(?!\S)", seen, text)
        return replace(status, text=text)

    def hopeless(self, error: BadSyntax) -> None:
        self.log.info("connection.unintelligible", problem=str(error))
        self.send(bye(f"This is no IMAP: {error}"))
        self.close()

    def timed_out(self) -> None:
        self.send(self.closing_words() + bye("Autologout; idle for too long"))
        self.close()

    def say_bye(self, text: str) -> None:
        """The server goes down: the client is told at a quiet point."""
        self.send(self.closing_words() + bye(text, b"UNAVAILABLE"))
        self.close()

    def _count_bad(self) -> None:
        self._bad_commands += 1
        if self._bad_commands >= MAX_BAD_COMMANDS:
            self.send(bye("Too many bad commands"))
            self.close()

    # --- dispatch

    def handle(self, event: Event) -> Running:
        if isinstance(event, Command):
            row = self.TABLE.get(event.name)
            if row is not None and self.session.state in row.states:
                self._bad_commands = 0
                return row.run(self, event)
            self._not_allowed(event, row)
        elif isinstance(event, Owed):
            self.send(event.octets)
        elif isinstance(event, Wrong):
            raise event.error
        else:
            raise Misuse(f"nobody waits for {type(event).__name__}")
        return None

    def _not_allowed(self, command: Command, row: Row | None) -> None:
        if command.literal is not None:
            self.session.refuse_literal(command.literal)
        name = command.name.decode()
        if row is None:
            raise BadSyntax(f"{name} is no command of this server")
        if self.session.state is State.NOT_AUTHENTICATED:
            raise BadSyntax(f"{name} is allowed only after login")
        if row.states == SELECTED:
            raise BadSyntax(f"{name} is allowed only with a mailbox selected")
        raise BadSyntax(f"{name} is not allowed after login")

    async def next_event(self, timeout_s: float | None = None) -> Any:
        """As in Dialogue; what the session owes is sent, a malformed message is raised."""
        while True:
            event = await super().next_event(timeout_s)
            if isinstance(event, Owed):
                self.send(event.octets)
            elif isinstance(event, Wrong):
                raise event.error
            else:
                return event

    async def next_line(self, timeout_s: float | None = None) -> bytes:
        """One raw line from the client (AUTHENTICATE's answer, DONE)."""
        self.session.expect_line()
        try:
            event = await self.next_event(timeout_s)
        finally:
            self.session.expect_line(False)
        assert isinstance(event, Line)
        return event.octets

    # --- capabilities

    def capability_words(self, *, asked: bool = False) -> bytes:
        """All that is true at this moment; who asks before login is also told what he will need then (cyradm asks once)."""
        suppressed = _upper(self.service.limits.suppress_capabilities)
        if self.session.state is State.NOT_AUTHENTICATED:
            words = [
                b"IMAP4rev1",
                b"LITERAL+",
                b"ID",
                b"ENABLE",
                b"SASL-IR",
                *self._login_words(),
            ]
            if asked:
                words += [word for word in self.capabilities().split() if word in ASKED_EARLY]
        else:
            words = self.capabilities().split()
        if self.session.literal_minus:
            words = [b"LITERAL-" if word == b"LITERAL+" else word for word in words]
        if not suppressed:
            return b" ".join(words)
        return b" ".join(word for word in words if word.upper() not in suppressed)

    def _login_words(self) -> list[bytes]:
        words = [b"AUTH=" + name.encode() for name in self.service.gate.mechanisms(self.connection)]
        if self.service.tls is not None and not self.connection.is_tls:
            words.insert(0, b"STARTTLS")
        if not self.service.gate.takes_passwords(self.connection):
            words.append(b"LOGINDISABLED")
        return words

    # --- login

    async def enter(self, command: Command, login: Login) -> None:
        """Let the client in and say so. Refuses, with everything as before, where the role does."""
        self.leave_crowd()
        if not login.proxy:  # which counts its own
            self.service.gate.crowd.enter(login.user)
            self._counted_as = login.user
        self.login = login
        self.session.logged_in()
        entered = False
        try:
            await self.entered()
            entered = True
        finally:
            if not entered:
                self.leave_crowd()
                self.login = None
                self.session.logged_out()
        limits = self.service.limits
        self.begin_time(limits.idle_timeout_s, activity_counts=True)
        self.connection.became_known()
        self.session.literal_minus = limits.literal_minus and not login.proxy  # a proxy streams
        self._log = self.log.bind(user=login.user)
        self.log.info(
            "login.succeeded",
            proxy=login.proxy,
            admin=login.is_admin,
            tls=self.connection.is_tls,
        )
        self.send_ok(
            command,
            f"Logged in as {login.user}",
            b"CAPABILITY " + self.capability_words(),
        )

    def forget_login(self) -> None:
        """As before the login, with TLS, compression and the peer's certificate kept (RFC 8437). A role forgets what is its
        own first."""
        self.leave_crowd()
        self.enabled.clear()
        self.client_id = {}
        self.login = None
        self._log = None
        self.session.logged_out()
        self.session.literal_minus = self.service.limits.literal_minus
        self.begin_time(self.service.limits.login_timeout_s, activity_counts=False)

    def leave_crowd(self) -> None:
        """The user has one connection less (again)."""
        if self._counted_as is not None:
            self.service.gate.crowd.leave(self._counted_as)
            self._counted_as = None

    def lost(self, error: Exception | None) -> None:
        self.leave_crowd()
        super().lost(error)

    def login_failed(self, user: str, error: Refusal) -> None:
        """Count and log; after too many the connection ends behind the reply."""
        self._failures += 1
        self.log.info("login.failed", user=user, problem=error.code.value)

    @property
    def is_worn_out(self) -> bool:
        return self._failures >= self.service.max_failures


@functools.cache  # of what one configuration says
def _upper(words: tuple[str, ...]) -> frozenset[bytes]:
    return frozenset(word.upper().encode() for word in words)


# --- the commands


def run_capability(dialogue: ImapDialogue, command: Command) -> Running:
    Scanner(command.octets, command.start).end()
    dialogue.send(
        untagged(b"CAPABILITY " + dialogue.capability_words(asked=True))
        + status_line(command.tag, b"OK", "Completed")
    )
    return None


def run_reconstruct(dialogue: ImapDialogue, command: Command) -> Running:
    """Cyrus' command (cyradm has it), which mends one mailbox. Here whole stores are checked and mended, by operators."""
    raise Refusal(Code.CANNOT, "Use `murder ctl store check` and `murder ctl store repair`")


def run_logout(dialogue: ImapDialogue, command: Command) -> Running:
    dialogue.send(bye("Logging out") + status_line(command.tag, b"OK", "Completed"))
    dialogue.session.state = State.LOGOUT
    dialogue.close()
    return None


def run_id(dialogue: ImapDialogue, command: Command) -> Running:
    """RFC 2971. A proxy tells its client's address and session here (fields as Dovecot names them)."""
    dialogue.client_id = parse_id(Scanner(command.octets, command.start))
    fields = {"name": "murder", "version": __version__}
    said = b" ".join(nstring(word.encode()) for pair in fields.items() for word in pair)
    dialogue.send(untagged(b"ID (" + said + b")") + status_line(command.tag, b"OK", "Completed"))
    return None


def parse_id(scanner: Scanner) -> dict[str, str]:
    """`id = "ID" SP ("NIL" / "(" *(string SP nstring) ")")`; names in lower case."""
    fields: dict[str, str] = {}
    scanner.space()
    if scanner.accept_word(b"NIL"):
        scanner.end()
        return fields
    scanner.open()
    while not scanner.accept(b")"):
        name = scanner.string()[:MAX_ID_OCTETS].decode("utf-8", "replace").lower()
        scanner.space()
        value = (scanner.nstring() or b"")[:MAX_ID_OCTETS]
        if len(fields) >= MAX_ID_FIELDS:
            raise BadSyntax(f"ID takes {MAX_ID_FIELDS} fields")
        fields[name] = value.decode("utf-8", "replace")
        if scanner.peek() == b" ":
            scanner.space()
    scanner.end()
    return fields


def run_starttls(dialogue: ImapDialogue, command: Command) -> Running:
    Scanner(command.octets, command.start).end()
    if dialogue.service.tls is None:
        raise Refusal(Code.CANNOT, "This server has no certificate")
    if dialogue.connection.is_tls:
        raise BadSyntax("TLS is active already")
    return _starttls(dialogue, command, dialogue.service.tls)


async def _starttls(dialogue: ImapDialogue, command: Command, context: ssl.SSLContext) -> None:
    dialogue.session.take_rest()  # what came in plain text behind STARTTLS was injected (CVE-2011-0411)
    dialogue.send_ok(command, "Begin TLS now")
    try:
        await dialogue.start_tls(context)
    except OSError as error:
        dialogue.log.info("tls.failed", problem=str(error))
        raise ConnectionResetError("no TLS") from error
    dialogue.client_id = {}  # RFC 3501 §6.2.1: forget what was said before


def run_login(dialogue: ImapDialogue, command: Command) -> Running:
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    user = scanner.astring()
    scanner.space()
    password = scanner.astring()
    scanner.end()
    return _login(dialogue, command, user.decode("utf-8", "surrogateescape"), password)


async def _login(dialogue: ImapDialogue, command: Command, user: str, password: bytes) -> None:
    gate = dialogue.service.gate
    try:
        login = await gate.admit(PlainCredentials(user, "", password, "LOGIN"), dialogue.connection)
    except Refusal as refusal:
        _refuse_login(dialogue, command, as_given(user), refusal)
        return
    await _enter(dialogue, command, login)


async def _enter(dialogue: ImapDialogue, command: Command, login: Login) -> None:
    try:
        await dialogue.enter(command, login)
    except Refusal as refusal:
        if refusal.code is not Code.LIMIT:
            raise
        dialogue.log.info("login.failed", user=login.user, problem=refusal.code.value)
        dialogue.send_status(command, status_for(refusal))
        dialogue.send(bye("Too many connections of one user", b"UNAVAILABLE"))
        dialogue.close()


def _refuse_login(dialogue: ImapDialogue, command: Command, user: str, refusal: Refusal) -> None:
    dialogue.login_failed(user, refusal)
    dialogue.send_status(command, status_for(refusal))
    if dialogue.is_worn_out:
        dialogue.send(bye("Too many failed logins"))
        dialogue.close()


def run_authenticate(dialogue: ImapDialogue, command: Command) -> Running:
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    mechanism = scanner.word().decode()
    initial = None
    if not scanner.at_end():
        scanner.space()
        given = scanner.rest().rstrip(b" ")
        initial = b"" if given == b"=" else decode_base64(given)
    scanner.end()
    return _authenticate(dialogue, command, mechanism, initial)


async def _authenticate(
    dialogue: ImapDialogue, command: Command, mechanism: str, initial: bytes | None
) -> None:
    async def ask(challenge: bytes) -> bytes:
        dialogue.send(continuation(base64.b64encode(challenge)))
        line = await dialogue.next_line(dialogue.time_left_s)
        if line == b"*":
            raise BadSyntax("AUTHENTICATE was cancelled")
        return decode_base64(line)

    try:
        login, final = await run_sasl(
            dialogue.service.gate, mechanism, initial, ask, dialogue.connection
        )
    except NotAdmitted as refusal:
        _refuse_login(dialogue, command, refusal.user, refusal)
        return
    if final:
        await ask(final)
    await _enter(dialogue, command, login)


def decode_base64(octets: bytes) -> bytes:
    """One base64 line. Raises BadSyntax."""
    if len(octets) > MAX_RESPONSE_OCTETS:
        raise BadSyntax(f"a SASL response may have {MAX_RESPONSE_OCTETS} octets")
    try:
        return base64.b64decode(octets, validate=True)
    except binascii.Error as error:
        raise BadSyntax(f"that is no base64: {error}") from None


LOGIN_ROWS: Final[Table] = {
    b"CAPABILITY": Row(ANY, run_capability),
    b"RECONSTRUCT": Row(AUTHENTICATED, run_reconstruct),
    b"LOGOUT": Row(ANY, run_logout),
    b"ID": Row(ANY, run_id),
    b"STARTTLS": Row(NOT_AUTHENTICATED, run_starttls),
    b"LOGIN": Row(NOT_AUTHENTICATED, run_login),
    b"AUTHENTICATE": Row(NOT_AUTHENTICATED, run_authenticate),
}
