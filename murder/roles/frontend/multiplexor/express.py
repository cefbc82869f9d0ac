"""From a login to a pipe in few steps, where nothing has to be asked: a user who is known at once, by a server that is known
to take its proxy in at one word. Callbacks, and no task.

Here is only what passes as it did before. Whatever is new, odd or broken at the server goes the long way (`become`) from
the beginning, which tells it; a server that is odd each time is not tried here again.
"""

import functools
import re
from typing import Final

from murder.errors import UpstreamFailure
from murder.log import plain_log
from murder.model.address import MAX_HOPS
from murder.model.identity import Login
from murder.net.connection import Connection
from murder.net.outgoing.pool import proxy_login
from murder.net.outgoing.proving import CURES
from murder.net.outgoing.upstream import Address
from murder.net.sweep import NOWHERE
from murder.roles.frontend.entering import MOST_REMEMBERED, Entering
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.multiplexor.imap import IMAP_SPEECH, UNAUTHENTICATE, refused, words_in
from murder.roles.frontend.multiplexor.pipe import Pipe, ServerEnd
from murder.serve.imap_commands import let_in
from murder.wire.imap.command import parse_command
from murder.wire.imap.id import HOPS_FIELD, ORIGIN_FIELD, PIPE_FIELD, PORT_FIELD, SESSION_FIELD

MOST_OCTETS: Final = 4096  # of a greeting, and of the answer to a login
# Group: how a login ended
_ANSWER: Final = re.compile(rb"(?:(?:\* |i OK)[^\r\n]*\r\n)*a (OK|NO)\b[^\r\n]*\r\n")
_GOES_ON: Final = re.compile(rb"(?:(?:\* (?!BYE)|i OK)[^\r\n]*\r\n)*\Z")  # it is still to come
ID: Final = (
    f'i ID ("{ORIGIN_FIELD}" "%s" "{PORT_FIELD}" "%d" "x-connected-ip" "%s" "x-connected-port" "%d" '
    f'"{SESSION_FIELD}" "%s" "{HOPS_FIELD}" "{MAX_HOPS}" "{PIPE_FIELD}" "1")\r\n'
)


