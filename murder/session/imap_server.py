"""An IMAP session from the server's side, sans-IO: octets in, commands out (RFC 3501, RFC 7888).

Knows where the session stands and how the stream is cut; which command is allowed when stands in each role's table.
Three doors: `receive`, `next_event`, and the literal's answers. It holds no more than its limits allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from murder.errors import BadSyntax, Misuse
from murder.wire.fragment import (
    MAX_LINE_OCTETS,
    MAX_MESSAGE_OCTETS,
    MAX_SKIP_OCTETS,
    STEPS,
    Chunk,
    Fragmenter,
    Literal,
    TooLong,
)
from murder.wire.imap.command import Command, parse_command, tag_of
from murder.wire.imap.response import continuation


class State(Enum):
    """RFC 3501 §3."""

    __hash__ = object.__hash__  # of C: states are looked up before every command

    NOT_AUTHENTICATED = auto()
    AUTHENTICATED = auto()
    SELECTED = auto()
    LOGOUT = auto()


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.NOT_AUTHENTICATED: frozenset({State.AUTHENTICATED, State.LOGOUT}),
    State.AUTHENTICATED: frozenset({State.SELECTED, State.NOT_AUTHENTICATED, State.LOGOUT}),
    # from one mailbox to the next; RFC 8437 §2: UNAUTHENTICATE is allowed here
    State.SELECTED: frozenset(State),
    State.LOGOUT: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A raw line without its end, in line mode (AUTHENTICATE's answers, IDLE's DONE)."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class CommandRest:
    """What follows a streamed literal: to the end of the command, or to the next announced literal."""

    octets: bytes
    literal: Literal | None


@dataclass(frozen=True, slots=True)
class Owed:
    """Octets that the session owes the client at once ("+" for a literal that it collects)."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Wrong:
    """A message that is no command, with the tag to answer it with. The stream goes on behind it."""

    tag: bytes
    error: BadSyntax


Event = Command | CommandRest | Chunk | Line | Owed | Wrong | None

# a literal up to this is always collected: mailbox names, small messages
COLLECT_OCTETS: Final = 8 * 1024
LITERAL_MINUS_OCTETS: Final = 4096  # RFC 7888 §5: the largest non-synchronising one there
# Who has not logged in gets little memory: a SASL response of 12 KiB in base64 with its command, a name and a password
PRE_LOGIN_LITERAL_OCTETS: Final = 4096
PRE_LOGIN_LINE_OCTETS: Final = 20 * 1024
PRE_LOGIN_MESSAGE_OCTETS: Final = 32 * 1024
PRE_LOGIN_SKIP_OCTETS: Final = 1024 * 1024  # of a refused command


