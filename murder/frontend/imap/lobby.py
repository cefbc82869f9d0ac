"""What nearly every session begins and ends with, in few steps: LOGIN, AUTHENTICATE PLAIN, SELECT, LOGOUT as clients spell
them, where nothing has to be waited for.

A webmail logs in for every click, and finds all that it runs cold: what counts is how many different functions a session
passes through. `Lobby.at_once` takes a whole command that it knows and carries it out, or takes nothing: then the
dialogue has the same octets, and does what it does with any. Here is only what passes. Whatever is refused, waits, refers,
or asks somebody falls to the dialogue, before anything has been counted or said.
"""

import functools
import logging
import re
from binascii import Error as NoBase64
from binascii import a2b_base64
from typing import Final

from murder.api.referral import Conduct, ReferralQuestion
from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from murder.frontend.imap.dialogue import HOPS_FIELD, MAX_HOPS, FrontendImap
from murder.frontend.placement import servers
from murder.log import plain_log
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, Namespace, inbox_of
from murder.model.protocol import IMAP
from murder.net.exchange import Reply
from murder.net.pool import MAX_CAPABILITIES, NOBODY, TOLD, capabilities_of, proxy_login
from murder.net.relay import ImapUpstream
from murder.session.imap_server import State
from murder.wire.imap.command import parse_command
from murder.wire.imap.moved import FIELD as FOLLOWS_FIELD
from murder.wire.imap.response import clean

MOST_OCTETS: Final = 1000  # of such a command
_TAG: Final = rb'([^(){ %*"\\+\x00-\x20\x7f-\xff]{1,256}) '
_ASTRING: Final = rb'(?:"([^"\\\x00-\x1f\x7f-\xff]*)"|([^(){ %*"\\\x00-\x20\x7f-\xff]+))'
# Groups: tag; LOGIN: user and password, each quoted or not; PLAIN: base64; LOGOUT
ENTERING: Final = re.compile(
    rb"(?i)" + _TAG + rb"(?:LOGIN " + _ASTRING + rb" " + _ASTRING + rb"|AUTHENTICATE PLAIN "
    rb"([A-Za-z0-9+/]+={0,2})|(LOGOUT))\r\n\Z"
)
# Groups: tag; SELECT or EXAMINE: mailbox, quoted or not; NOOP or LOGOUT
INSIDE: Final = re.compile(
    rb"(?i)" + _TAG + rb"(?:(?:SELECT|EXAMINE) " + _ASTRING + rb"|(NOOP|LOGOUT))\r\n\Z"
)
MOST_REMEMBERED: Final = 4096  # names, of `MOST_OCTETS` at most