class Express(Entering):
    """One login on its way; the receiver of the connection to the server until that is a pipe's. It stands as the client's
    `opening`, so that what they say meanwhile is held."""

    dialogue: FrontendImap
    connection: Connection

    def __init__(
        self, dialogue: FrontendImap, octets: bytes, login: Login, address: Address, user: str
    ) -> None:
        """`octets` are the client's command, whose user is counted already; `user` is what the server calls them."""
        self.dialogue = dialogue
        self.octets = octets
        self.login = login
        self.address = address
        self._user = user
        self._held = b""
        dialogue.opening = self
        self.set_out()

    # --- Receiver, of the server

    def received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._on_its_way is not None:
            self._take_over()
        held = self._held = self._held + data if self._held else data
        if self._is_asked:
            match = _ANSWER.match(held)
            if match is None:
                if len(held) > MOST_OCTETS or (held[-1:] == b"\n" and not _GOES_ON.match(held)):
                    self._go_the_long_way()
                else:  # the answer to ID alone: a Cyrus waits for its receipt before it says more
                    self.connection.acknowledge_now()
            elif match[1] == b"OK":
                self._let_in(held[: match.end()], match[0][match.start(1) :], held[match.end() :])
            else:
                line = b"a " + match[0][match.start(1) :].rstrip()
                self._fail(refused(self.failure, line, CURES.get(self.address.auth, "")))
        elif held[-1:] == b"\n":
            self._ask(held)
        elif len(held) > MOST_OCTETS:
            self._go_the_long_way()

    # --- the login

    def _ask(self, greeting: bytes) -> None:
        """Who the client is, and the login, with one write."""
        connection, client = self.connection, self.dialogue.connection
        multiplexor = self.dialogue.frontend.multiplexor
        if (
            multiplexor is None
            or greeting[:5].upper() != b"* OK "
            or not (words := _words(greeting))
            or (offers := multiplexor.offered.get(self.address)) is None
            or words != offers.words
        ):
            self._go_the_long_way()
            return
        self._is_asked, self._held = True, b""
        octets = _proxy_login(self.address, self._user)
        if self.dialogue.frontend.whole_config.multiplexor.tells_client and b"ID" in words:
            local, local_port = client.local_address
            client_id = ID % (client.peer, client.peer_port, local, local_port, client.cid)
            octets = client_id.encode() + octets
        if connection.is_plain:
            connection.transport.write(octets)
        else:
            connection.write(octets)

    def _let_in(self, answer: bytes, line: bytes, early: bytes) -> None:
        """The client is the one end of a pipe from here on: as `become_pipe` and `begin_pipe`, in one place."""
        dialogue, server = self.dialogue, self.connection
        words = _words(line) or _words(answer)
        client, frontend = dialogue.connection, dialogue.frontend
        if not words or UNAUTHENTICATE in words:
            self._go_the_long_way()
            return
        self._is_over = True
        if self.sweep_slot:  # as `forget`, in a call less
            dialogue.sweep.slots[self.sweep_slot].discard(self)
            self.sweep_slot = NOWHERE
        dialogue.opening = None
        if dialogue.is_closing:  # or lost
            server.abort()
            return
        tag = self.octets.partition(b" ")[0]
        reply = tag + b" " + line
        if client.is_plain and not client.gathered:
            client.transport.write(reply)
        else:
            client.write(reply)
        login, name = self.login, self.address.server
        pipe = Pipe(dialogue, frontend, IMAP_SPEECH, name, server)
        pipe.take_count(dialogue)
        dialogue.hand_over(pipe)
        pipe.login = login
        if client.is_tls:
            client.became_known()
        elif (on_known := client.on_known) is not None:  # the same
            client.on_known = None
            on_known(client)
        service = dialogue.service
        facts: dict[str, object]
        if dialogue.client_id:
            facts = {**dialogue.log_facts(), "user": login.user}
        else:  # the same
            facts = {
                "role": service.role,
                "protocol": dialogue.protocol,
                "cid": client.cid,
                "peer": client.peer,
                "user": login.user,
            }
        if client.attempt is not None:
            facts["mechanism"] = client.attempt[0]
        facts["proxy"], facts["admin"], facts["tls"] = "", False, client.is_tls
        facts["backend"] = name
        plain_log.info("login.succeeded", facts)
        service.figures.count_login(client.attempt, dialogue.protocol, "succeeded")
        end = server.receiver = ServerEnd(pipe)
        pipe.begin_passing(end, early)

    # --- what does not pass

    def give_up(self) -> None:
        self.dialogue.opening = None
        super().give_up()

    def _fail(self, failure: UpstreamFailure) -> None:
        """As a command that has failed."""
        dialogue = self.dialogue
        self.give_up()
        dialogue.count_out()
        if not dialogue.connection.is_lost:
            dialogue.failed(parse_command(self.octets), failure)
            dialogue.resume()

    def _go_the_long_way(self) -> None:
        """From the beginning."""
        dialogue = self.dialogue
        self.give_up()
        dialogue.count_out()
        multiplexor = dialogue.frontend.multiplexor
        if multiplexor is not None:
            multiplexor.note_odd(self.address)
        if not dialogue.connection.is_lost:
            command = parse_command(self.octets)
            dialogue.go_on(command, let_in(dialogue, command, self.login))


@functools.lru_cache(maxsize=64)  # a server says the same at every login
def _words(octets: bytes) -> frozenset[bytes]:
    of_lines = (words_in(line) for line in reversed(octets.split(b"\r\n")))
    return next((words for words in of_lines if words), frozenset())


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def _proxy_login(address: Address, user: str) -> bytes:
    return b"a %s\r\n" % proxy_login(address, user)
