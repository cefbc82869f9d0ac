"""An IMAP connection to a frontend: its backends, what is selected, what is in flight.

The commands are in the files beside this one; `table` says which is allowed when and where it runs. Upstream
connections belong to a session and are opened on first use. Whatever is not a plain relay waits until all that is in
flight has been answered.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from murder.errors import Misuse, UpstreamFailure, UpstreamKind
from murder.frontend.shared import Frontend
from murder.login.gate import Login
from murder.login.imap import ImapDialogue, ImapService, Row, Running
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, inbox_of
from murder.net.connection import Connection
from murder.net.relay import Client, ImapUpstream, Reply, open_imap
from murder.session.imap_client import non_synchronising
from murder.session.imap_server import Event, State
from murder.wire.imap.command import COMMAND, Command
from murder.wire.imap.response import bye, status_for, status_line

# What this frontend can carry, whatever the backends offer besides
CARRIED: Final = (
    b"IMAP4REV1",
    b"LITERAL+",
    b"ID",
    b"ENABLE",
    b"ACL",
    b"RIGHTS=KXTE",
    b"RIGHTS=KXTEN",
    b"BINARY",
    b"CHILDREN",
    b"CONDSTORE",
    b"ESEARCH",
    b"IDLE",
    b"CREATE-SPECIAL-USE",
    b"LIST-EXTENDED",
    b"LIST-METADATA",
    b"LIST-MYRIGHTS",
    b"LIST-STATUS",
    b"METADATA",
    b"MOVE",
    b"MULTIAPPEND",
    b"NAMESPACE",
    b"OBJECTID",
    b"PARTIAL",
    b"PREVIEW",
    b"QRESYNC",
    b"QUOTA",
    b"QUOTA=RES-MAILBOX",
    b"QUOTA=RES-MESSAGE",
    b"QUOTA=RES-STORAGE",
    b"QUOTASET",
    b"SAVEDATE",
    b"SEARCHRES",
    b"SORT",
    b"SORT=DISPLAY",
    b"SPECIAL-USE",
    b"STATUS=SIZE",
    b"THREAD=ORDEREDSUBJECT",
    b"THREAD=REFERENCES",
    b"UIDPLUS",
    b"UNSELECT",
    b"WITHIN",
)
SPELLING: Final = {
    b"IMAP4REV1": b"IMAP4rev1",
    b"RIGHTS=KXTE": b"RIGHTS=kxte",
    b"RIGHTS=KXTEN": b"RIGHTS=kxten",
}
BASE: Final = frozenset(
    {*(b"IMAP4REV1", b"LITERAL+", b"ID", b"ENABLE", b"ACL", b"CHILDREN", b"IDLE", b"MOVE")}
    | {b"NAMESPACE", b"UIDPLUS", b"UNSELECT"}
)
ENABLEABLE: Final = frozenset({b"CONDSTORE", b"QRESYNC"})
EXPRESS_OCTETS: Final = 8 * 1024  # commands that come together; far below the limit of a line
HOPS_FIELD: Final = "x-proxy-ttl"
MAX_HOPS: Final = 5


@dataclass(frozen=True, slots=True)
class Selected:
    """The selected mailbox and the backend it is on."""

    upstream: ImapUpstream
    name: MailboxName
    is_read_only: bool = False

    @property
    def server(self) -> str:
        return self.upstream.server


class FrontendImap(ImapDialogue, Client):
    """See the module. `PASSED`: the commands that go to the selected backend as they are."""

    PASSED: ClassVar[frozenset[bytes]]

    def __init__(self, connection: Connection, service: ImapService, frontend: Frontend) -> None:
        super().__init__(connection, service)
        self.frontend = frontend
        self.origin = (connection.peer, connection.peer_port)
        self.selected: Selected | None = None
        self.referrals_on = False
        self.upstreams: dict[str, ImapUpstream] = {}
        self._settled: asyncio.Future[None] | None = None
        frontend.sessions.add(self)

    # --- who and where

    @property
    def user(self) -> Login:
        """Who is logged in."""
        if self.login is None:
            raise Misuse("nobody is logged in")
        return self.login

    def name_of(self, external: bytes) -> MailboxName:
        """The canonical name of what the client calls so. Raises Refusal."""
        return self.frontend.namespace.internal(external, self.user.user)

    def external(self, name: MailboxName) -> bytes:
        return self.frontend.namespace.external(name, self.user.user)

    async def find(self, name: MailboxName) -> MailboxEntry:
        """Raises Refusal(NONEXISTENT), UpstreamFailure."""
        return await self.frontend.locator.find(name)

    async def catch_up(self) -> None:
        """After a change: our list has it before the client hears of it. A master that is away only delays that."""
        try:
            await self.frontend.locator.catch_up()
        except UpstreamFailure as failure:
            self.log.warning("replica.behind", kind=failure.kind.value, problem=failure.text)

    # --- login

    async def entered(self) -> None:
        """Know what the user's own backend offers before capabilities are told."""
        entry = self.frontend.locator.known(inbox_of(self.user.user))
        if entry is None or entry.server in self.frontend.capabilities:
            return
        try:
            await self.upstream(entry.server)
        except UpstreamFailure as failure:
            self.log.warning(
                "upstream.failed",
                backend=failure.server,
                kind=failure.kind.value,
                problem=failure.text,
            )

    def capabilities(self) -> bytes:
        """What all backends known so far offer and this frontend carries."""
        offered = [*self.frontend.capabilities.values()] or [BASE]
        common = frozenset.intersection(*offered)
        words = [
            word
            for word in CARRIED
            if word in common or word in (b"IMAP4REV1", b"LITERAL+", b"ID", b"ENABLE")
        ]
        return b" ".join(SPELLING.get(word, word) for word in words)

    # --- upstreams

    async def upstream(self, server: str) -> ImapUpstream:
        """This session's connection to a backend. Raises UpstreamFailure."""
        found = self.upstreams.get(server)
        if found is not None and not found.is_lost:
            return found
        config, login = self.frontend.config, self.user
        identity = [
            ("x-originating-ip", self.connection.peer),
            ("x-session-id", self.connection.cid),
            (HOPS_FIELD, str(self._hops_left())),
        ]
        opened = await open_imap(
            self.frontend.upstreams,
            server,
            self,
            user=login.user,
            password=login.password if login.is_admin else None,
            identity=identity,
            timeout_s=config.upstream_timeout_s,
            max_message=config.max_message_bytes,
        )
        self.frontend.capabilities[server] = opened.capabilities
        self.upstreams[server] = opened
        self.log.debug("upstream.connected", backend=server)
        if self.enabled:
            await opened.ask(b"ENABLE " + b" ".join(sorted(self.enabled)))
        return opened

    def _hops_left(self) -> int:
        """A proxy that is a client of itself must come to an end."""
        told = self.client_id.get(HOPS_FIELD, "")
        left = int(told) - 1 if told.isdecimal() and len(told) < 4 else MAX_HOPS
        if left < 0:
            raise UpstreamFailure(
                UpstreamKind.PROTOCOL,
                self.service.server_name,
                "proxies call each other in a circle",
            )
        return left

    async def relay_at(self, server: str, command: Command) -> Reply:
        """A command as it came, at one backend; all answers, the tagged one too, untouched to the client."""
        upstream = await self.upstream(server)
        upstream.write(non_synchronising(command.octets))
        return await upstream.relayed(command.tag)

    # --- what is in flight

    def in_flight(self) -> bool:
        selected = self.selected
        return selected is not None and selected.upstream.in_flight > 0

    async def settle(self) -> None:
        """Until all relayed commands have been answered."""
        while self.in_flight():
            self._settled = self.loop.create_future()
            try:
                await self._settled
            finally:
                self._settled = None

    def may_proceed(self) -> bool:
        selected = self.selected
        return selected is None or not selected.upstream.connection.writing_paused

    def upstream_idle(self, upstream: ImapUpstream) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        if self.session.held:
            self.resume()

    def upstream_lost(self, upstream: ImapUpstream, tags: list[bytes], mid_response: bool) -> None:
        """The backend has gone: its commands get NO, its mailbox is closed; the session lives on."""
        if self.upstreams.get(upstream.server) is upstream:
            del self.upstreams[upstream.server]
        if self.connection.is_lost:
            return
        if mid_response:  # the client is in the middle of a literal: nothing can be said
            self.connection.abort()
            return
        failure = upstream.failure(UpstreamKind.LOST, "the connection was lost")
        lines = b""
        if self.selected is not None and self.selected.upstream is upstream:
            self.log.warning("upstream.lost", backend=upstream.server)
            lines = status_line(b"*", b"OK", "The backend of this mailbox has gone", b"CLOSED")
            self.deselect()
        lines += b"".join(status_for(failure).line(tag) for tag in tags)
        if lines:
            self.connection.write(lines)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def writable(self) -> None:
        """The client takes octets again."""
        for upstream in self.upstreams.values():
            upstream.client_writable()

    # --- the selected mailbox

    def select(self, upstream: ImapUpstream, name: MailboxName, is_read_only: bool = False) -> None:
        if self.selected is not None and self.selected.upstream is not upstream:
            self.selected.upstream.passes_unsolicited = False
        self.selected = Selected(upstream, name, is_read_only)
        upstream.passes_unsolicited = True
        self.session.state = State.SELECTED

    def deselect(self) -> None:
        if self.selected is not None:
            self.selected.upstream.passes_unsolicited = False
            self.selected = None
        if self.session.state is State.SELECTED:
            self.session.state = State.AUTHENTICATED

    # --- dispatch

    def received(self, data: bytes) -> None:
        """Whole commands for the selected backend need no session to be cut; all else does."""
        if self.selected is not None and self._task is None and self._waiter is None:
            passed = self._pass_on(data) if self.session.is_between else 0
            if passed == len(data):
                return
            if passed:
                data = data[passed:]
        super().received(data)

    def _pass_on(self, data: bytes) -> int:
        """The hot path: commands as they came, up to the first that is not so simple. How many octets those had."""
        if data[-1:] != b"\n" or len(data) > EXPRESS_OCTETS or b"}\r\n" in data or b"}\n" in data:
            return 0
        at = 0
        while at < len(data) and (match := COMMAND.match(data, at)) is not None:
            selected = self.selected
            if (
                selected is None
                or match[2].upper() not in self.PASSED
                or self.is_closing
                or selected.upstream.is_lost
                or selected.upstream.connection.writing_paused
            ):
                break
            end = data.find(b"\n", match.end()) + 1
            selected.upstream.relay(match[1], data[at:end])
            at = end
        if at:
            self._bad_commands = 0
            self._note_activity()
        return at

    def handle(self, event: Event) -> Running:
        if isinstance(event, Command) and self.in_flight():
            if event.name not in self.PASSED:
                return self._after(event, self.TABLE.get(event.name))
        return super().handle(event)

    async def _after(self, command: Command, row: Row | None) -> None:
        """Carry out a command behind those that are in flight."""
        await self.settle()
        running: Any = super().handle(command)
        if running is not None:
            await running

    def say_bye(self, text: str) -> None:
        self.send(bye(text, b"UNAVAILABLE"))
        self.close()

    def is_quiet(self) -> bool:
        return super().is_quiet() and not self.in_flight()

    def ended(self) -> None:
        self.frontend.sessions.discard(self)
        for upstream in list(self.upstreams.values()):
            upstream.close()
        self.upstreams.clear()
        self.selected = None


def run_selected(dialogue: FrontendImap, command: Command) -> Running:
    """The hot path: a command inside the selected mailbox goes to its backend as it came."""
    selected = dialogue.selected
    if selected is None:
        raise Misuse("no mailbox is selected")
    selected.upstream.relay(command.tag, non_synchronising(command.octets))
    return None