class Lobby(FrontendImap):
    """See the module."""

    def at_once(self, data: bytes) -> bool:
        connection = self.connection
        if (
            data[-2:] != b"\r\n"
            or len(data) > MOST_OCTETS
            or self.is_closing
            or self._pump_is_due
            or self._following is not None
            or self._late_done
            or connection.writing_paused
        ):
            return False
        if self.session.state is State.NOT_AUTHENTICATED:
            match = ENTERING.match(data)
            if match is None:
                return False
            if match[7]:
                return self._leave_at_once(match[1])
            if match[6] is None:
                user, password = match[2] or match[3] or b"", match[4] or match[5] or b""
            else:
                try:
                    authzid, user, password = a2b_base64(match[6], strict_mode=True).split(b"\0")
                except (NoBase64, ValueError):
                    return False
                if authzid or not user.isascii():
                    return False
            if not user:
                return False
            mechanism = "LOGIN" if match[6] is None else "PLAIN"
            return self._enter_at_once(match[1], user.decode("ascii"), password, mechanism)
        match = INSIDE.match(data)
        if match is None:
            return False
        name = match[4]
        if name is None:
            return self._open_at_once(match[1], match[2] or match[3] or b"", data)
        if name.upper() == b"LOGOUT":
            return self._leave_at_once(match[1])
        if self.selected is not None or self.arbiter is not None:
            return False
        self.bad_commands = 0
        self.active_at = self.loop.time()
        connection.write(match[1] + b" OK Completed\r\n")
        return True

    # --- in

    def _enter_at_once(self, tag: bytes, user: str, password: bytes, mechanism: str) -> bool:
        """Where the dialogue would admit him without waiting, count him and refer him nowhere."""
        service, connection, frontend = self.service, self.connection, self.frontend
        gate, limits = service.gate, service.limits
        login = gate.admit_at_once(user, password, connection, self.protocol, mechanism)
        if login is None or not self._is_all_known() or self._would_refer(login.user):
            return False
        try:
            gate.connections.enter(login.user)
        except Refusal:
            return False  # to be refused again, and told
        self._counted_as = login.user
        session = self.session
        self.login, self._log = login, None
        session.logged_in()
        session.literal_minus = limits.literal_minus
        if limits.idle_timeout_s < limits.login_timeout_s:
            self.begin_time(limits.idle_timeout_s, activity_counts=True)
        else:  # it is looked at sooner in any case
            self.idle_timeout_s, self.activity_counts = limits.idle_timeout_s, True
            self.active_at = self.loop.time()
        connection.became_known()
        facts = self.log_facts()
        facts["proxy"], facts["admin"], facts["tls"] = "", False, connection.is_tls
        plain_log.info("login.succeeded", facts)
        self._told = words = frontend.capabilities.words()
        told = _words(words, limits.literal_minus, limits.suppress_capabilities)
        self.bad_commands = 0
        connection.write(
            b"%s OK [CAPABILITY %s] %s\r\n" % (tag, told, clean(f"Logged in as {login.user}"))
        )
        return True

    def _is_all_known(self) -> bool:
        """Whether no backend has to be asked what it offers."""
        frontend = self.frontend
        seen = (frontend.mailboxes.stamp(), frontend.whole_config)
        if seen == frontend.all_known_at:
            return True
        unknown = frontend.capabilities.unknown_of(servers(frontend))
        if not unknown:
            frontend.all_known_at = seen
            return True
        now = self.loop.time()
        return all(frontend.looked_at.get(server, 0.0) > now for server in unknown)

    def _would_refer(self, user: str) -> bool:
        """Whether the login is to be referred."""
        frontend = self.frontend
        if not frontend.has_referrers:
            return False
        entry = frontend.locator.known(inbox_of(user))
        return entry is not None and self._refers(entry, "LOGIN", user)

    def _refers(self, entry: MailboxEntry, command: str, user: str) -> bool:
        question = ReferralQuestion(
            command, entry, user, False, self.referrals_on, self.connection.peer
        )
        return self.frontend.plugins.relay_or_refer(question) is Conduct.REFER

    # --- to a mailbox

    def _open_at_once(self, tag: bytes, external: bytes, data: bytes) -> bool:
        """Where the mailbox is in the list, and a connection to its backend is there: this session's, or one that waits for
        its next user, who is let in there with the same write."""
        frontend, login, selected = self.frontend, self.login, self.selected
        if (
            login is None
            or login.is_admin
            or self.enabled
            or self.wants_modseqs
            or self.arbiter is not None
            or self.ask_again is not None
        ):
            return False
        try:
            name = _internal(self.service.namespace, external, login.user)
        except Refusal:
            return False
        entry = frontend.mailboxes.find(name)
        if entry is None or entry.state is not EntryState.ACTIVE or not self.may_know_of(entry):
            return False
        if frontend.has_referrers:
            command = data[len(tag) + 1 :].split(b" ", 1)[0].upper().decode("ascii")
            if self._refers(entry, command, login.user):
                return False
        server = entry.server
        upstream = self.upstreams.get(server)
        if selected is not None and selected.upstream is not upstream:
            return False  # it is to be left first
        if upstream is None:
            return self._open_pooled(server, name, tag, data)
        if not upstream.is_at_rest or upstream.connection.writing_paused:
            return False
        if selected is not None:
            self.deselect()
        self.tell_changed_capabilities()
        self._begin_opening(upstream, name, tag, data)
        upstream.write(data)
        upstream.watch()
        return True

    def _open_pooled(self, server: str, name: MailboxName, tag: bytes, data: bytes) -> bool:
        frontend, login = self.frontend, self.user
        if HOPS_FIELD in self.client_id or self.upstreams:
            return False
        address = frontend.upstreams.address(server, IMAP)
        upstream = frontend.pool.take(address)
        if upstream is None:
            return False
        config, connection = frontend.config, self.connection
        upstream.serve(self, config.upstream_timeout_s, config.max_message_bytes)
        self.upstreams[server] = upstream
        opening = self._begin_opening(upstream, name, tag, data)
        own = upstream.next_tag()
        octets = (
            b'%si ID ("x-originating-ip" "%s" "x-session-id" "%s" "%s" "%d" "%s" "1")\r\n%s %s\r\n%s'
            % (
                own,
                connection.peer.encode(),
                connection.cid.encode(),
                HOPS_FIELD.encode(),
                MAX_HOPS,
                FOLLOWS_FIELD.encode(),
                own,
                proxy_login(address, login.user),
                data,
            )
        )
        until = self.loop.time() + config.upstream_login_timeout_s
        upstream.ask_at_once(opening, octets, own, until)
        return True

    def _begin_opening(
        self, upstream: ImapUpstream, name: MailboxName, tag: bytes, data: bytes
    ) -> "Opening":
        self.select(upstream, name)
        opening = self.opening = Opening(self, upstream, name, data)
        upstream.flight.append((tag, opening))
        self.bad_commands = 0
        self.active_at = self.loop.time()
        return opening

    def opened(self, reply: Reply, opening: "Opening") -> None:
        """The backend has answered SELECT."""
        self.opening = None
        if not reply.is_ok:
            self.deselect()
        elif reply.code.upper() == b"READ-ONLY":
            self.select(opening.upstream, opening.name, is_read_only=True)
        self.active_at = self.loop.time()

    def lost_behind_login(self, opening: "Opening", failure: UpstreamFailure) -> None:
        """The backend has gone, with the SELECT: what was to be said of that has been said, but for this."""
        self.opening = None
        if not self.connection.is_lost:
            self.failed(parse_command(opening.octets), failure)
            self.resume()

    def not_let_in(self, opening: "Opening", failure: UpstreamFailure) -> None:
        """The backend has not let the user in on this connection: the dialogue opens the mailbox, by another; where the time
        is over, it says so."""
        upstream = opening.upstream
        upstream.flight.clear()
        upstream.client = NOBODY
        self.opening = None
        if self.upstreams.get(upstream.server) is upstream:
            del self.upstreams[upstream.server]
        if self.selected is not None and self.selected.upstream is upstream:
            self.deselect()
        self.frontend.upstreams.failed(failure)
        if self.connection.is_lost:
            return
        command = parse_command(opening.octets)
        if failure.kind is UpstreamKind.TIMEOUT:
            self.failed(command, failure)
            self.resume()
        else:
            self._start(command)
            self.resume()

    # --- out

    def _leave_at_once(self, tag: bytes) -> bool:
        selected = self.selected
        if (selected is not None and selected.upstream.flight) or self.arbiter is not None:
            return False
        self.session.ended()
        self.connection.write(b"* BYE Logging out\r\n%s OK Completed\r\n" % tag)
        self.close()
        return True


