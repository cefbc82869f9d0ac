"""An IMAP connection to a frontend: its backends, what is selected, what is in flight.

The commands are in the files beside this one; `table` says which is allowed when and where it runs. Upstream
connections belong to a session and are opened on first use. Whatever is not a plain relay waits until all that is in
flight has been answered.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from murder.errors import BadSyntax, Code, Misuse, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, display
from murder.model.rights import rights_in
from murder.net.bulk import SLICE_OCTETS
from murder.net.connection import Connection
from murder.net.outgoing.exchange import Client, Reply
from murder.net.outgoing.pool import open_imap
from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.arbiter import Arbiter, Correct
from murder.roles.frontend.imap.selected import ALL, LEFT, Moved, Selected
from murder.roles.frontend.imap.waits import Opening, Waiting, Waits
from murder.roles.frontend.origin import checked_hops
from murder.roles.frontend.placement import servers
from murder.roles.frontend.shared import Frontend
from murder.roles.frontend.visible import find, may_know_of, may_know_of_new
from murder.serve.client import Running
from murder.serve.imap import ImapDialogue
from murder.serve.service import ClientService
from murder.session.imap_client import non_synchronising
from murder.session.imap_server import Event, Line, State, Wrong
from murder.wire.imap.command import Command
from murder.wire.imap.id import HOPS_FIELD, ORIGIN_FIELD, SESSION_FIELD
from murder.wire.imap.mailboxes.moved import FIELD as FOLLOWS_FIELD
from murder.wire.imap.mailboxes.moved import MOVED, WATCHES_TOO, is_of_deleted, view_in
from murder.wire.imap.response import bye, status_for, status_line, untagged
from murder.wire.nodes.control_answers import SessionShown

IN_UTF8: Final = frozenset({b"IMAP4REV2", b"UTF8=ACCEPT"})
FIRST_LOOK_S: Final = 1.0  # what a login waits for backends that nobody has been at yet
LOOK_AGAIN_S: Final = 30.0
WAITING_OCTETS: Final = 64 * 1024  # for a client that takes nothing: TLS keeps more beside them


class FrontendImap(ImapDialogue, Client):
    """See the module, and `Dialogue` for where attributes begin."""

    connection: Connection
    referrals_on = False
    wants_modseqs = False  # it has asked for some, by whatever command (RFC 7162 §3.1)
    ask_again: Callable[[ImapUpstream], Awaitable[bytes]] | None = None  # NOTIFY
    watch_on: Callable[[], Awaitable[None]] | None = None  # likewise, after a move
    watch_at: Callable[[str], Awaitable[None]] | None = None  # likewise, at one backend
    is_watching = False
    extras: tuple[ImapUpstream, ...] = ()  # beside `upstreams`, for a moment
    idle: Waits | None = None
    _told: tuple[bytes, ...] = ()  # of what the backends offer
    _settled: asyncio.Future[None] | None = None
    _moved: Moved | None = None  # its selected mailbox has, and a handler runs
    _left: tuple[tuple[str, bytes], ...] = ()  # likewise, of what it watches: the backend, the name
    _farewell = b""  # a BYE that stands behind the answer of the handler that runs

    def __init__(self, connection: Connection, service: ClientService, frontend: Frontend) -> None:
        super().__init__(connection, service)
        self.frontend = frontend
        self.selected: Selected | None = None
        self.upstreams: dict[str, ImapUpstream] = {}
        self.arbiter: Arbiter | None = None  # once several backends speak unasked
        self.opening: Opening | Waiting | None = None
        # a DONE may come behind the end of an IDLE that was not the client's
        self._late_done = False
        self._following: asyncio.Task[None] | None = None
        self.is_flowing = True  # nothing has come yet
        connection.most_unwritten = WAITING_OCTETS
        connection.transport.set_write_buffer_limits(WAITING_OCTETS, WAITING_OCTETS // 4)
        frontend.sessions.add(self)

    @property
    def origin(self) -> tuple[str, int]:
        return self.connection.peer, self.connection.peer_port

    @property
    def is_full(self) -> bool:
        return self.connection.writing_paused

    def describe(self) -> SessionShown:
        session = replace(super().describe(), backends=tuple(sorted(self.upstreams)))
        if self.selected is None:
            return session
        mailbox = display(self.selected.name)
        return replace(session, mailbox=mailbox, backend=self.selected.server)

    # --- who and where

    @property
    def in_utf8(self) -> bool:
        """Every backend it has, too."""
        return bool(self.enabled and self.enabled & IN_UTF8)

    async def find(self, name: MailboxName) -> MailboxEntry:
        """A mailbox that the user may know of. One of others is refused as one that is not there, and as late: who
        asks is told neither that it exists nor where. Raises Refusal(NONEXISTENT), UpstreamFailure."""
        return await find(self.frontend, name, self.user)

    def may(self, entry: MailboxEntry, needed: str) -> bool:
        """Whether the user has all of these rights."""
        login = self.user
        return frozenset(needed) <= rights_in(entry, login.identity, login.is_admin)

    def may_know_of_new(self, name: MailboxName) -> bool:
        """Whether the user may know of a mailbox that is being created or moved."""
        return may_know_of_new(self.frontend, name, self.user)

    def may_know_of(self, entry: MailboxEntry) -> bool:
        """Whether the user may know that it exists."""
        return may_know_of(entry, self.user)

    async def catch_up(self) -> None:
        """After a change: our list has it before the client hears of it. A master that is away only delays that."""
        try:
            await self.frontend.locator.catch_up()
        except UpstreamFailure as failure:
            self.log.warning("replica.behind", kind=failure.kind.value, problem=failure.text)

    # --- login

    async def entered(self) -> None:
        """Refer the user elsewhere if the site wants that; know what the backends offer before capabilities are told."""
        self.refer_login()
        self.check_own_known()
        frontend = self.frontend
        unknown = frontend.capabilities.unknown_of(servers(frontend))
        now = self.loop.time()
        asked = [server for server in unknown if frontend.looked_at.get(server, 0.0) <= now]
        if not asked:
            return
        frontend.looked_at.update(dict.fromkeys(asked, now + LOOK_AGAIN_S))
        looks = [self.loop.create_task(self._look_at(server)) for server in asked]
        await asyncio.wait(looks, timeout=FIRST_LOOK_S)

    def refer_login(self) -> None:
        """Raises Refusal(REFERRAL)."""
        raise NotImplementedError

    def check_own_known(self) -> None:
        """A user whose INBOX may be one that the master has lost (`Locator.check_whole`) is shown no list without it, and
        comes to no backend that would make another. Raises UpstreamFailure."""
        login, proxies = self.user, self.frontend.config.proxies
        if login.is_admin or login.user == login.proxy or login.user in proxies:
            return
        self.frontend.locator.check_inbox(login.user)

    async def _look_at(self, server: str) -> None:
        try:
            await self.upstream(server)
        except UpstreamFailure as failure:
            self.log.warning(
                "upstream.failed",
                backend=failure.server,
                kind=failure.kind.value,
                problem=failure.text,
            )

    async def follow(self, moved: Moved) -> None:
        """The selected mailbox has moved: go on with it there (`follow`)."""
        raise NotImplementedError

    async def watch_elsewhere(self, left: tuple[tuple[str, bytes], ...]) -> None:
        """Mailboxes that are watched have moved: likewise."""
        raise NotImplementedError

    def capabilities(self) -> bytes:
        self._told = self.frontend.capabilities.words()
        return b" ".join(self._told)

    def tell_changed_capabilities(self) -> None:
        """Since they were told: a client may hear of them at any time (RFC 3501 §5.2), and does where it comes to a mailbox,
        which may be on a backend that is new or has changed. Whatever is in flight has been answered."""
        words = self.frontend.capabilities.words()
        if words is not self._told and words != self._told:
            self.send(untagged(b"CAPABILITY " + self.capability_words()))

    def _login_words(self) -> list[bytes]:
        words = super()._login_words()
        return [*words, b"LOGIN-REFERRALS"] if self.frontend.refers_logins else words

    # --- upstreams

    async def upstream(self, server: str) -> ImapUpstream:
        """This session's connection to a backend. Raises UpstreamFailure."""
        upstream = self.upstreams.get(server)
        if upstream is not None and not upstream.is_lost:
            return upstream
        opened = await self._open(server)
        self.upstreams[server] = opened
        if self.arbiter is not None:
            self.listen_to_all()
        if self.ask_again is not None:
            await opened.execute(await self.ask_again(opened), untagged=self.send)
        return opened

    def listen_to_all(self, correct: Correct | None = None) -> None:
        """Whatever a backend says unasked passes, whole responses at a time; `correct` is for the first time."""
        if self.arbiter is None:
            self.arbiter = Arbiter(self.connection, self, correct)
        for upstream in self.upstreams.values():
            if upstream.client is self:
                self.arbiter.let_through(upstream)
            upstream.passes_unsolicited = True

    def send(self, data: bytes) -> None:
        if self.arbiter is None:
            self.connection.write(data)
        else:
            self.arbiter.write(None, data)

    async def _open(self, server: str) -> ImapUpstream:
        config, login = self.frontend.config, self.user
        self.check_own_known()
        hops = checked_hops(self.connection.hops_left, self.service.server_name)
        identity = [
            (ORIGIN_FIELD, self.connection.peer),
            (SESSION_FIELD, self.connection.cid),
            (HOPS_FIELD, str(hops)),
            (FOLLOWS_FIELD, WATCHES_TOO),
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
            pool=None if login.is_admin else self.frontend.pool,
        )
        opened.times = self.service.figures.durations("relays", server)
        self.frontend.capabilities.learn(server, opened.capabilities)
        self.log.debug("upstream.connected", backend=server)
        enabled = self.enabled | {b"CONDSTORE"} if self.wants_modseqs else self.enabled
        if enabled:
            await opened.execute(b"ENABLE " + b" ".join(sorted(enabled)))
        return opened

    @asynccontextmanager
    async def spare_upstream(self, server: str) -> AsyncIterator[ImapUpstream]:
        """A connection to a backend with nothing selected: this session's, or one more for a moment. Raises
        UpstreamFailure."""
        selected = self.selected
        if (selected is None or selected.server != server) and self.ask_again is None:
            yield await self.upstream(server)
            return
        extra = await self._open(server)
        self.extras += (extra,)
        try:
            yield extra
        finally:
            self.extras = tuple(other for other in self.extras if other is not extra)
            self._close(extra)

    async def relay_at(self, server: str, command: Command) -> Reply:
        """A command as it came, at one backend; all answers, the tagged one too, untouched to the client."""
        upstream = await self.upstream(server)
        octets = non_synchronising(command.octets)
        if len(octets) > SLICE_OCTETS:
            return await upstream.relayed(command.tag, much=octets)
        upstream.write(octets)
        return await upstream.relayed(command.tag)

    # --- what is in flight

    def in_flight(self) -> bool:
        """Whether the backend of the selected mailbox owes an answer, or the mailbox is being followed."""
        selected = self.selected
        is_asked = selected is not None and selected.upstream.in_flight > 0
        return is_asked or self._following is not None

    async def settle(self) -> None:
        """Until all relayed commands have been answered."""
        while self.in_flight():
            await self._rest_until_settled()

    async def _rest_until_settled(self) -> None:
        self.is_flowing = False
        self._settled = self.loop.create_future()
        try:
            await self._settled
        finally:
            self._settled = None

    def _wake_settled(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def may_proceed(self) -> bool:
        if self._following is not None or self.opening is not None:
            return False
        selected = self.selected
        return selected is None or not selected.upstream.is_full

    def upstream_idle(self, upstream: ImapUpstream) -> None:
        if self.is_flowing:
            return  # nothing is held, and nobody waits
        self._wake_settled()
        # what was held may have gone to the backend up to the last octet, and filled that
        if self.session.held or self.connection.is_held_back:
            self.resume()
        elif self._input_ended:
            self.close_if_done()

    def is_done(self) -> bool:
        return super().is_done() and (self.idle is not None or not self.in_flight())

    def upstream_lost(self, upstream: ImapUpstream, tags: list[bytes], mid_response: bool) -> None:
        """The backend has gone: its commands get NO, its mailbox is closed; the session lives on."""
        is_watched = self.is_watching and self.upstreams.get(upstream.server) is upstream
        if self.upstreams.get(upstream.server) is upstream:
            del self.upstreams[upstream.server]
        if self.connection.is_lost or self.session.state is State.LOGOUT:
            return
        if mid_response:  # the client is in the middle of a literal: nothing can be said
            self.connection.abort()
            return
        if self._may_follow(upstream, tags):
            return
        if self.idle is not None and tags:
            self.end_idle()
        failure = upstream.failure(UpstreamKind.LOST, "the connection was lost")
        lines = b""
        if self.selected is not None and self.selected.upstream is upstream:
            text = "The backend of this mailbox has gone"
            if upstream.last_word:
                place = self._place_of(self.selected.name)
                is_gone = place is None and MOVED not in upstream.last_word
                if is_gone or is_of_deleted(upstream.last_word):
                    self._leave_with(upstream.last_word)
                    return
                if place != upstream.server or MOVED in upstream.last_word:
                    text = "The mailbox has moved: select it again"
                    failure = upstream.failure(UpstreamKind.MOVING, "the mailbox has moved")
            if failure.kind is not UpstreamKind.MOVING:
                self.log.warning("upstream.lost", backend=upstream.server)
            lines = status_line(b"*", b"OK", text, b"CLOSED")
            self.deselect(unasked=True)
        if is_watched:  # not one that was there for a moment beside
            self.is_watching, self.ask_again = False, None
            text = f"{upstream.server} has gone: ask again with NOTIFY"
            lines += status_line(b"*", b"OK", text, b"NOTIFICATIONOVERFLOW")
        lines += b"".join(status_for(failure).line(tag) for tag in tags)
        if lines:
            self.send(lines)
        self._wake_settled()

    def _leave_with(self, bye: bytes) -> None:
        """As a server that has the mailbox itself: behind the answer to the command that runs."""
        if self._task is not None:
            self._farewell = bye
        else:
            self.send(bye)
            self.close()

    @property
    def is_leaving(self) -> bool:
        """Whether BYE follows the command that runs."""
        return bool(self._farewell)

    def failed(self, event: Event, error: Exception) -> None:
        if self._farewell and isinstance(error, UpstreamFailure):
            return  # it has not been answered, and BYE follows
        super().failed(event, error)

    def _place_of(self, name: MailboxName) -> str | None:
        """The server of a mailbox by the list, "" while it is on its way; None where it has been deleted."""
        entry = self.frontend.mailboxes.find(name)
        if entry is None:
            return None
        return entry.server if entry.is_active else ""

    def end_idle(self) -> None:
        """The client has not ended it, and will."""
        if self.idle is not None:
            self.idle.over()
            self._late_done = True

    # --- the selected mailbox moves

    def _may_follow(self, upstream: ImapUpstream, tags: list[bytes]) -> bool:
        """Whether the session goes on with its mailbox elsewhere, and with these commands."""
        selected, (view, is_idling) = self.selected, view_in(upstream.last_word)
        if selected is None or selected.upstream is not upstream or not view:
            return False
        if isinstance(self.opening, tuple):  # another, which it has not begun
            self.deselect()
            self.send(LEFT)
            return True
        sent = upstream.unanswered(tags)
        if sent is None:
            return False
        self._moved = Moved(selected, view, sent, is_idling)
        if self._task is None or self._settled is not None:
            self._start_following()
        return True  # else behind the handler that runs: it may be in the middle of something at the other backend

    @property
    def is_to_follow(self) -> bool:
        """Whether the selected mailbox has moved, and the handler that runs is waited for."""
        return self._moved is not None

    def upstream_left(self, upstream: ImapUpstream, name: bytes) -> None:
        if self.is_watching and not self.connection.is_lost:
            self._left += ((upstream.server, name),)
            if self._task is None or self._settled is not None:
                self._start_following()

    def _start_following(self) -> None:
        if self._following is None:
            self._following = self.loop.create_task(self._follow())

    async def _follow(self) -> None:
        try:
            while self._moved is not None or self._left:
                await self._go_on()
        except ConnectionError:
            self.connection.abort()
        except Exception as error:  # noqa: BLE001 - the end of a task
            self.failed(None, error)
            self.close()
        finally:
            self._following = None
            self._wake_settled()
        if self.connection.is_lost:
            self._let_go()
        else:
            self.resume()

    async def _go_on(self) -> None:
        moved, self._moved = self._moved, None
        if moved is not None:
            await self.follow(moved)
        left, self._left = self._left, ()
        if left:
            await self.watch_elsewhere(left)

    def rested(self) -> None:
        super().rested()
        if self._farewell and not self.is_closing:
            self.send(self._farewell)
            self.close()
        elif self._moved is not None or self._left:
            self._start_following()

    async def relay_inside(self, command: Command) -> Reply:
        """As `relay_at` for the selected mailbox; again where that has moved, and the command has not been begun."""
        return await self.inside(lambda selected: self.relay_at(selected.server, command))

    async def inside(self, ask: Callable[[Selected], Awaitable[Reply]]) -> Reply:
        """Ask for something in the selected mailbox; again where that has moved, and nothing has been begun."""
        selected = self.selected
        if selected is None:
            raise Refusal(Code.CLOSED, "The selected mailbox has been closed")
        try:
            return await ask(selected)
        except UpstreamFailure:
            if self._moved is None:
                raise
        await self._go_on()
        if self.selected is None:
            raise Refusal(Code.UNAVAILABLE, "The mailbox has moved: select it again")
        return await ask(self.selected)

    async def carry_out(self, command: Command) -> None:
        """A command that was sent to a backend that did not begin it, as if it had just come."""
        try:
            if command.name not in self.RELAYED:
                while self.selected is not None and self.selected.upstream.in_flight:
                    await self._rest_until_settled()
            running: Any = super().handle(command)
            if running is not None:
                await running
        except (BadSyntax, Refusal, UpstreamFailure, Misuse) as error:
            self.failed(command, error)

    def writable(self) -> None:
        """The client takes octets again."""
        for upstream in (*self.upstreams.values(), *self.extras):
            upstream.client_writable()
        super().writable()

    # --- the selected mailbox

    def select(self, upstream: ImapUpstream, name: MailboxName, is_read_only: bool = False) -> None:
        """From now on what that backend says unasked passes to the client."""
        if self.selected is not None and self.selected.upstream is not upstream:
            self.selected.upstream.passes_unsolicited = self.arbiter is not None
        self.selected = Selected(upstream, name, is_read_only)
        upstream.passes_unsolicited = True
        self.session.selected()

    def deselect(self, *, unasked: bool = False) -> None:
        """As CLOSE leaves it; does nothing where no mailbox is selected. One that has moved is followed no more."""
        self.was_closed_unasked = unasked
        if self.selected is not None:
            self.selected.upstream.passes_unsolicited = self.arbiter is not None
            if self._moved is not None:
                self._left = (ALL,)
            self.selected = self._moved = None
        if self.session.state is State.SELECTED:
            self.session.deselected()

    # --- dispatch

    def received(self, data: bytes) -> None:
        self.is_flowing = False
        super().received(data)

    def begins_to_flow(self) -> bool:
        """Whether what the client sends may now be passed on as it comes."""
        self.is_flowing = (
            self._waiter is None
            and self.idle is None
            and self._settled is None
            and self._following is None
            and not self._input_ended
            and self.session.is_between
        )
        return self.is_flowing

    def input_ended(self) -> bool:
        self.is_flowing = False
        return super().input_ended()

    def handle(self, event: Event) -> Running:
        if self.idle is not None and isinstance(event, Line):
            self.idle.done(event.octets)
            return None
        if self._late_done:
            self._late_done = False
            if isinstance(event, Wrong) and event.tag.upper() == b"DONE":
                return None
        if isinstance(event, Command) and self.in_flight():
            if event.name not in self.RELAYED:
                return self._after(event)
        return super().handle(event)

    async def _after(self, command: Command) -> None:
        """Carry out a command behind those that are in flight."""
        await self.settle()
        running: Any = super().handle(command)
        if running is not None:
            await running

    def say_bye(self, text: str, code: Code = Code.UNAVAILABLE) -> None:
        self.send(bye(text, code.value.encode()))
        self.close()

    def is_quiet(self) -> bool:
        return super().is_quiet() and (self.idle is not None or not self.in_flight())

    def forget_login(self) -> None:
        self.deselect()
        self._let_go()
        self.arbiter = self.ask_again = None
        self.is_watching = self.referrals_on = self.wants_modseqs = False
        super().forget_login()

    def ended(self) -> None:
        self.frontend.sessions.discard(self)
        if self.upstreams:
            self._let_go()
        self.selected = None

    def _let_go(self) -> None:
        upstreams, self.upstreams = self.upstreams, {}
        self._close(*upstreams.values())

    def _close(self, *upstreams: ImapUpstream) -> None:
        """For the next user, but never where somebody was in with their own password."""
        frontend, login = self.frontend, self.login
        is_kept = login is not None and not login.is_admin and not frontend.upstreams.tells_origin
        for upstream in upstreams:
            if is_kept and login is not None:
                frontend.pool.give(upstream, login.user)
            else:
                upstream.close()


def run_selected(dialogue: FrontendImap, command: Command) -> Running:
    """The hot path: a command inside the selected mailbox goes to its backend as it came; a long one as it is taken."""
    selected = dialogue.selected
    if selected is None:
        raise Misuse("no mailbox is selected")
    octets = non_synchronising(command.octets)
    if len(octets) > SLICE_OCTETS:
        return selected.upstream.relay_much(command.tag, octets)
    selected.upstream.relay(command.tag, octets)
    return None
