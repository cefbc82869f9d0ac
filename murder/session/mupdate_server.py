"""A MUPDATE session from the server's side, sans-IO: octets in, commands out (RFC 3656 §2, §4).

Knows what is allowed when, and how the stream is cut; holds no more than its limits allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from murder.errors import BadSyntax, Code, Misuse, Refusal
from murder.wire.fragment import STEPS, Fragmenter, Literal
from murder.wire.mupdate import (
    GO_AHEAD,
    LISTS,
    PLAIN_COMMAND,
    Command,
    Verb,
    is_plain_write,
    parse_command,
    read_plain,
    tag_of,
)

MAX_LINE_OCTETS: Final = 8192  # RFC 3656 §2 wants 1024
MAX_LITERAL_OCTETS: Final = 256 * 1024  # §2.2 wants 4096; real ACLs of 73 kB have been seen
# of a command that is read in one step; to find that one is none costs 0.3 ms then
PLAIN_OCTETS: Final = 4096
# plain writes that are one event: a tenth of a millisecond
MOST_TOGETHER: Final = 16
# who has not logged in gets the memory of one SASL response
PRE_LOGIN_OCTETS: Final = 16 * 1024
MAX_SKIP_OCTETS: Final = 16 * 1024 * 1024  # of a refused literal; beyond it the connection ends


class State(Enum):
    """Where a session stands."""

    GREETED = auto()
    AUTHENTICATED = auto()
    STREAMING = auto()
    LOGOUT = auto()


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.GREETED: frozenset({State.AUTHENTICATED, State.LOGOUT}),
    State.AUTHENTICATED: frozenset({State.STREAMING, State.LOGOUT}),
    State.STREAMING: frozenset({State.LOGOUT}),
    # BYE may be said at the end of a session that has ended already
    State.LOGOUT: frozenset({State.LOGOUT}),
}

READS: Final = frozenset({Verb.FIND, *LISTS, Verb.NOOP})
WRITES: Final = frozenset(
    {
        *(Verb.RESERVE, Verb.ACTIVATE, Verb.DEACTIVATE),
        *(Verb.DELETE, Verb.FORCE, Verb.EPOCH),
    }
)
STREAMS: Final = frozenset({Verb.UPDATE, Verb.FOLLOW})

ALLOWED: Final[Mapping[State, frozenset[Verb]]] = {
    State.GREETED: frozenset({Verb.AUTHENTICATE, Verb.STARTTLS, Verb.COMPRESS, Verb.LOGOUT}),
    State.AUTHENTICATED: READS | WRITES | STREAMS | {Verb.COMPRESS, Verb.LOGOUT},
    State.STREAMING: frozenset({Verb.NOOP, Verb.LOGOUT}),  # RFC 3656 §4.11
    State.LOGOUT: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A raw line without its end: a SASL response (RFC 3656 §4.2)."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Owed:
    """Octets that the session owes the client at once: `+ go ahead`."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Wrong:
    """A message that is no command, with the tag to answer it with. The stream goes on behind it."""

    tag: bytes
    error: BadSyntax


Event = Command | list[Command] | Line | Owed | Wrong | None
"""A list: of plain writes, one behind the other."""


