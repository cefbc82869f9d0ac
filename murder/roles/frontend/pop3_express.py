"""From a POP3 user's PASS to the pipe in few steps, where nothing has to be asked: a user who is known at once, whose INBOX
is in the list, at a backend that is well and has told what it offers. Callbacks, and no task.

Here is only what passes. Whatever is odd goes the long way (`pop3`) from the beginning, which finds the words for it.
"""

import re
from typing import Final, Protocol

from murder.config import Config
from murder.errors import UpstreamFailure
from murder.model.identity import Login
from murder.model.name import inbox_of
from murder.model.protocol import POP3
from murder.net.bulk import BULK_OCTETS, LITTLE_OCTETS, took_much, write_much
from murder.net.connection import Connection
from murder.net.outgoing.lines import LineUpstream
from murder.net.outgoing.pool import proxy_login
from murder.net.outgoing.proving import GSSAPI
from murder.net.outgoing.upstream import Address
from murder.net.sweep import NOWHERE
from murder.roles.frontend.capabilities import KNOWN_S
from murder.roles.frontend.entering import MOST_REMEMBERED, Dialogue, Entering
from murder.roles.frontend.locate import server_in
from murder.roles.frontend.origin import xclient_line
from murder.roles.frontend.shared import Frontend

MOST_OCTETS: Final = 1000  # of a greeting, and of the answer to a login
MARK: Final = b"[XCLIENT]"  # in a greeting: the server believes us
# What is answered with one line. Group: it is the last
ONE_LINE: Final = re.compile(rb"(?i)(?:STAT|NOOP|RSET|(?:DELE|LIST|UIDL) [0-9]+|(QUIT))\r\n\Z")
END: Final = b"\r\n.\r\n"  # of an answer that has more lines


class Pop3Client(Dialogue, Protocol):
    """What is wanted of the client's dialogue. The last three end the login, each once and no other with it."""

    active_at: float
    asked: int  # how often they have said something since nothing was under way
    said: bytes  # the last of it; nothing where that was long
    connection: Connection
    is_closing: bool
    utf8: bool  # the client has said so

    def let_in(self, upstream: LineUpstream, login: Login, early: bytes) -> None:
        """`early`: what the backend has said behind the login."""
        ...

    def part(self, now: float) -> None:
        """QUIT has been answered, and nothing else is under way."""
        ...

    def not_let_in(self, failure: UpstreamFailure) -> None: ...
    def enter_anew(self, login: Login) -> None:
        """The long way."""
        ...