class ImapServerSession:
    """Feed it with `receive`; ask `next_event` until it answers None ("need more").

    A line or message over its limit is Wrong, and thrown away as it comes. Raises BadSyntax only where the stream cannot go
    on (more is to be thrown away than can be borne): say BYE and close. `state` is changed by the methods here and by nobody
    else (a plain slot, because every command reads it); they raise Misuse for what is not in TRANSITIONS.
    """

    __slots__ = (
        "_cutter",
        "_line_mode",
        "_octets",
        "_streamed",
        "_streaming",
        "is_behind",
        "literal_minus",
        "max_literal",
        "state",
    )

    def __init__(
        self,
        max_line: int = MAX_LINE_OCTETS,
        max_message: int = MAX_MESSAGE_OCTETS,
        max_literal: int = 2**32 - 1,
        *,
        streamed: frozenset[bytes] = frozenset(),
    ) -> None:
        """`streamed`: the commands whose message literals are streamed rather than collected."""
        self.state = State.NOT_AUTHENTICATED
        self.is_behind = False  # `next_event` has stopped in the middle of what it has: ask again
        self.literal_minus = False  # the client was told LITERAL- (RFC 7888 §5)
        self.max_literal = max_literal  # of a streamed message: APPENDLIMIT
        self._octets = max_line, max_message  # of a line and of a command, after the login
        # cuts what comes; made when something does, which in the commonest sessions nothing ever does
        self._cutter: Fragmenter | None = None
        self._line_mode = False
        self._streaming = False
        self._streamed = streamed

    def logged_in(self) -> None:
        """The client has logged in: larger literals are collected without asking, long lines are taken."""
        self._go(State.NOT_AUTHENTICATED, State.AUTHENTICATED)
        if self._cutter is not None:
            self._limit(self._cutter)

    def logged_out(self) -> None:
        """As before the login (UNAUTHENTICATE, RFC 8437)."""
        self._go(self.state, State.NOT_AUTHENTICATED)
        if self._cutter is not None:
            self._limit(self._cutter)

    def selected(self) -> None:
        """A mailbox is open, or another than before."""
        self._go(self.state, State.SELECTED)

    def deselected(self) -> None:
        """No mailbox is open any more."""
        self._go(State.SELECTED, State.AUTHENTICATED)

    def ended(self) -> None:
        """The client has said LOGOUT: no command is allowed any more."""
        self._go(self.state, State.LOGOUT)

    def _go(self, origin: State, to: State) -> None:
        """Raises Misuse unless the session stands at `origin` and may go on from there."""
        if self.state is not origin or to not in TRANSITIONS[origin]:
            raise Misuse(f"from {self.state.name} to {to.name}")
        self.state = to

    @property
    def _fragmenter(self) -> Fragmenter:
        cutter = self._cutter
        if cutter is None:
            cutter = self._cutter = Fragmenter(lenient=True)
            cutter.most_steps = STEPS
            self._limit(cutter)
        return cutter

    def _limit(self, fragmenter: Fragmenter) -> None:
        max_line, max_message = self._octets
        if self.state is State.NOT_AUTHENTICATED:
            fragmenter.max_line = min(max_line, PRE_LOGIN_LINE_OCTETS)
            fragmenter.max_message = min(max_message, PRE_LOGIN_MESSAGE_OCTETS)
            fragmenter.max_skip = PRE_LOGIN_SKIP_OCTETS
            fragmenter.collect_octets = PRE_LOGIN_LITERAL_OCTETS
            return
        fragmenter.max_line, fragmenter.max_message = max_line, max_message
        fragmenter.max_skip = MAX_SKIP_OCTETS
        fragmenter.collect_octets = LITERAL_MINUS_OCTETS if self.literal_minus else COLLECT_OCTETS

    def receive(self, data: bytes | memoryview) -> None:
        (self._cutter or self._fragmenter).feed(data)

    @property
    def is_between(self) -> bool:
        """Whether what comes next begins a command, and none is held or half received."""
        cutter = self._cutter
        return not self._line_mode and not self._streaming and (cutter is None or cutter.is_between)

    @property
    def held(self) -> int:
        """Octets received and not yet given out: what back-pressure goes by."""
        return 0 if self._cutter is None else self._cutter.held

    def take_rest(self) -> bytes:
        """The octets behind the present command, given up (STARTTLS must throw them away, COMPRESS feeds them on)."""
        return b"" if self._cutter is None else self._cutter.take_rest()

    def expect_line(self, expected: bool = True) -> None:
        """The next message is a raw line, not a command."""
        self._line_mode = expected

    def next_event(self) -> Event:
        cutter = self._cutter or self._fragmenter
        while True:
            fragment = cutter.next()
            match fragment:
                case bytes():
                    return self._message(fragment)
                case None:
                    self.is_behind = cutter.is_behind
                    return None
                case Chunk():
                    return fragment
                case TooLong():
                    self._streaming = False
                    return Wrong(tag_of(fragment.head), fragment.error)
                case Literal():
                    event = self._announced(fragment)
                    if event is not None:
                        return event

    def _message(self, octets: bytes) -> Event:
        if self._line_mode:
            return Line(octets.removesuffix(b"\n").removesuffix(b"\r"))
        if self._streaming:
            self._streaming = False
            return CommandRest(octets, None)
        try:
            return parse_command(octets)
        except BadSyntax as error:
            return Wrong(tag_of(octets), error)

    def _announced(self, literal: Literal) -> Event:
        """None: it is collected, and nothing is owed for it."""
        if self._line_mode:
            self._fragmenter.refuse()
            return Wrong(b"*", BadSyntax("no literal is expected here"))
        if literal.problem is not None:
            tag = b"*" if self._streaming else tag_of(literal.head)
            self._streaming = False
            return self._refused(Wrong(tag, literal.problem))
        if self._streaming:
            return CommandRest(literal.head, literal)
        try:
            command = parse_command(literal.head, literal)
        except BadSyntax as error:
            return self._refused(Wrong(tag_of(literal.head), error))
        if self.literal_minus and not literal.synchronising and literal.size > LITERAL_MINUS_OCTETS:
            unasked = BadSyntax(f"literals above {LITERAL_MINUS_OCTETS} octets are sent as {{n}}")
            return self._refused(Wrong(command.tag, unasked))
        small = literal.size <= self._fragmenter.collect_octets
        if (
            command.name in self._streamed
            and not small
            and self.state is not State.NOT_AUTHENTICATED
        ):
            self._streaming = True
            return command
        if len(literal.head) + literal.size > self._room:
            too_big = BadSyntax(f"a command may have {self._room} octets with its literals")
            return self._refused(Wrong(command.tag, too_big))
        self._fragmenter.accept()
        return Owed(continuation()) if literal.synchronising else None

    @property
    def _room(self) -> int:
        if self.state is State.NOT_AUTHENTICATED:
            return 4 * PRE_LOGIN_LITERAL_OCTETS
        return self._fragmenter.max_message

    def _refused(self, wrong: Wrong) -> Wrong:
        self._fragmenter.refuse()
        return wrong

    def accept_literal(self, literal: Literal) -> bytes:
        """Let the announced literal stream in; returns the octets owed to the client first."""
        self._fragmenter.stream()
        return continuation() if literal.synchronising else b""

    def refuse_literal(self, literal: Literal) -> None:
        """Have none of it: the command is over, what of it still comes is skipped. Raises BadSyntax where that would be
        more than can be borne."""
        self._streaming = False
        self._fragmenter.refuse()
