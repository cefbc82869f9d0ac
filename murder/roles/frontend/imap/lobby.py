"""What nearly every session begins and ends with, in few steps: LOGIN, AUTHENTICATE PLAIN, SELECT, LOGOUT as clients spell
them, where nothing has to be waited for.

A webmail logs in for every click, and finds all that it runs cold: what counts is how many different functions a session
passes through. `Lobby.received` takes a whole command that it knows and carries it out, or takes nothing: then the
dialogue has the same octets, and does what it does with any. Here is only what passes. Whatever is refused, waits, refers,
or asks somebody falls to the dialogue, before anything has been counted or said.
"""

import functools
import logging
import re
from binascii import Error as NoBase64
from binascii import a2b_base64
from typing import Final

from murder.api.referral import ReferralQuestion
from murder.config import Config
from murder.errors import Misuse, Refusal, UpstreamFailure, UpstreamKind
from murder.log import plain_log
from murder.model.address import MAX_HOPS
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, Namespace, inbox_of, is_below
from murder.model.protocol import IMAP
from murder.net.dialogue import CLOSE_GRACE_S
from murder.net.outgoing.exchange import parse_reply
from murder.net.outgoing.pool import (
    MAX_CAPABILITIES,
    NOBODY,
    OURS,
    TOLD,
    capabilities_of,
    proxy_login,
)
from murder.net.outgoing.proving import CURES, GSSAPI, cure_of
from murder.net.outgoing.relay import MAX_IN_FLIGHT, ImapUpstream
from murder.net.outgoing.upstream import Address
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.mail.modseqs import MARKS, SHORTEST
from murder.roles.frontend.imap.selected import Selected
from murder.roles.frontend.imap.waits import Opening
from murder.roles.frontend.locate import server_of
from murder.roles.frontend.multiplexor.express import Express
from murder.roles.frontend.placement import servers
from murder.roles.mupdate.database.record import ACTIVE, FLAGS_AT, HEAD_OCTETS
from murder.serve.imap_commands import let_in
from murder.session.imap_server import State
from murder.wire.imap.command import COMMAND, Command, parse_command
from murder.wire.imap.id import HOPS_FIELD
from murder.wire.imap.mailboxes.moved import FIELD as FOLLOWS_FIELD
from murder.wire.imap.mailboxes.moved import WATCHES_TOO, view_in
from murder.wire.imap.response import clean

MOST_OCTETS: Final = 1000  # of such a command
BRACE: Final = ord("}")  # looking for octets as `bytes` costs an exception
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
# As `net.outgoing.pool` enters: own tag, address and session of the client; own tag, the login; the client's SELECT
ENTER: Final = (
    b'%%si ID ("x-originating-ip" "%%s" "x-session-id" "%%s" "%s" "%d" "%s" "%s")\r\n%%s %%s\r\n%%s'
    % (HOPS_FIELD.encode(), MAX_HOPS, FOLLOWS_FIELD.encode(), WATCHES_TOO.encode())
)
# Where the user is in: ID, with the tag that is waited for; the client's SELECT
ENTER_AGAIN: Final = b"%s" + ENTER[len(b"%si") :].replace(b"\r\n%s %s\r\n", b"\r\n")
_OPENED: Final = re.compile(rb"(?i)[^ ]+ OK (?!\[READ-ONLY\])")
EXPRESS_OCTETS: Final = 8 * 1024  # commands that come together; far below the limit of a line
ONE_OCTETS: Final = 250  # of the shortest way: no tag in it is too long
# Commands that are relayed, as nearly every client writes them: all behind the tag, or the first word of that or of a UID
WHOLE: Final = frozenset({b"NOOP\r", b"CHECK\r", b"EXPUNGE\r"})
FIRST: Final = frozenset({b"FETCH", b"STORE", b"SEARCH"})
MOST_REMEMBERED: Final = 4096  # names, of `MOST_OCTETS` at most