class Pop3Express(Entering, LineUpstream):
    """One login on its way; from its end on one end of the pipe."""

    dialogue: Pop3Client
    connection: Connection
    writable = LineUpstream.writable

    def __init__(self, dialogue: Pop3Client, login: Login, address: Address, line: bytes) -> None:
        """`line` is how the user logs in there."""
        # as `LineUpstream`, whose lines nobody waits for
        self.address, self.server, self._line = address, address.server, line
        self.timeout_s = dialogue.frontend.config.upstream_timeout_s
        self._held = bytearray()
        self.dialogue = dialogue
        self.login = login
        self._said = b""
        # whose connection it is; the answer to that comes before the login's
        self._has_told = False
        self.set_out()

    # --- Receiver, of the backend

    def received(self, data: bytes) -> None:
        if self._is_over:
            if self.pipe is not None:  # which is the dialogue's `_to_client`, in a step less
                dialogue = self.dialogue
                now = dialogue.active_at = dialogue.loop.time()
                client = dialogue.connection
                if client.is_plain and not client.gathered and len(data) <= LITTLE_OCTETS:
                    client.transport.write(data)
                else:
                    write_much(client, data)
                if client.writing_paused:
                    self.connection.pause_reading()
                if len(data) >= BULK_OCTETS:
                    took_much(self.connection)
                if dialogue.asked == 1:  # this may be the whole answer to all that they have said
                    match = ONE_LINE.match(said := dialogue.said)
                    if match is None:
                        # where it was not short, there may have been more
                        if said and data[-len(END) :] == END and said.find(b"\n") == len(said) - 1:
                            dialogue.asked = 0
                    elif data.find(b"\n") == len(data) - 1:
                        dialogue.asked = 0
                        if match[1] is not None:
                            dialogue.part(now)
            return
        if self._on_its_way is not None:  # as `_take_over`
            self._on_its_way = None
            try:
                self._opening.send(None)
            except StopIteration:
                pass
        said = self._said = self._said + data if self._said else data
        end = said.find(b"\n") + 1
        if self._has_told and end and said.startswith(b"+OK"):
            self._has_told = False
            said = self._said = said[end:]
            end = said.find(b"\n") + 1
        if not end:
            if len(said) > MOST_OCTETS:
                self._go_the_long_way()
        elif not said.startswith(b"+OK"):
            self._go_the_long_way()
        elif self._is_asked:
            dialogue = self.dialogue
            self._is_over = True
            if self.sweep_slot:  # as `forget`, in a call less
                dialogue.sweep.slots[self.sweep_slot].discard(self)
                self.sweep_slot = NOWHERE
            if dialogue.is_closing:  # a client that has gone has given this up
                self.connection.abort()
            else:
                dialogue.let_in(self, self.login, said[end:])
        elif end < len(said):
            self._go_the_long_way()  # it speaks unasked
        else:
            self._is_asked, self._said = True, b""
            connection, line = self.connection, self._line
            if MARK in said:
                self._has_told = True
                line = xclient_line(self.dialogue.connection, self.address.server) + line
            if connection.is_plain:
                connection.transport.write(line)
            else:
                connection.write(line)

    def lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if not self._is_over:
            super().lost(error)
        elif self.gone is not None:  # nobody waits for a line
            self.gone()
        else:
            self.dialogue.frontend.leaving.until.pop(self, None)

    # --- the end of the login

    def _fail(self, failure: UpstreamFailure) -> None:
        self.give_up()
        self.dialogue.not_let_in(failure)

    def _go_the_long_way(self) -> None:
        self.give_up()
        self.dialogue.enter_anew(self.login)


def way_of(dialogue: Pop3Client, login: Login) -> tuple[Address, bytes] | None:
    """Where their backend is reached, and how they log in there, if nothing is to be asked on the way; else None."""
    frontend = dialogue.frontend
    upstreams = frontend.upstreams
    if (
        frontend.multiplexor is not None
        or dialogue.utf8
        or upstreams.tells_origin
        or dialogue.connection.hops_left < 0
    ):
        return None
    stamp, way = frontend.mailboxes.stamp(), frontend.pop3_ways.get(login.user)
    if way is None or way[0] != stamp or way[1] is not frontend.whole_config:
        way = _find_way(frontend, login.user, stamp)
        if way is None:
            return None
    address = way[2]
    if address.server in upstreams.health:
        return None
    offered = frontend.maildrops.offered.get(address.server)  # as `is_known`
    if offered is None or dialogue.loop.time() - offered[1] >= KNOWN_S:
        return None
    return address, way[3]


def _find_way(
    frontend: Frontend, user: str, stamp: int
) -> tuple[int, Config, Address, bytes] | None:
    """As the list and the configuration have it; it is known again as long as these are the same."""
    row = frontend.mailboxes.row(inbox_of(user))
    server = server_in(row) if row is not None else ""
    if not server:
        return None
    address = frontend.upstreams.address(server, POP3)
    if address.within is not None or address.tls == "starttls" or address.auth == GSSAPI:
        return None
    # in the words of RFC 5034
    line = b"AUTH " + proxy_login(address, user).partition(b" ")[2] + b"\r\n"
    if len(frontend.pop3_ways) >= MOST_REMEMBERED:
        frontend.pop3_ways.clear()
    way = frontend.pop3_ways[user] = stamp, frontend.whole_config, address, line
    return way
