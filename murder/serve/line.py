"""What POP3 and LMTP have in common: lines, the table of commands, SASL in lines."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from enum import Enum, auto
from typing import Any, ClassVar, Final

from murder.errors import BadSyntax, Misuse
from murder.model.identity import Login
from murder.net.connection import Connection
from murder.serve.client import ClientDialogue, Running
from murder.serve.service import ClientService
from murder.session.lines import MAX_LINE_OCTETS, Line, LineSession
from murder.wire.base64line import decode_base64

PRE_LOGIN_LINE_OCTETS: Final = 20 * 1024  # a SASL response of 12 KiB in base64, and a command


class Phase(Enum):
    """Whether somebody is in."""

    STRANGER = auto()
    LOGGED_IN = auto()


STRANGER: Final = frozenset({Phase.STRANGER})
LOGGED_IN: Final = frozenset({Phase.LOGGED_IN})
ANY: Final = STRANGER | LOGGED_IN


@dataclass(frozen=True, slots=True)
class Row:
    """One command: when it is allowed, who carries it out with its arguments (at once, or as a coroutine), and what else
    is to be known of it before that."""

    phases: frozenset[Phase]
    run: Callable[[Any, bytes], Running]
    _: KW_ONLY
    offered: Callable[[Any], bool] | None = None  # where it is not always
    pipelined: bool = False  # LMTP: goes on while replies to others like it are on their way


Table = Mapping[bytes, Row]


class LineDialogue(ClientDialogue):
    """A connection whose commands are lines."""

    TABLE: ClassVar[Table] = {}
    service: ClientService
    session: LineSession

    def __init__(self, connection: Connection, service: ClientService) -> None:
        limits = service.limits
        super().__init__(
            connection,
            LineSession(min(limits.max_line_bytes, PRE_LOGIN_LINE_OCTETS)),
            limits.login_timeout_s,
        )
        self.write_timeout_s = limits.write_timeout_s
        self.activity_counts = False  # until the login
        self.service = service

    # --- what a protocol gives

    def cut(self, line: bytes) -> tuple[bytes, bytes]:
        """A command line's keyword, in upper case, and its arguments. Raises BadSyntax."""
        keyword, _, arguments = line.partition(b" ")
        return keyword.upper(), arguments

    def not_allowed(self, keyword: bytes, row: Row | None) -> Running:
        """For a command that is none, or not now. Raises BadSyntax."""
        raise NotImplementedError

    def say_wrong(self, text: str, *, closing: bool) -> None:
        """A syntax error's reply, without its end if the connection ends with it."""
        raise NotImplementedError

    def challenge(self, octets: bytes) -> bytes:
        """A SASL challenge as a line of this protocol; `octets` is base64."""
        raise NotImplementedError

    # --- the loop

    def handle(self, event: Any) -> Running:
        if not isinstance(event, Line):
            raise Misuse(f"nobody waits for {type(event).__name__}")
        return self.run(event.octets)

    def run(self, line: bytes) -> Running:
        """Carry out one command line."""
        keyword, arguments = self.cut(line)
        row = self.TABLE.get(keyword)
        if row is None:
            return self.not_allowed(keyword, row)
        if row.phases is not ANY:  # to look it up is a call
            phase = Phase.STRANGER if self.login is None else Phase.LOGGED_IN
            if phase not in row.phases:
                return self.not_allowed(keyword, row)
        if row.offered is not None and not row.offered(self):
            return self.not_allowed(keyword, row)
        running = row.run(self, arguments)
        # a coroutine may still find it malformed, and says itself when it does not
        if running is None:
            self.understood()
        return running

    def say_hopeless(self, error: BadSyntax) -> None:
        self.say_wrong(str(error), closing=True)
        self.close()

    def malformed(self, error: BadSyntax) -> None:
        """Reply, log, and end it with who sends nothing else."""
        self.note_failure(error)
        is_last = self.count_bad()
        self.say_wrong(str(error), closing=is_last)
        if is_last:
            self.close()

    def understood(self) -> None:
        self.bad_commands = 0

    # --- SASL

    async def authenticate(self, arguments: bytes) -> Login:
        """`mechanism [initial-response]`, to its end. Raises BadSyntax, NotAdmitted, UpstreamFailure."""
        words = arguments.split()
        if not 1 <= len(words) <= 2:
            raise BadSyntax("AUTH takes a mechanism and maybe an initial response")
        initial = None
        if len(words) == 2:
            initial = b"" if words[1] == b"=" else decode_base64(words[1])
        return await self.sasl(words[0].decode("ascii", "replace").upper(), initial)

    async def ask(self, challenge: bytes) -> bytes:
        self.send(self.challenge(base64.b64encode(challenge)))
        event = await self.next_event(self.time_left_s)
        if not isinstance(event, Line) or event.octets.rstrip(b" \t") == b"*":
            raise BadSyntax("AUTH was cancelled")
        return decode_base64(event.octets)

    def now_known(self) -> None:
        """The peer is somebody we work for: from here on only silence ends it. Who it is nobody has proven: its lines stay
        short."""
        limits = self.service.limits
        self.begin_time(limits.idle_timeout_s, activity_counts=True)
        self.connection.became_known()

    def entered(self, login: Login) -> None:
        """Somebody has logged in."""
        limits = self.service.limits
        self.session.max_line = min(limits.max_line_bytes, MAX_LINE_OCTETS)
        self.entered_as(
            login,
            limits.idle_timeout_s,
            proxy=login.proxy,
            admin=login.is_admin,
            tls=self.connection.is_tls,
        )