class Lobby(FrontendImap):
    """See the module."""

    def received(self, data: bytes) -> None:
        """The hot path: one command for the selected backend, written as nearly every client does, where none is in flight,
        goes there as it came. One function, as every call here is one a command; and neither a regular expression, which
        costs four times a `partition`, nor `in` with octets, which raises an exception within. Behind that, others that the
        lobby knows are relayed or carried out; all else is the dialogue's."""
        connection, selected = self.connection, self.selected
        is_free = self._task is None and self.opening is None and not self.is_closing
        has_brace = len(data) > EXPRESS_OCTETS or BRACE in data
        if is_free and selected is not None and self.is_flowing and not has_brace:
            line, ending, more = data.partition(b"\n")
            tag, _, words = line.partition(b" ")
            upstream = selected.upstream
            to = upstream.connection
            if (
                ending
                and not (more or upstream.flight or upstream.is_lost)
                and tag.isalnum()
                and len(data) <= ONE_OCTETS
                and not (connection.writing_paused or to.writing_paused)
            ):
                is_relayed = words in WHOLE
                if not is_relayed:
                    first, _, rest = words.partition(b" ")
                    if (first if first != b"UID" else rest.partition(b" ")[0]) in FIRST:
                        upper = data.upper()
                        is_relayed = self.wants_modseqs or (
                            upper.find(MARKS[0]) < 0 and upper.find(MARKS[1]) < 0
                        )
                        if is_relayed and upstream.outlasting is not None:
                            upstream.look_for_outlasting(data)
                if is_relayed:  # as `relay`
                    self.bad_commands = 0
                    self.active_at = upstream.active_at = upstream.relayed_at = self.loop.time()
                    if not upstream.sweep_slot:
                        upstream.watch()
                    upstream.flight.append((tag, None, data))
                    if to.is_plain and not to.gathered:
                        to.transport.write(data)
                    else:
                        to.write(data)
                    return
        if not (
            is_free
            and (self.is_flowing or self.begins_to_flow())
            and data[-1:] == b"\n"
            and not connection.writing_paused
            and len(data) <= EXPRESS_OCTETS
            and not (has_brace and (data.find(b"}\r\n") >= 0 or data.find(b"}\n") >= 0))
        ):
            super().received(data)
            return
        if selected is not None and (match := COMMAND.match(data)):
            if match[2].upper() in self.RELAYED:
                data = self._relay_some(selected.upstream, data)
                if not data:
                    return
        if (
            len(data) > MOST_OCTETS
            or self._pump_is_due
            or self._following is not None
            or self._late_done
            or self.arbiter is not None
        ):
            is_done = False
        elif self.session.state is State.NOT_AUTHENTICATED:
            match = ENTERING.match(data)
            is_done = match is not None and (
                self._leave_at_once(match[1]) if match[7] else self._enter_at_once(match)
            )
        elif (match := INSIDE.match(data)) is None:
            is_done = False
        elif (word := match[4]) is None:
            is_done = self._open_at_once(match[1], match[2] or match[3] or b"", data)
        elif len(word) == len(b"LOGOUT"):
            is_done = self._leave_at_once(match[1])
        else:
            is_done = self._pass_time(match[1])
        if not is_done:
            super().received(data)

    def _relay_some(self, upstream: ImapUpstream, data: bytes) -> bytes:
        """Whole commands for the selected backend go there as they came, up to the first that is not so plain; what is
        left."""
        if len(data) >= SHORTEST and not self.wants_modseqs:
            # a regular expression would take a tenth of all that a command costs
            upper = data.upper()
            if upper.find(MARKS[0]) >= 0 or upper.find(MARKS[1]) >= 0:
                super().received(data)
                return b""
        if (
            upstream.is_lost
            or upstream.connection.writing_paused
            or len(upstream.flight) >= MAX_IN_FLIGHT
        ):
            return data
        at, size, commands = 0, len(data), []
        while at < size and (match := COMMAND.match(data, at)) and match[2].upper() in self.RELAYED:
            end = data.find(b"\n", match.end()) + 1
            commands.append((match[1], data[at:end]))
            at = end
        self.bad_commands = 0
        self.active_at = upstream.relay_all(commands, data if at == size else data[:at])
        return data[at:]

    def is_quiet(self) -> bool:
        return super().is_quiet() and type(self.opening) is not Express

    # --- in

    def _enter_at_once(self, match: re.Match[bytes]) -> bool:
        """Where the dialogue would admit the user without waiting, count them and refer them nowhere."""
        tag, quoted_user, user, quoted_password, password, plain, _ = match.groups()
        name, secret, authzid = user or quoted_user, password or quoted_password or b"", b""
        if plain is not None:
            try:
                authzid, name, secret = a2b_base64(plain, strict_mode=True).split(b"\0")
            except (NoBase64, ValueError):
                return False
        if authzid or not name or not name.isascii():
            return False
        service, connection, frontend = self.service, self.connection, self.frontend
        gate, limits, connections = service.gate, service.limits, service.gate.connections
        mechanism = "LOGIN" if plain is None else "PLAIN"
        login = gate.admit_at_once(
            name.decode("ascii"), secret, connection, self.protocol, mechanism
        )
        if (multiplexor := frontend.multiplexor) is not None:
            if login is None or gate.own_passwords:  # or it is to be carried on
                return False
            self.bad_commands = 0
            is_odd = frontend.refers_unable and self.would_refer(login.user)
            way = None if is_odd or HOPS_FIELD in self.client_id else multiplexor.at_once(login)
            if way is not None and connections.counter.enter(login.user, connections.most):
                self._counted_as = login.user
                Express(self, match[0], login, *way)
            else:
                command = parse_command(match[0])
                self.go_on(command, let_in(self, command, login))
            return True
        if (
            login is None
            or not (
                (seen := (frontend.mailboxes.stamp(), frontend.whole_config))
                == frontend.all_known_at
                or self._is_all_known(seen)
            )
            or (frontend.refers_unable and self.would_refer(login.user))
        ):
            return False
        if not connections.counter.enter(login.user, connections.most):
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
        if connection.is_tls:
            connection.became_known()
        elif (on_known := connection.on_known) is not None:  # the same
            connection.on_known = None
            on_known(connection)
        facts: dict[str, object]
        if self.client_id:
            facts = self.log_facts()
        else:  # the same
            facts = {
                "role": service.role,
                "protocol": self.protocol,
                "cid": connection.cid,
                "peer": connection.peer,
                "user": login.user,
            }
        facts.update(mechanism=mechanism, proxy="", admin=False, tls=connection.is_tls)
        plain_log.info("login.succeeded", facts)
        service.figures.count_login(connection.attempt, self.protocol, "succeeded")
        self._told = words = frontend.capabilities.current or frontend.capabilities.words()
        capabilities = _words(words, limits.literal_minus, limits.suppress_capabilities)
        self.bad_commands = 0
        reply = b"%s OK [CAPABILITY %s] %s\r\n" % (tag, capabilities, _welcome(login.user))
        if connection.is_plain and not connection.gathered:
            connection.transport.write(reply)
        else:
            connection.write(reply)
        return True

    def _is_all_known(self, seen: tuple[int, Config]) -> bool:
        """Whether no backend has to be asked what it offers, as the list and the configuration are now."""
        frontend = self.frontend
        if frontend.locator.lacking:
            return False  # whether this user's INBOX is, too
        unknown = frontend.capabilities.unknown_of(servers(frontend))
        if not unknown:
            frontend.all_known_at = seen
            return True
        now = self.loop.time()
        return all(frontend.looked_at.get(server, 0.0) > now for server in unknown)

    def would_refer(self, user: str) -> bool:
        """Whether the login is to be referred."""
        frontend = self.frontend
        entry = frontend.locator.known(inbox_of(user))
        return entry is not None and self._refers(entry, "LOGIN", user)

    def _refers(self, entry: MailboxEntry, command: str, user: str) -> bool:
        question = ReferralQuestion(
            command, entry, user, False, self.referrals_on, self.connection.peer
        )
        return self.frontend.refers(question)

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
            or self.ask_again is not None
        ):
            return False
        try:
            seen = self.service.namespace
            ways = seen.unix_hierarchy, seen.alternative, seen.domains
            name = _internal(*ways, external, login.user)
        except Refusal:
            return False
        row = frontend.mailboxes.row(name)
        if row is None or not row[FLAGS_AT] & ACTIVE:  # as `server_in`, in a call less
            return False
        may_refer = frontend.refers_unable or self.referrals_on
        if may_refer or not _is_own(name, login.user):
            entry = frontend.mailboxes.find(name)
            if entry is None or not entry.is_active or not self.may_know_of(entry):
                return False
            if may_refer:
                command = data[len(tag) + 1 :].split(b" ", 1)[0].upper().decode("ascii")
                if self._refers(entry, command, login.user):
                    return False
        at = FLAGS_AT + 1
        server = server_of(row[HEAD_OCTETS : HEAD_OCTETS + (row[at] << 8) + row[at + 1]])
        upstream, address, is_in = self.upstreams.get(server), None, False
        if selected is not None and selected.upstream is not upstream:
            return False  # it is to be left first
        config, connection = frontend.config, self.connection
        if upstream is None:
            # a backend that is entered makes an INBOX where there is none (`check_own_known`)
            if HOPS_FIELD in self.client_id or (
                external.upper() != b"INBOX" and frontend.locator.lacking
            ):
                return False
            address = frontend.upstreams.address(server, IMAP)
            upstream = None if address.auth == GSSAPI else frontend.pool.take(address)
            if upstream is None:
                upstream, is_in = frontend.pool.take_of(address, login.user), True
                if upstream is None:
                    return False
            elif (
                OURS not in upstream.capabilities
            ):  # Cyrus loses what stands behind an AUTHENTICATE
                frontend.pool.keep(upstream)
                return False
            upstream.serve(self, config.upstream_timeout_s, config.max_message_bytes)
            self.upstreams[server] = upstream
        elif not upstream.is_at_rest or upstream.connection.writing_paused:
            return False
        else:
            if selected is not None:
                self.deselect()
            self.tell_changed_capabilities()
        self.selected = Selected(upstream, name)  # as `select` where none is
        upstream.passes_unsolicited = True
        self.session.selected()
        self.opening = upstream, name, data
        upstream.flight.append((tag, self.opened, b""))
        self.bad_commands = 0
        now = self.active_at = self.loop.time()
        if address is None:
            upstream.write(data)
            upstream.watch()
            return True
        own = next(upstream.tags)
        known = own, connection.peer.encode(), connection.cid.encode()
        if is_in:
            octets = ENTER_AGAIN % (*known, data)
        else:
            octets = ENTER % (*known, own, _proxy_login(address, login.user), data)
        upstream.ask_at_once(self, octets, own, now + config.upstream_login_timeout_s)
        return True

    def heard(self, upstream: ImapUpstream, line: bytes, failure: UpstreamFailure | None) -> None:
        """Of the login before the SELECT."""
        opening = self.opening
        if not isinstance(opening, tuple) or opening[0] is not upstream:
            raise Misuse("an answer to a login that nobody waits for")
        if failure is not None:
            self.not_let_in(opening, failure)
            return
        _, word, text = line.split(b" ", 2) if line.count(b" ") > 1 else (b"", b"", b"")
        if word.upper() != b"OK":
            said = text.strip().decode("utf-8", "replace")
            cure = cure_of(CURES.get(upstream.address.auth, ""), line)
            why = upstream.failure(UpstreamKind.AUTH, f"it refuses our login: {said}", cure)
            self.not_let_in(opening, why)
            upstream.abandon()
            return
        words = text[1 : text.find(b"]")] if text.startswith(b"[" + TOLD) else b""
        if words and len(words) <= MAX_CAPABILITIES:
            upstream.capabilities = capabilities_of(words)
        frontend = self.frontend
        if upstream.server in frontend.upstreams.health:
            frontend.upstreams.worked(upstream.server)
        if frontend.capabilities.offered.get(upstream.server) is not upstream.capabilities:
            frontend.capabilities.learn(upstream.server, upstream.capabilities)
        if frontend.capabilities.current is not self._told:
            self.tell_changed_capabilities()
        if plain_log.threshold <= logging.DEBUG:
            self.log.debug("upstream.connected", backend=upstream.server)

    def opened(self, end: bytes | UpstreamFailure) -> None:
        """The end of the SELECT: its tagged line, or the backend has gone behind the login."""
        opening = self.opening
        if not isinstance(opening, tuple):
            raise Misuse("an answer to a SELECT that nobody waits for")
        if isinstance(end, UpstreamFailure):
            self.loop.call_soon(self.lost_behind_login, opening, end)
            return
        self.opening = None
        self.active_at = self.loop.time()
        if _OPENED.match(end):
            return
        reply = parse_reply(end)
        if not reply.is_ok:
            self.deselect()
        elif reply.code.upper() == b"READ-ONLY":
            self.select(opening[0], opening[1], is_read_only=True)

    def lost_behind_login(self, opening: Opening, failure: UpstreamFailure) -> None:
        """The backend has gone, with the SELECT: what was to be said of that has been said, but for this. Where it has said
        that the mailbox before has moved, it has not begun it."""
        self.opening = None
        if self.connection.is_lost:
            return
        command = parse_command(opening[2])
        if view_in(opening[0].last_word)[0]:
            self.go_on(command, self._open_again(command))
            return
        self.failed(command, failure)
        self.resume()

    async def _open_again(self, command: Command) -> None:
        """Where the list has it now."""
        await self.catch_up()
        await self.carry_out(command)

    def not_let_in(self, opening: Opening, failure: UpstreamFailure) -> None:
        """The backend has not let the user in on this connection: the dialogue opens the mailbox, by another; where the time
        is over, it says so."""
        upstream, _, octets = opening
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
        command = parse_command(octets)
        if failure.kind is UpstreamKind.TIMEOUT:
            self.failed(command, failure)
            self.resume()
        else:
            self._start(command)
            self.resume()

    # --- out

    def _pass_time(self, tag: bytes) -> bool:
        """NOOP where no mailbox is selected."""
        if self.selected is not None:
            return False
        self.bad_commands = 0
        self.active_at = self.loop.time()
        self.connection.write(tag + b" OK Completed\r\n")
        return True

    def _leave_at_once(self, tag: bytes) -> bool:
        selected = self.selected
        if selected is not None and selected.upstream.flight:
            return False
        self.session.ended()
        connection, reply = self.connection, b"* BYE Logging out\r\n%s OK Completed\r\n" % tag
        if connection.is_plain and not connection.gathered:
            connection.transport.write(reply)
        else:
            connection.write(reply)
        # as `close`, where nothing is held and nothing runs; and the backend need not wait for the client's end
        self.is_closing = True
        connection.finish()
        ends_at = self._ends_at = self.loop.time() + CLOSE_GRACE_S
        self.sweep.watch(self, ends_at)
        if len(self.upstreams) == 1 and selected is not None and self.login is not None:
            frontend = self.frontend  # as `_let_go`
            if self.login.is_admin or frontend.upstreams.tells_origin:
                self._let_go()
            else:
                self.upstreams = {}
                frontend.pool.give(selected.upstream, self.login.user)
        elif self.upstreams:
            self._let_go()
        return True

    def lost(self, error: Exception | None) -> None:
        """As the dialogue's, in few steps where nothing runs and nothing waits."""
        if self._task is not None or self._waiter is not None:
            super().lost(error)
            return
        self.is_closing = True
        if type(self.opening) is Express:
            self.opening.give_up()
        if self._counted_as is not None:  # as `count_out`
            self.service.gate.connections.counter.leave(self._counted_as)
            self._counted_as = None
        self.sweep.forget(self)
        self.frontend.sessions.discard(self)  # as `ended`
        if self.upstreams:
            self._let_go()
        self.selected = None


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def _internal(
    unix_hierarchy: bool, alternative: bool, domains: bool, external: bytes, user: str
) -> MailboxName:
    """Raises Refusal."""
    return Namespace(unix_hierarchy, alternative, domains).internal(external, user)


@functools.lru_cache(maxsize=16)
def _words(words: tuple[bytes, ...], literal_minus: bool, suppressed: tuple[str, ...]) -> bytes:
    """As `capability_words` after the login."""
    left_out = {word.upper().encode() for word in suppressed}
    offered = (b"LITERAL-" if literal_minus and word == b"LITERAL+" else word for word in words)
    return b" ".join(word for word in offered if word.upper() not in left_out)


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def _is_own(name: MailboxName, user: str) -> bool:
    """Whether it is a user's INBOX or below it: its owner may always know of it."""
    return name == inbox_of(user) or is_below(name, inbox_of(user))


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def _proxy_login(address: Address, user: str) -> bytes:
    return proxy_login(address, user)


@functools.lru_cache(maxsize=MOST_REMEMBERED)
def _welcome(user: str) -> bytes:
    return clean(f"Logged in as {user}")
