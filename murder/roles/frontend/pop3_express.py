"""From a POP3 user's PASS to the pipe in few steps, where nothing has to be asked: a user who is known at once, whose INBOX
is in the list, at a backend that is well and has told what it offers. Callbacks, and no task.

Here is only what passes. Whatever is odd goes the long way (`pop3`) from the beginning, which finds the words for it.
"""

import functools
from typing import Final, Protocol

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
from murder.roles.frontend.entering import MOST_REMEMBERED, Dialogue, Entering
from murder.roles.frontend.locate import server_in
from murder.roles.frontend.origin import xclient_line

MOST_OCTETS: Final = 1000  # of a greeting, and of the answer to a login
MARK: Final = b"[XCLIENT]"  # in a greeting: the server believes us


class Pop3Client(Dialogue, Protocol):
    """What is wanted of the client's dialogue. The last three end the login, each once and no other with it."""

    active_at: float
    connection: Connection
    is_closing: bool
    utf8: bool  # the client has said so

    def let_in(self, upstream: LineUpstream, login: Login, early: bytes) -> None:
        """`early`: what the backend has said behind the login."""
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

    def __init__(self, dialogue: Pop3Client, login: Login, address: Address) -> None:
        # as `LineUpstream`, whose lines nobody waits for
        self.address, self.server = address, address.server
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
                dialogue.active_at = dialogue.loop.time()
                client = dialogue.connection
                if client.is_plain and not client.gathered and len(data) <= LITTLE_OCTETS:
                    client.transport.write(data)
                else:
                    write_much(client, data)
                if client.writing_paused:
                    self.connection.pause_reading()
                if len(data) >= BULK_OCTETS:
                    took_much(self.connection)
            return
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
            dialogue.sweep.forget(self)
            if dialogue.is_closing:  # a client that has gone has given this up
                self.connection.abort()
            else:
                dialogue.let_in(self, self.login, said[end:])
        elif end < len(said):
            self._go_the_long_way()  # it speaks unasked
        else:
            self._is_asked, self._said = True, b""
            connection, line = self.connection, _login_line(self.address, self.login.user)
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

    # --- the end of the login

    def _fail(self, failure: UpstreamFailure) -> None:
        self.give_up()
        self.dialogue.not_let_in(failure)

    def _go_the_long_way(self) -> None:
        self.give_up()
        self.dialogue.enter_anew(self.login)


def way_of(dialogue: Pop3Client, login: Login) -> Address | None:
    """Where their backend is reached, if nothing is to be asked on the way; else None."""
    frontend = dialogue.frontend
    upstreams = frontend.upstreams
    if (
        frontend.multiplexor is not None
        or dialogue.utf8
        or upstreams.tells_origin
        or dialogue.connection.hops_left < 0
    ):
        return None
    row = frontend.mailboxes.row(_inbox_of(login.user))
    server = server_in(row) if row is not None else ""
    if not server or server in upstreams.health:
        return None
    address = upstreams.address(server, POP3)
    if address.within is not None or address.tls == "starttls" or address.auth == GSSAPI:
        return None
    is_known = frontend.maildrops.is_known(server, dialogue.loop.time())
    return address if is_known else None


_inbox_of: Final = functools.lru_cache(maxsize=MOST_REMEMBERED)(inbox_of)


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def _login_line(address: Address, user: str) -> bytes:
    """As `proxy_login`, in the words of RFC 5034."""
    return b"AUTH " + proxy_login(address, user).partition(b" ")[2] + b"\r\n"
