"""A client and a server, each of which gets what the other says, as it is.

After the login nothing of what passes is read. Who takes nothing is read no further on the other side. For operators, for
the limits of users and for the end of the node it is a session as any other.
"""

from dataclasses import replace
from typing import Final

from murder.errors import Code
from murder.model.identity import Login
from murder.net.bulk import BULK_OCTETS, LITTLE_OCTETS, took_much, write_much
from murder.net.connection import Connection
from murder.net.dialogue import CLOSE_GRACE_S
from murder.net.sweep import NOWHERE
from murder.roles.frontend.multiplexor.speech import Speech
from murder.roles.frontend.shared import Frontend
from murder.serve.client import ClientDialogue
from murder.wire.nodes.control_answers import SessionShown

UNTAGGED: Final = b"*+"  # with what a line of IMAP begins that is no end of an answer
SMALL_OCTETS: Final = 16 * 1024  # a read that may not be the whole answer
WAITING_OCTETS: Final = 64 * 1024  # for who takes nothing, each way: TLS keeps them twice
QUIET_S: Final = 1.0  # silence after which a pipe may be ended


class _Nothing:
    """The session of a pipe: octets that came behind the login go to the server."""

    held = 0
    is_behind = False
    waiting = b""

    def receive(self, data: bytes | memoryview) -> None:
        self.waiting += data

    def next_event(self) -> None:
        return None

    def take_rest(self) -> bytes:
        rest, self.waiting = self.waiting, b""
        return rest


class Pipe(ClientDialogue):
    """The client's end. It takes the place of the dialogue of the login (`hand_over`), with what that counted."""

    session: _Nothing

    def __init__(
        self,
        before: ClientDialogue,
        frontend: Frontend,
        speech: Speech,
        name: str,
        server: Connection,
    ) -> None:
        """`server` is where the other end is, a server of this name."""
        limits = frontend.config
        # as that of `Dialogue`, in one place
        self.connection, self.session = before.connection, _Nothing()
        self.idle_timeout_s, self.write_timeout_s = limits.idle_timeout_s, limits.write_timeout_s
        self.sweep, self.loop, self.active_at = before.sweep, before.loop, before.active_at
        self.is_closing = self._pump_is_due = False
        self._task = None
        self.sweep_slot = NOWHERE
        self.service, self.protocol = before.service, before.protocol
        self.frontend = frontend
        self._speech = speech
        self.server_name = name
        self.server = server
        self._is_between = True  # what passed last to the client ended a line
        # Whether the server may have more to say than it has, as far as that shows without reading: where the client has
        # asked for several things, or for one of which there is only untagged data yet.
        self._awaits = self._awaits_several = False
        frontend.sessions.add(self)

    def begin_pipe(self, login: Login, early: bytes) -> None:
        """Both ways from here on; `early` the server has said already."""
        self.entered_as(
            login if login.password is None else replace(login, password=None),
            self.idle_timeout_s,
            proxy=login.proxy,
            admin=login.is_admin,
            tls=self.connection.is_tls,
            backend=self.server_name,
        )
        self.join(ServerEnd(self), early)

    def join(self, end: "ServerEnd", early: bytes) -> None:
        """What comes passes, from now on."""
        self.server.receiver = end
        if self.server.is_lost or self.connection.is_lost:
            self._server_gone()
        else:
            self.begin_passing(end, early)

    def begin_passing(self, end: "ServerEnd", early: bytes) -> None:
        """The same, where both are there for certain, and the server's octets come to its end already."""
        for connection in (self.connection, self.server):
            connection.most_unwritten = WAITING_OCTETS
            connection.transport.set_write_buffer_limits(WAITING_OCTETS, WAITING_OCTETS // 4)
        if early:
            end.received(early)
        if self.session.waiting:
            self.received(self.session.take_rest())
        if self.server.is_held_back:
            self.server.resume_reading()
        if self.connection.is_held_back and not self.server.writing_paused:
            self.connection.resume_reading()
        if self._input_ended:
            self.close_when_quiet(QUIET_S)

    # --- Receiver, of the client

    def received(self, data: bytes) -> None:
        self.active_at = self.loop.time()
        self._awaits_several = self._awaits or data.find(b"\n") + 1 != len(data)
        self._awaits = True
        server = self.server
        if server.is_plain and not server.gathered and len(data) <= LITTLE_OCTETS:
            server.transport.write(data)
        else:
            write_much(server, data)
        if server.writing_paused:
            self.connection.pause_reading()
        if len(data) >= BULK_OCTETS:
            took_much(self.connection)

    def writable(self) -> None:
        self.server.resume_reading()

    def input_ended(self) -> bool:
        """What the server still answers passes; TLS to it knows no half of a connection, so the pipe is watched."""
        self._input_ended = True
        self.close_when_quiet(QUIET_S)
        return True

    def _server_gone(self) -> None:
        self.close()

    def ended(self) -> None:
        self.frontend.sessions.discard(self)
        server = self.server
        if not server.is_lost:
            is_slow = server.is_tls or server.pending()
            server.close()  # what the client said last still arrives
            if is_slow:
                self.loop.call_later(CLOSE_GRACE_S, server.abort)

    # --- for the node

    def is_quiet(self) -> bool:
        """Nothing has passed for a moment."""
        return self.loop.time() - self.active_at > QUIET_S and not self.connection.pending()

    def say_bye(self, text: str, code: Code = Code.UNAVAILABLE) -> None:
        """In the protocol's words, where the client is known to be between two lines."""
        if self._is_between and not self.is_closing:
            self.send(self._speech.bye(text, code))
        self.close()

    def timed_out(self) -> None:
        self.say_bye("Autologout; idle for too long")

    def describe(self) -> SessionShown:
        server = self.server_name
        return replace(super().describe(), state="pipe", backend=server, backends=(server,))

    # --- what a dialogue has, and a pipe has not

    def greet(self) -> None:
        """The login's dialogue has."""

    def handle(self, event: object) -> None:
        """There are no events."""

    def failed(self, event: object, error: Exception) -> None:
        """Nor commands."""


class ServerEnd:
    """Who gets what the server says."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._client: Connection = pipe.connection

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        pipe, client = self._pipe, self._client
        pipe.active_at = pipe.loop.time()
        is_between = pipe._is_between = data[-1:] == b"\n"
        is_end = is_between and data[data.rfind(b"\n", 0, -1) + 1] not in UNTAGGED
        pipe._awaits = not is_end
        if (pipe._awaits_several or not is_end) and len(data) < SMALL_OCTETS:
            pipe.server.acknowledge_now()
        if client.is_plain and not client.gathered and len(data) <= LITTLE_OCTETS:
            client.transport.write(data)
        else:
            write_much(client, data)
        if client.writing_paused:
            pipe.server.pause_reading()
        if len(data) >= BULK_OCTETS:
            took_much(pipe.server)

    def writable(self) -> None:
        self._client.resume_reading()

    def lost(self, error: Exception | None) -> None:
        """As `Pipe.close`, in few calls."""
        pipe = self._pipe
        if not pipe.is_closing:
            pipe.is_closing = True
            pipe.session.waiting = b""
            self._client.finish()
            ends_at = pipe._ends_at = pipe.loop.time() + CLOSE_GRACE_S
            pipe.sweep.watch(pipe, ends_at)
