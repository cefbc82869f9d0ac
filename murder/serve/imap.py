"""IMAP before and at login, and the dispatch of everything after it; the base of both roles' IMAP dialogues.

RFC 3501 §6.1 and §6.2. The commands themselves are in `imap_commands`. What a
command may do in which state stands in one table a role; rows of this file are in `LOGIN_ROWS`.
"""

import base64
import contextlib
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Final

from murder import __version__
from murder.errors import BadSyntax, Code, Misuse, Refusal
from murder.model.address import MAX_HOPS, hops_behind
from murder.model.identity import Login
from murder.model.name import MailboxName, Namespace, display
from murder.net.connection import Connection
from murder.serve.client import NO_COMMAND, ClientDialogue, Running
from murder.serve.service import ClientService
from murder.serve.watched import BackendSession
from murder.session.imap_server import (
    Event,
    ImapServerSession,
    Line,
    Owed,
    State,
    Wrong,
)
from murder.trail.audit import MAX_ARGUMENTS
from murder.trail.spans import Spans, token_in
from murder.wire import mutf7
from murder.wire.base64line import decode_base64
from murder.wire.imap.command import Command
from murder.wire.imap.id import (
    HOPS_FIELD,
    ORIGIN_FIELD,
    PIPE_FIELD,
    PORT_FIELD,
    SESSION_FIELD,
)
from murder.wire.imap.response import (
    Status,
    bye,
    continuation,
    status_for,
    status_line,
)
from murder.wire.nodes.control_answers import SessionShown
from murder.wire.token import Scanner

NOT_AUTHENTICATED: Final = frozenset({State.NOT_AUTHENTICATED})
AUTHENTICATED: Final = frozenset({State.AUTHENTICATED, State.SELECTED})
SELECTED: Final = frozenset({State.SELECTED})
ANY: Final = frozenset({State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED})


@dataclass(frozen=True, slots=True)
class Row:
    """One command: in which states it is allowed, who carries it out (at once, or as a coroutine), and what else is to be
    known of it before that."""

    states: frozenset[State]
    run: Callable[[Any, Command], Running]
    _: KW_ONLY
    streams: bool = False  # its message comes as a stream: a large literal is not collected
    # its arguments or answers are sequence numbers: not with UIDONLY (RFC 9586 §3.2)
    numbered: bool = False
    relayed: bool = False  # at a frontend: goes to the selected backend as it is
    inside: bool = False  # of the selected mailbox: may be begun anew where that has moved to
    audited: bool = False  # changes what others have
    names: int = 0  # so many of its arguments, the first ones, are mailboxes: for the audit trail


Table = Mapping[bytes, Row]


# what cyradm looks for in the answer to its CAPABILITY, which it sends before login only
ASKED_EARLY: Final = frozenset(
    {b"CREATE-SPECIAL-USE", b"LIST-EXTENDED", b"METADATA", b"SPECIAL-USE"}
)


NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})
NAMED: Final = ("mailbox", "target")  # in the audit trail
MAX_ENTRY: Final = 200  # octets of an annotation's name that are shown
_MAILBOX: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[^ ("]++', re.DOTALL)
# One string of a list, or the announcement of one
_VALUE: Final = re.compile(
    rb'[ (]*+(?:~?\{([0-9]{1,10})\+?\}\r?\n|("(?:[^"\\]++|\\.)*+"|[^ ()"]++))', re.DOTALL
)


class ImapDialogue(ClientDialogue):
    """An IMAP connection. Roles give `TABLE`, `capabilities`, `entered`, `in_utf8`."""

    TABLE: ClassVar[Table] = {}
    STREAMED: ClassVar[frozenset[bytes]] = frozenset()  # those of its rows, for the session
    RELAYED: ClassVar[frozenset[bytes]] = frozenset()  # likewise, for the hot path
    protocol = "imap"
    service: ClientService
    session: ImapServerSession
    client_id: Mapping[str, str] = NO_FIELDS  # of ID
    enabled: frozenset[bytes] = frozenset()
    was_closed_unasked = False  # the mailbox that was selected: the client may not have read so yet

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

    # --- what a role gives

    def capabilities(self) -> bytes:
        """The capability words of this role after login, IMAP4rev1 first."""
        raise NotImplementedError

    async def entered(self) -> None:
        """The client has logged in; the tagged OK follows. May raise to refuse them."""

    @property
    def in_utf8(self) -> bool:
        """Whether this client reads and writes names in UTF-8 (RFC 6855, RFC 9051)."""
        raise NotImplementedError

    def closing_words(self) -> bytes:
        """Untagged responses that a role owes before BYE."""
        return b""

    def describe(self) -> SessionShown:
        state = self.session.state.name.lower()
        return replace(super().describe(), state=state)

    # --- names

    @property
    def user(self) -> Login:
        """Who is logged in."""
        if self.login is None:
            raise Misuse("nobody is logged in")
        return self.login

    @property
    def namespace(self) -> Namespace:
        """How this site names mailboxes to clients."""
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

    def note_session(self, spans: Spans) -> None:
        """A proxy may have told that this is part of a session that is traced."""
        token = token_in(self.client_id.get(SESSION_FIELD, ""))
        if token and self.service.role == "backend" and self.service.gate.is_proxy(self.connection):
            self.no_longer_watched()
            self.watched = BackendSession(spans, token, self.protocol)

    def take_client_id(self, client: Mapping[str, str]) -> None:
        """ID, in which a proxy tells for whom it speaks. A node of ours does so also for who is in already: it keeps its
        connections for a user's next session."""
        self.client_id = client
        hops = hops_behind(client.get(HOPS_FIELD, ""))
        self.connection.hops_left = MAX_HOPS if hops is None else hops
        if ORIGIN_FIELD not in client and SESSION_FIELD not in client:
            return
        login = self.login
        is_nodes = login is not None and login.proxy and self.service.gate.is_proxy(self.connection)
        if is_nodes or self.may_tell_client:
            fields = (ORIGIN_FIELD, PORT_FIELD, SESSION_FIELD)
            self.is_clients(*(client.get(field, "") for field in fields))

    def greet(self) -> None:
        connection, kept = self.connection, self.service.greetings
        key = (self.protocol, connection.is_tls, connection.certificate is not None)
        greeting = kept.get(key)
        if greeting is None:
            text = f"{self.service.server_name} murder {__version__} server ready"
            code = b"CAPABILITY " + self.capability_words()
            greeting = kept[key] = status_line(b"*", b"OK", text, code)
        if connection.is_plain:
            connection.transport.write(greeting)
        else:
            connection.write(greeting)

    def send_ok(self, command: Command, text: str = "Completed", code: bytes = b"") -> None:
        """The tagged OK, and nothing before it."""
        self.send(status_line(command.tag, b"OK", text, code))

    def conclude(self, command: Command, text: str = "Completed", code: bytes = b"") -> Running:
        """The end of a command: what is to be told first is the role's to know."""
        self.send_ok(command, text, code)
        return None

    def send_status(self, command: Command, status: Status) -> None:
        """The tagged response that stands for an error."""
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
        if self.login is None and name.encode() not in self.TABLE:
            name = ""  # as PASS, from who speaks POP3 here, is followed by a password
        if isinstance(error, TimeoutError):
            self.timed_out()
            return
        self.note_failure(error, command=name)
        if isinstance(error, BadSyntax) and self.count_bad():
            self.send(bye("Too many bad commands"))
            self.close()
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

    def say_hopeless(self, error: BadSyntax) -> None:
        self.send(bye(f"This is no IMAP: {error}"))
        self.close()

    def timed_out(self) -> None:
        self.send(self.closing_words() + bye("Autologout; idle for too long"))
        self.close()

    def say_bye(self, text: str, code: Code = Code.UNAVAILABLE) -> None:
        self.send(self.closing_words() + bye(text, code.value.encode()))
        self.close()

    # --- dispatch

    def handle(self, event: Event) -> Running:
        if isinstance(event, Command):
            row = self.TABLE.get(event.name)
            if row is not None and self.session.state in row.states:
                self.bad_commands = 0
                return self._begin_audited(row, event) if row.audited else row.run(self, event)
            self._not_allowed(event, row)
        elif isinstance(event, Owed):
            self.send(event.octets)
        elif isinstance(event, Wrong):
            raise event.error
        else:
            raise Misuse(f"nobody waits for {type(event).__name__}")
        return None

    def _begin_audited(self, row: Row, command: Command) -> Running:
        def answer(error: Exception) -> str:
            return self.status_for(error).line(b"").decode("utf-8", "replace").strip()

        arguments = shown_arguments(command)
        named = self._mailboxes_named(row, command)
        return self.run_audited(
            lambda: row.run(self, command), command.name.decode(), arguments, answer, named
        )

    def _mailboxes_named(self, row: Row, command: Command) -> dict[str, str]:
        """For the audit trail: as administrators write them, whatever the client calls them; what is none is left out."""
        scanner, names = Scanner(command.octets, command.start), dict[str, str]()
        with contextlib.suppress(BadSyntax, Refusal):
            for key in NAMED[: row.names]:
                scanner.space()
                name = self.name_of(scanner.astring())
                names[key] = mutf7.decode_leniently(self.namespace.external(name, ""))
        return names

    def _not_allowed(self, command: Command, row: Row | None) -> None:
        if command.literal is not None:
            self.session.refuse_literal(command.literal)
        name = command.name.decode()
        if row is None:
            raise BadSyntax(f"{name}{NO_COMMAND} of this server")
        if self.session.state is State.NOT_AUTHENTICATED:
            raise BadSyntax(f"{name} is allowed only after login")
        if row.states == SELECTED:
            if self.was_closed_unasked:
                text = "The mailbox has been closed, and this was not done: select it again"
                raise Refusal(Code.UNAVAILABLE, text)
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
        """All that is true at this moment; before login also what will be needed then (cyradm asks once)."""
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
            if self.login is not None and self.login.is_piped:
                words = [word for word in words if word != b"UNAUTHENTICATE"]
        if self.session.literal_minus:
            words = [b"LITERAL-" if word == b"LITERAL+" else word for word in words]
        if not suppressed:
            return b" ".join(words)
        return b" ".join(word for word in words if word.upper() not in suppressed)

    def _login_words(self) -> list[bytes]:
        gate = self.service.gate
        words = [
            b"AUTH=" + name.encode() for name in gate.mechanisms(self.connection, self.protocol)
        ]
        if self.service.tls is not None and not self.connection.is_tls:
            words.insert(0, b"STARTTLS")
        if not gate.takes_passwords(self.connection):
            words.append(b"LOGINDISABLED")
        return words

    # --- login

    async def enter(self, command: Command, login: Login) -> None:
        """Let the client in and say so. Refuses, with everything as before, where the role does."""
        if PIPE_FIELD in self.client_id:
            login = replace(login, is_piped=True)
        self.count_in(login)
        self.login = login
        self.session.logged_in()
        entered = False
        try:
            await self.entered()
            entered = True
        finally:
            if not entered:
                self.count_out()
                self.login = None
                self.session.logged_out()
        limits = self.service.limits
        self.session.literal_minus = limits.literal_minus and not login.by_proxy  # a proxy streams
        self.entered_as(
            login,
            limits.idle_timeout_s,
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
        """A role forgets what is its own first."""
        self.enabled = frozenset()
        self.client_id = NO_FIELDS
        self.session.logged_out()
        self.session.literal_minus = self.service.limits.literal_minus
        super().forget_login()

    async def ask(self, challenge: bytes) -> bytes:
        self.send(continuation(base64.b64encode(challenge)))
        line = await self.next_line(self.time_left_s)
        if line.rstrip(b" \t") == b"*":
            raise BadSyntax("AUTHENTICATE was cancelled")
        return decode_base64(line)


def shown_arguments(command: Command) -> str:
    """For the audit trail: as they came, cut where they are long. Of annotations the names alone: values may be private."""
    octets = command.octets[command.start : command.start + MAX_ARGUMENTS].strip()
    if command.name == b"SETMETADATA":
        octets = b" ".join(_annotations_named(octets))
    return octets.decode("utf-8", "backslashreplace")


def _annotations_named(octets: bytes) -> list[bytes]:
    """The mailbox, and every second string of the list behind it."""
    mailbox = _MAILBOX.match(octets)
    if mailbox is None:
        return []
    names = [mailbox[0]]
    at, is_name = mailbox.end(), True
    while (value := _VALUE.match(octets, at)) is not None:
        at = value.end()
        if value[1] is not None:
            literal = octets[at : at + int(value[1])]
            at += int(value[1])
        else:
            literal = value[2].strip(b'"')
        if is_name and literal.startswith(b"/"):
            names.append(literal[:MAX_ENTRY])
        is_name = not is_name
    return names


@functools.cache  # of what one configuration says
def _upper(words: tuple[str, ...]) -> frozenset[bytes]:
    return frozenset(word.upper().encode() for word in words)