class MupdateServerSession:
    """Feed it with `receive`; ask `next_event` until it answers None ("need more").

    Raises BadSyntax only where the stream cannot go on: say BYE and close. `state` is changed by the methods here and by
    nobody else (a plain slot, because every command reads it); they raise Misuse for what is not in TRANSITIONS.
    """

    __slots__ = (
        "_fragmenter",
        "_line_mode",
        "_literal_octets",
        "_plain_octets",
        "is_behind",
        "state",
    )

    def __init__(
        self, max_line: int = MAX_LINE_OCTETS, max_literal: int = MAX_LITERAL_OCTETS
    ) -> None:
        self.state = State.GREETED
        self.is_behind = False  # `next_event` has stopped in the middle of what it has: ask again
        self._literal_octets = max_literal
        self._plain_octets = min(max_line, max_literal, PLAIN_OCTETS)  # within every limit
        self._line_mode = False
        self._fragmenter = Fragmenter(max_line, PRE_LOGIN_OCTETS, PRE_LOGIN_OCTETS // 4)
        self._fragmenter.max_skip = MAX_SKIP_OCTETS
        self._fragmenter.most_steps = STEPS

    def logged_in(self) -> None:
        """The peer has logged in: it may send literals of full size."""
        self._go(State.AUTHENTICATED)
        fragmenter = self._fragmenter
        fragmenter.collect_octets = self._literal_octets
        # a command has three strings at most, and one of them, the ACL, is long
        fragmenter.max_message = 2 * fragmenter.max_line + self._literal_octets

    def streaming(self) -> None:
        """UPDATE or FOLLOW has begun: it lasts until the session ends."""
        self._go(State.STREAMING)

    def ended(self) -> None:
        """Somebody has said BYE: no command is allowed any more."""
        self._go(State.LOGOUT)

    def _go(self, to: State) -> None:
        """Raises Misuse where that is no way to go from here."""
        if to not in TRANSITIONS[self.state]:
            raise Misuse(f"from {self.state.name} to {to.name}")
        self.state = to

    def may_be_plain(self, data: bytes) -> bool:
        """Whether this, which has just come, may be looked at as a whole command, in the place of `receive`."""
        is_command = self.state is State.AUTHENTICATED and not self._line_mode
        return is_command and len(data) <= self._plain_octets and self._fragmenter.is_between

    def receive(self, data: bytes | memoryview) -> None:
        self._fragmenter.feed(data)

    @property
    def held(self) -> int:
        """Octets received and not yet given out."""
        return self._fragmenter.held

    def take_rest(self) -> bytes:
        """The octets behind the present command, given up (STARTTLS throws them away, COMPRESS inflates them)."""
        return self._fragmenter.take_rest()

    def expect_line(self, expected: bool = True) -> None:
        """The next message is a raw line, not a command."""
        self._line_mode = expected

    def next_event(self) -> Event:
        fragmenter = self._fragmenter
        if self.state is not State.GREETED and not self._line_mode:
            most = MOST_TOGETHER if self.state is State.AUTHENTICATED else 1
            plain = fragmenter.take_run(
                PLAIN_COMMAND, self._plain_octets, read_plain, is_plain_write, most
            )
            if plain:
                return plain if len(plain) > 1 else plain[0]
        while True:
            fragment = fragmenter.next()
            if type(fragment) is bytes:
                return self._message(fragment)
            if not isinstance(fragment, Literal):
                assert fragment is None  # literals are collected or refused, never streamed
                self.is_behind = fragmenter.is_behind
                return None
            event = self._announced(fragment)
            if event is not None:
                return event

    def _message(self, octets: bytes) -> Event:
        if self._line_mode:
            return Line(octets.removesuffix(b"\n").removesuffix(b"\r"))
        try:
            return parse_command(octets)
        except BadSyntax as error:
            return Wrong(tag_of(octets), error)

    def _announced(self, literal: Literal) -> Event:
        """A literal that the fragmenter does not just collect: synchronising, or larger than allowed, or badly spelt. None:
        nothing is owed for it."""
        fits = literal.size <= self._fragmenter.collect_octets and literal.problem is None
        if fits and not self._line_mode and not literal.is_binary:
            self._fragmenter.accept()
            return Owed(GO_AHEAD) if literal.synchronising else None
        self._fragmenter.refuse()
        too_long = BadSyntax(f"A literal may have {self._fragmenter.collect_octets} octets here")
        return Wrong(tag_of(literal.head), literal.problem or too_long)

    def check(self, command: Command) -> None:
        """Raise unless the command is allowed in this state; the texts are Cyrus'."""
        if command.verb in ALLOWED[self.state]:
            return
        match self.state:
            case State.GREETED:
                raise Refusal(Code.CANNOT, "Please login first")  # §4: "SHOULD reply with a NO"
            case State.STREAMING:
                raise BadSyntax("not legal when streaming")
            case State.AUTHENTICATED if command.verb is Verb.STARTTLS:
                raise Refusal(Code.CANNOT, "STARTTLS is valid before login only")
            case State.AUTHENTICATED:
                raise BadSyntax("already authenticated")
            case State.LOGOUT:
                raise BadSyntax("the session is over")
