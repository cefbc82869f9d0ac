"""A MUPDATE session from the client's side, sans-IO: banner and responses in, commands out (RFC 3656).

Whose answer a response is: tags match it to its command, in order, because a server carries commands out in order. The
streams of UPDATE and FOLLOW keep their command's tag for ever.
"""

import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Final

from murder.errors import BadSyntax, Misuse
from murder.wire.fragment import Fragmenter, Literal
from murder.wire.mupdate import (
    LISTS,
    Banner,
    Kind,
    Response,
    Verb,
    format_command,
    parse_banner_line,
    parse_response,
)

MAX_LINE_OCTETS: Final = 64 * 1024
# a line costs LINE_OCTETS more than it has; ours has ten lines, of some hundred octets together
MAX_BANNER_OCTETS: Final = 64 * 1024
LINE_OCTETS: Final = 64
# a name, a location, and the longest ACL a server may keep
MAX_MESSAGE_OCTETS: Final = 4 * 1024 * 1024
_BATCH: Final = 2000  # rows in one event: some milliseconds of work for whoever takes them
_BLOCK_OCTETS: Final = 128 * 1024  # the same, as octets
# What stands in rows that are all in quoted form: their line ends, and octets that `wire.mupdate.string` quotes, and `"`.
_QUOTED: Final = bytes(octet for octet in b"\t" + bytes(range(0x20, 0x7F)) if octet != 0x5C)


class State(Enum):
    """Where a client's session stands."""

    CONNECTED = auto()  # the banner is still to come
    GREETED = auto()
    AUTHENTICATED = auto()
    STREAMING = auto()
    CLOSED = auto()


_READS_AND_WRITES: Final = frozenset(
    {
        Verb.FIND,
        *LISTS,
        Verb.NOOP,
        Verb.RESERVE,
        Verb.ACTIVATE,
        Verb.DEACTIVATE,
        Verb.DELETE,
        Verb.FORCE,
        Verb.EPOCH,
    }
)
ALLOWED: Final[Mapping[State, frozenset[Verb]]] = {
    State.CONNECTED: frozenset(),
    State.GREETED: frozenset({Verb.AUTHENTICATE, Verb.STARTTLS, Verb.COMPRESS, Verb.LOGOUT}),
    State.AUTHENTICATED: _READS_AND_WRITES | {Verb.UPDATE, Verb.FOLLOW, Verb.COMPRESS, Verb.LOGOUT},
    State.STREAMING: frozenset({Verb.NOOP, Verb.LOGOUT}),
    State.CLOSED: frozenset(),
}