class Opening:
    """A SELECT on its way, and the login before it: hears both ends, without a task."""

    __slots__ = ("dialogue", "name", "octets", "upstream")

    def __init__(
        self, dialogue: Lobby, upstream: ImapUpstream, name: MailboxName, octets: bytes
    ) -> None:
        self.dialogue = dialogue
        self.upstream = upstream
        self.name = name
        self.octets = octets

    # --- of the login

    def heard(self, upstream: ImapUpstream, line: bytes, failure: UpstreamFailure | None) -> None:
        if failure is not None:
            self.dialogue.not_let_in(self, failure)
            return
        dialogue = self.dialogue
        frontend, server = dialogue.frontend, upstream.server
        _, word, text = line.split(b" ", 2) if line.count(b" ") > 1 else (b"", b"", b"")
        if word.upper() != b"OK":
            said = text.strip().decode("utf-8", "replace")
            why = upstream.failure(UpstreamKind.AUTH, f"it does not let us in: {said}")
            self.dialogue.not_let_in(self, why)
            upstream.abandon()
            return
        words = text[1 : text.find(b"]")] if text.startswith(b"[" + TOLD) else b""
        if words and len(words) <= MAX_CAPABILITIES:
            upstream.capabilities = capabilities_of(words)
        frontend.upstreams.worked(server)
        frontend.capabilities.learn(server, upstream.capabilities)
        dialogue.tell_changed_capabilities()
        if plain_log.threshold <= logging.DEBUG:
            dialogue.log.debug("upstream.connected", backend=upstream.server)

    # --- of the SELECT, as a future

    def done(self) -> bool:
        return False

    def set_result(self, reply: Reply) -> None:
        self.dialogue.opened(reply, self)

    def set_exception(self, failure: UpstreamFailure) -> None:
        """The backend has gone behind the login."""
        self.dialogue.loop.call_soon(self.dialogue.lost_behind_login, self, failure)


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def _internal(namespace: Namespace, external: bytes, user: str) -> MailboxName:
    """Raises Refusal."""
    return namespace.internal(external, user)


@functools.lru_cache(maxsize=16)
def _words(words: tuple[bytes, ...], literal_minus: bool, suppressed: tuple[str, ...]) -> bytes:
    """As `capability_words` after the login."""
    left_out = {word.upper().encode() for word in suppressed}
    shown = (b"LITERAL-" if literal_minus and word == b"LITERAL+" else word for word in words)
    return b" ".join(word for word in shown if word.upper() not in left_out)
