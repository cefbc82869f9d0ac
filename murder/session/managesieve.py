"""A ManageSieve session from the server's side, sans-IO: octets in, commands out (RFC 5804 §1.2, §4).

Knows how the stream is cut, and holds no more than its limits allow: before a login that is one SASL response. Literals
wait for nobody; one that is too long is thrown away as it comes, and the session goes on behind it.
"""

from dataclasses import dataclass
from typing import Final

from murder.errors import BadSyntax
from murder.wire.fragment import STEPS, Fragmenter, Literal, TooLong
from murder.wire.managesieve import Command, parse_command, parse_string_line

MAX_LINE_OCTETS: Final = 8192  # quoted strings have 1024, and no command has more than two
PRE_LOGIN_OCTETS: Final = 20 * 1024  # a SASL response of 12 KiB in base64, and a command
PRE_LOGIN_SKIP_OCTETS: Final = 64 * 1024  # of what is refused then, before the connection ends
SKIP_FACTOR: Final = 4  # of the longest literal, so much is thrown away later


@dataclass(frozen=True, slots=True)
class Response:
    """What a client says in a SASL exchange: one string."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Wrong:
    """A message that is no command. The stream goes on behind it."""

    error: BadSyntax


@dataclass(frozen=True, slots=True)
class TooBig:
    """A command whose string is longer than any may be; all of it is thrown away."""

    name: bytes
    most: int


Event = Command | Response | Wrong | TooBig | None


class SieveSession:
    """Feed it with `receive`; ask `next_event` until it answers None ("need more").

    Raises BadSyntax only where the stream cannot go on: say BYE and close.
    """

    __slots__ = ("_expects_response", "_fragmenter", "_max_literal")

    def __init__(self, max_literal: int) -> None:
        self._max_literal = max_literal
        self._expects_response = False
        self._fragmenter = self._make_fragmenter()

    def _make_fragmenter(self) -> Fragmenter:
        made = Fragmenter(PRE_LOGIN_OCTETS, PRE_LOGIN_OCTETS, PRE_LOGIN_OCTETS, lenient=True)
        made.max_skip = PRE_LOGIN_SKIP_OCTETS
        made.most_steps = STEPS
        return made

    def logged_in(self) -> None:
        """The peer has logged in: it may send literals of full size."""
        fragmenter = self._fragmenter
        fragmenter.max_line = MAX_LINE_OCTETS
        fragmenter.collect_octets = self._max_literal
        fragmenter.max_message = 2 * MAX_LINE_OCTETS + self._max_literal
        fragmenter.max_skip = SKIP_FACTOR * fragmenter.max_message

    def logged_out(self) -> None:
        """As before the login (UNAUTHENTICATE)."""
        rest = self._fragmenter.take_rest()
        self._fragmenter = self._make_fragmenter()
        if rest:
            self._fragmenter.feed(rest)

    def receive(self, data: bytes | memoryview) -> None:
        self._fragmenter.feed(data)

    @property
    def held(self) -> int:
        """Octets received and not yet given out."""
        return self._fragmenter.held

    @property
    def is_behind(self) -> bool:
        """Whether `next_event` has stopped in the middle of what it has, which was much: ask again."""
        return self._fragmenter.is_behind

    def take_rest(self) -> bytes:
        """The octets behind the present command, given up (STARTTLS throws them away)."""
        return self._fragmenter.take_rest()

    def expect_response(self, expected: bool = True) -> None:
        """The next message is a string of a SASL exchange, not a command."""
        self._expects_response = expected

    def next_event(self) -> Event:
        fragmenter = self._fragmenter
        while True:
            fragment = fragmenter.next()
            match fragment:
                case None:
                    return None
                case bytes():
                    return self._read(fragment)
                case Literal():
                    fragmenter.refuse()
                    return self._refused(fragment)
                case TooLong(error=error):
                    return Wrong(error)
                case _:
                    raise BadSyntax("the stream cannot be cut")  # nothing is streamed here

    def _read(self, octets: bytes) -> Event:
        try:
            if self._expects_response:
                self._expects_response = False
                return Response(parse_string_line(octets))
            return parse_command(octets)
        except BadSyntax as error:
            return Wrong(error)

    def _refused(self, literal: Literal) -> Event:
        if literal.problem is not None:
            return Wrong(literal.problem)
        if literal.synchronising:
            return Wrong(BadSyntax("literals are {n+} here"))
        name = literal.head.partition(b" ")[0][:20].upper()
        return TooBig(name, self._fragmenter.collect_octets)