class Rows:
    """Many MAILBOX responses of one command at once, as they come in a dump: column by column, all of them printable
    ASCII that may be quoted."""

    __slots__ = ("acls", "locations", "names", "tag")

    def __init__(
        self, tag: bytes, names: list[bytes], locations: list[bytes], acls: list[bytes]
    ) -> None:
        self.tag = tag
        self.names = names
        self.locations = locations
        self.acls = acls

    def __iter__(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        return zip(self.names, self.locations, self.acls, strict=True)


Event = Banner | Response | Rows | bytes | None


class MupdateClientSession:
    """`receive` octets; `next_event` gives the Banner, Responses, Rows, raw lines (challenges, in line mode), None.

    Raises BadSyntax where the peer does not speak MUPDATE: close the connection.
    """

    __slots__ = (
        "_banner",
        "_banner_octets",
        "_fragmenter",
        "_line_mode",
        "_number",
        "_row",
        "_row_tag",
        "_try_block",
        "state",
    )

    def __init__(self) -> None:
        self.state = State.CONNECTED
        self._banner = Banner()
        self._banner_octets = 0
        self._fragmenter = Fragmenter(MAX_LINE_OCTETS, MAX_MESSAGE_OCTETS, MAX_MESSAGE_OCTETS)
        self._line_mode = False
        self._number = 0
        self._row_tag = b""
        self._row: re.Pattern[bytes] | None = None
        self._try_block = True

    def receive(self, data: bytes | memoryview) -> None:
        self._fragmenter.feed(data)
        self._try_block = True

    @property
    def held(self) -> int:
        return self._fragmenter.held

    def take_rest(self) -> bytes:
        return self._fragmenter.take_rest()

    def restart(self) -> None:
        """TLS stands: forget the banner, it comes again (RFC 3656 §4.10)."""
        self.state = State.CONNECTED
        self._banner = Banner()
        self._banner_octets = 0
        self._fragmenter.take_rest()

    def expect_lines(self, expected: bool = True) -> None:
        """Challenges may come: base64 lines without a tag (RFC 3656 §4.2)."""
        self._line_mode = expected

    def send(self, verb: Verb, *args: bytes) -> tuple[bytes, bytes]:
        """`(tag, octets)` of a command. Raises Misuse where it is not allowed now."""
        if verb not in ALLOWED[self.state]:
            raise Misuse(f"{verb.name} in state {self.state.name}")
        self._number += 1
        tag = b"X%d" % self._number
        return tag, format_command(tag, verb, *args)

    def expect_rows(self, tag: bytes) -> None:
        """Many rows will come with this tag: those in quoted form are read in bulk."""
        self._row_tag = tag
        text = rb'"([\t\x20!#-\[\]-\x7e]*)"'  # exactly what `wire.mupdate.string` quotes
        self._row = re.compile(b"%b MAILBOX %b %b %b\r\n" % (re.escape(tag), text, text, text))

    def authenticated(self) -> None:
        """After login; or a stream was refused, and other commands may follow."""
        self.state = State.AUTHENTICATED
        self._row = None

    def streaming(self, tag: bytes) -> None:
        """UPDATE or FOLLOW has been sent with this tag."""
        self.state = State.STREAMING
        self.expect_rows(tag)

    def next_event(self) -> Event:
        if self._row is not None:
            block = self._take_block() if self._try_block else None
            if block is not None:
                return block
            rows = self._fragmenter.take_matches(self._row, _BATCH)
            if rows:
                return Rows(self._row_tag, *map(list, zip(*rows, strict=True)))
        while True:
            fragment = self._fragmenter.next()
            if fragment is None:
                return None
            if isinstance(fragment, Literal):
                if fragment.size > MAX_MESSAGE_OCTETS:
                    raise BadSyntax(f"a literal of {fragment.size} octets")
                self._fragmenter.accept()  # `{n}` from a server needs no go-ahead: Cyrus never waits for one
                continue
            if not isinstance(fragment, bytes):
                raise Misuse("literals are not streamed here")
            if self.state is not State.CONNECTED or fragment[:6].upper() == b"* BYE ":
                break
            self._banner_octets += len(fragment) + LINE_OCTETS
            if self._banner_octets > MAX_BANNER_OCTETS:
                raise BadSyntax(f"a banner of more than {MAX_BANNER_OCTETS} octets")
            self._banner, is_last = parse_banner_line(self._banner, fragment)
            if is_last:
                self.state = State.GREETED
                return self._banner
        if self._line_mode and not self._is_status(fragment):
            return fragment.rstrip(b"\r\n")
        return parse_response(fragment)

    def _take_block(self) -> Rows | None:
        """Whole lines of which each is such a row; if only one is not, they are tried one by one until more comes."""
        octets = self._fragmenter.peek_lines(_BLOCK_OCTETS)
        number, others = divmod(len(octets.translate(None, _QUOTED)), 2)
        pieces = octets.split(b'"')
        head = self._row_tag + b" MAILBOX "
        if (
            number
            and not others
            and len(pieces) == 6 * number + 1
            and octets.count(b"\r\n") == number
            and pieces[0] == head
            and pieces[-1] == b"\r\n"
            and set(pieces[6:-1:6]) <= {b"\r\n" + head}
            and set(pieces[2::6]) == {b" "} == set(pieces[4::6])
        ):
            self._fragmenter.skip(len(octets))
            return Rows(self._row_tag, pieces[1::6], pieces[3::6], pieces[5::6])
        self._try_block = False
        return None

    def _is_status(self, line: bytes) -> bool:
        """In line mode: whether this is the tagged answer and no challenge (base64 has no blanks)."""
        parts = line.split(b" ", 2)
        return len(parts) > 1 and parts[1].strip().upper() in (b"OK", b"NO", b"BAD", b"BYE")


def is_answer(response: Response, tag: bytes) -> bool:
    """Whether this ends the command with that tag."""
    return response.tag == tag and response.kind in (Kind.OK, Kind.NO, Kind.BAD, Kind.BYE)
