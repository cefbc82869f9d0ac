"""An IMAP connection to a backend: what it has selected, and how it is told of changes.

The commands themselves are in the files beside this one, one family each; `table` says which is allowed when.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from murder.api import CarriesMailboxes
from murder.errors import BadSyntax, Code, Misuse, Refusal
from murder.model.acl import Rights
from murder.model.identity import Login
from murder.model.message import Uid
from murder.model.name import MailboxName, display
from murder.model.protocol import IMAP
from murder.model.query.fetch import FetchItem
from murder.model.rights import Missing, permanent_flags
from murder.model.seqset import Ranges
from murder.net.connection import Connection
from murder.net.turns import aside, aside_if, let_go_of
from murder.roles.backend.changes.looking import EVERYTHING
from murder.roles.backend.changes.news import Kind
from murder.roles.backend.changes.updates import MANY, View
from murder.roles.backend.hierarchy.mailboxes import Accessible
from murder.roles.backend.hierarchy.referral import Referrals
from murder.roles.backend.imap.capability import CAPABILITIES
from murder.roles.backend.imap.flags import FlagForms
from murder.roles.backend.imap.lasting import Lasting
from murder.roles.backend.imap.notify.notifier import Beside, Notifier, Notifying
from murder.roles.backend.imap.search.context import Contexts
from murder.roles.backend.imap.untagged import Manner, format_numbers, format_shared
from murder.roles.backend.records.annotations import SERVER, SHARED
from murder.roles.backend.worker import BackendWorker
from murder.serve.client import Running
from murder.serve.imap import ImapDialogue
from murder.serve.service import ClientService
from murder.session.imap_server import Event, Line, State
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.moved import FIELD, GONE, MOST_SAVED_OCTETS, SeenView
from murder.wire.imap.response import bye, status_line
from murder.wire.imap.seqset import format_ranges
from murder.wire.nodes.control_answers import SessionShown
from murder.wire.token import string

NO_FORMS: Final = FlagForms(frozenset())
LONGEST_STOP_S: Final = 20.0  # that a command waits for; a stop takes some hundredths of a second
LOOK_AGAIN_S: Final = 0.02
# Set by `murder ctl backend weight`: this server's share of new mailboxes, which frontends hear in CAPABILITY.
WEIGHT: Final = "/shared/vendor/murder/weight"


class BackendImap(Lasting):
    """See the module. `view` is the selected mailbox, None without one. `_row` is that one's in the list, by which the
    rights in `selected` were made; the list had it at `looked_at`."""

    _row: bytes | None = None
    looked_at = -1
    asked_of_flags: object = None  # see `mail.noted.flags_are_seen`
    flags_are_seen = False

    def __init__(
        self, connection: Connection, service: ClientService, backend: BackendWorker
    ) -> None:
        super().__init__(connection, service)
        self.backend = backend.shared
        self.mover, self.renames = backend.mover, backend.renames
        self.view: View | None = None
        self.selected: Accessible | None = None
        self.manner = Manner()
        self.forms = NO_FORMS
        self.contexts = Contexts()
        # the result of SEARCH RETURN (SAVE), as UIDs; None: too long to come along when the mailbox moved here
        self.saved: Ranges | None = ()
        self.notifier: Notifier | None = None  # of a client that listens without a command
        self.watcher: Notifying | None = None  # of one that has used NOTIFY
        self.interest = EVERYTHING
        self.arrival_items: Sequence[FetchItem] = ()  # what NOTIFY wants to know of new messages
        self.on_line: Callable[[bytes], Running] | None = None  # who waits for a raw line (IDLE)
        self._held: Command | None = None  # a change that waits for the end of a move's stop
        self._held_for: Exception | None = None
        self._again: Command | None = None  # the one that has waited, and runs again
        self.backend.sessions.add(self)

    # --- what the base asks of a role

    def capabilities(self) -> bytes:
        words = b" ".join(CAPABILITIES)
        words += b" APPENDLIMIT=%d" % self.service.limits.max_message_bytes
        words += b" IMAPSIEVE=sieve://" + self.service.server_name.encode()
        if self.backend.master_url:
            words += b" MUPDATE=" + self.backend.master_url.encode()
        if self.takes_from_cyrus:
            # Cyrus' words for its replication protocol, by which its XFER works, and for scripts as messages in it
            words += b" X-REPLICATION X-SIEVE-MAILBOX"
        weight = self.backend.annotations.value(SERVER, SHARED, WEIGHT)
        if weight:
            words += b" X-WEIGHT=" + weight
        return words

    @property
    def in_utf8(self) -> bool:
        return self.manner.utf8

    def describe(self) -> SessionShown:
        mailbox = display(self.selected.name) if self.selected is not None else ""
        return replace(super().describe(), mailbox=mailbox)

    async def entered(self) -> None:
        await self.backend.refer_login(self.user, IMAP)
        await self.backend.ensure_inbox(self.user)

    def _login_words(self) -> list[bytes]:
        words = super()._login_words()
        return [*words, b"LOGIN-REFERRALS"] if self.backend.config.refers_logins else words

    def ended(self) -> None:
        if not self.may_proceed():
            return  # again when all is told
        self.backend.sessions.discard(self)
        self.leave_mailbox()
        self.forget_notify()

    def handle(self, event: Event) -> Running:
        if isinstance(event, Line) and self.on_line is not None:
            return self.on_line(event.octets)
        row = self.TABLE.get(event.name) if isinstance(event, Command) else None
        if row is not None:
            if row.inside and self.view is not None and self._has_left(self.view):
                return self._hand_over()
            if row.numbered:
                self.need_numbers()
        if isinstance(event, Command) and self.login is not None and not self.login.by_proxy:
            if self.backend.referrals is not None:
                return self._handle_or_refer(event, self.backend.referrals, self.login)
        # IDLE takes as long as it likes
        if not isinstance(event, Command) or event.name == b"IDLE":
            return super().handle(event)
        began = time.monotonic()
        running = super().handle(event)
        if running is not None:
            return self.timed(running, event, began)
        self.took(event, began)
        return None

    def _handle_or_refer(self, command: Command, referrals: Referrals, login: Login) -> Running:
        """As `handle`; a mailbox that is missing may be somewhere else (RFC 2193)."""
        try:
            running = super().handle(command)
        except Missing as missing:
            return self._refer(referrals, login, missing)
        return None if running is None else self._run_or_refer(running, referrals, login)

    async def _run_or_refer(
        self, running: Coroutine[Any, Any, None], referrals: Referrals, login: Login
    ) -> None:
        try:
            await running
        except Refusal as refusal:
            await self._refer(referrals, login, refusal)

    async def _refer(self, referrals: Referrals, login: Login, refusal: Refusal) -> None:
        instead = await referrals.instead(refusal, login)
        if instead is refusal:
            raise refusal  # not from itself: that would be a ring
        raise instead from refusal

    # --- telling without a command

    def may_proceed(self) -> bool:
        return self.notifier is None or not self.notifier.is_telling

    def is_quiet(self) -> bool:
        return super().is_quiet() and self.may_proceed()

    def listen(self, *, idling: bool) -> None:
        """IDLE has begun, or ended."""
        if self.notifier is None:
            self.notifier = Notifier(self)
        self.notifier.idling = idling
        self.notifier.attach(self.view)
        if idling:
            self.notifier.wake()

    def notify(self, *, between: bool, removals: bool, beside: Beside | None) -> None:
        """NOTIFY has been asked for, or given up."""
        if self.notifier is None:
            self.notifier = Notifier(self)
        self.notifier.between, self.notifier.removals = between, removals
        self.notifier.beside = beside
        self.notifier.attach(self.view)
        if self.view is not None:
            self.view.interest = self.interest

    @contextmanager
    def causing(self, *events: tuple[Kind, MailboxName]) -> Iterator[None]:
        """What the client does itself it need not be told (RFC 5465 §5)."""
        watcher = self.watcher
        if watcher is not None:
            watcher.own.update(events)
        try:
            yield
        finally:
            if watcher is not None:
                watcher.own.difference_update(events)

    def failed_telling(self, error: Exception) -> None:
        """News could not be read: what the client has seen is not what there is, so the connection ends."""
        if not self.connection.is_lost:
            self.failed(None, error)
            self.close()

    def told_all(self) -> None:
        """The notifier rests."""
        if self.connection.is_lost:
            self.ended()
        else:
            self.resume()

    # --- what the commands use

    @property
    def takes_from_cyrus(self) -> bool:
        """Whether the client is a Cyrus backend that may send mailboxes here."""
        login = self.login
        if login is None or login.proxy:
            return False
        return login.user in self.backend.config.takes_xfer_from

    @property
    def now(self) -> View:
        """The selected mailbox, in commands that the table allows only with one."""
        if self.view is None:
            raise Misuse("no mailbox is selected")
        return self.view

    def enter_mailbox(self, view: View, selected: Accessible) -> None:
        """It is selected: what earlier commands have kept of another is gone."""
        self.view = view
        self.selected = selected
        self._row, self.looked_at = None, -1
        self.saved = ()
        self.contexts = Contexts()
        permanent = permanent_flags(selected.rights, view.read_only)
        self.forms = FlagForms(permanent, not self.manner.imap4rev2)
        view.interest = self.interest
        view.on_renamed = self._follow
        self.backend.tracker.enter(view, self.user.user)
        if self.notifier is not None:
            self.notifier.attach(view)
        self.session.selected()

    def _follow(self, old: MailboxName, new: MailboxName) -> None:
        """A mailbox has been renamed, or deleted (then `new` is no name); if it is the selected one, that stays selected."""
        if self.selected is None or self.view is None or self.selected.name != old:
            return
        if not new:
            self.view.may_be_gone = True
        else:
            # the user may not know of it under its new name: the next command says BYE
            with suppress(Refusal):
                self.selected = self.backend.mailboxes.look(new, self.user)
                self._row, self.looked_at = None, -1

    def saved_result(self) -> Ranges:
        """What `$` stands for (RFC 5182): UIDs, of which some may have gone since. Raises Refusal."""
        if self.saved is None:
            text = (
                "The mailbox has moved, and the saved result was too long to go along: search again"
            )
            raise Refusal(Code.NOT_SAVED, text)
        return self.saved

    def close_deleted(self) -> None:
        """The client has deleted what it had selected."""
        self.leave_mailbox()
        self.send(status_line(b"*", b"OK", "The selected mailbox is deleted", b"CLOSED"))

    def leave_mailbox(self) -> None:
        """Without a word to the client."""
        view = self.view
        if view is None:
            return
        self.view = self.selected = None
        self.saved = ()
        self.forms = NO_FORMS
        view.on_dirty = view.on_happened = view.on_renamed = None
        self.contexts = Contexts()
        self.backend.tracker.leave(view)
        view.leave()
        view.mailbox.close()
        if self.session.state is State.SELECTED:
            self.session.deselected()

    def forget_notify(self) -> None:
        """As if NOTIFY had never been used."""
        if self.watcher is not None:
            self.backend.tracker.watchers.discard(self.watcher)
        self.watcher = self.notifier = None
        self.interest = EVERYTHING
        self.arrival_items = ()

    def forget_login(self) -> None:
        self.leave_mailbox()
        self.forget_notify()
        self.manner = Manner()
        super().forget_login()

    def need_rights(self, needed: str = "") -> Rights:
        """What the client may do in the selected mailbox, by its access list of now. Raises Refusal where a right is
        missing."""
        selected, mailboxes = self.selected, self.backend.mailboxes
        if selected is None:
            raise Misuse("no mailbox is selected")
        name, stamp = selected.entry.name, mailboxes.list.stamp_now()
        if stamp != self.looked_at:
            row = mailboxes.list.row(name)
            if row is None or row != self._row:
                self.selected = selected = mailboxes.look(name, self.user)
                self._row = row
            self.looked_at = stamp
        if needed and not selected.rights.issuperset(needed):
            mailboxes.require(name, self.user, needed)  # which says so
        return selected.rights

    def need_numbers(self) -> None:
        """Raises BadSyntax where the client has said that it uses UIDs only (RFC 9586 §3)."""
        if self.manner.uid_only:
            raise BadSyntax("UIDONLY is enabled: use UIDs", code=Code.UID_REQUIRED)

    def enable_condstore(self) -> None:
        """A command asks for mod-sequences: the first that does is told how far this client has been told of the
        selected mailbox (RFC 7162 §3.1)."""
        if self.manner.condstore:
            return
        self.manner.condstore = True
        if self.view is not None:
            code = b"HIGHESTMODSEQ %d" % max(1, self.view.settled)
            self.send(status_line(b"*", b"OK", "The latest change", code))

    def need_writable(self) -> None:
        """Raises Refusal after EXAMINE."""
        if self.now.read_only:
            raise Refusal(Code.READ_ONLY, "The mailbox is selected read-only")

    # --- the end of a command

    def conclude(
        self,
        command: Command,
        text: str = "Completed",
        code: bytes = b"",
        *,
        removals: bool = True,
        look: bool = False,
    ) -> Running:
        """Tell what is to be told, then OK: at once where nothing is. `look`: ask the store in any case."""
        view = self.view
        if view is None or not (view.is_dirty or look or view.has_pending):
            self.send_ok(command, text, code)
            return None
        return self.finish(command, text, code, removals=removals)

    async def finish(
        self, command: Command, text: str = "Completed", code: bytes = b"", *, removals: bool = True
    ) -> None:
        """As `conclude`, for handlers that are coroutines."""
        row = self.TABLE.get(command.name)
        done = status_line(command.tag, b"OK", text, code)
        is_elsewhere = row is not None and not row.inside
        updates = await self.updates(removals=removals, done=done if is_elsewhere else b"")
        if not self.is_closing:
            if self.manner.qresync and (lag := self._lag()):
                if code:
                    said = "Expunged messages are still to be reported"
                    updates += status_line(b"*", b"OK", said, lag)
                done = status_line(command.tag, b"OK", text, code or lag)
            self.send(updates + done)

    async def removal_code(self) -> bytes:
        """What the tagged OK tells a client that resynchronises of messages it has removed (RFC 7162 §3.2.7)."""
        if not self.manner.qresync:
            return b""
        await self.now.poll()
        return b"HIGHESTMODSEQ %d" % max(1, self.now.modseq)

    def _lag(self) -> bytes:
        """RFC 7162 §3.2: while removals wait, a client that resynchronises must not count them as told."""
        if self.view is None or self.view.delayed_from is None:
            return b""
        return b"HIGHESTMODSEQ %d" % max(1, self.view.delayed_from)

    async def _is_another(self, view: View) -> bool:
        """Whether the name of the selected mailbox, which was deleted, is none or another's by now: the store may keep
        what was deleted for a while."""
        view.may_be_gone = False
        try:
            mailbox = await self.backend.store.open(self._selected_name(view), "")
        except Refusal as refusal:
            return refusal.code is Code.NONEXISTENT
        mailbox.close()
        return mailbox.mailbox_id != view.mailbox.mailbox_id

    async def updates(self, *, removals: bool, done: bytes = b"", leaves: bool = False) -> bytes:
        """Untagged responses for what has happened. Says BYE where the mailbox itself has gone; before it `done`, of a
        command that has nothing to do with that mailbox. `leaves`: no command runs but IDLE, and who follows the mailbox is
        handed over. One that runs is answered before: what it has done is not to be done once more elsewhere."""
        view = self.view
        if view is None:
            return b""
        is_there = not (view.may_be_gone and await self._is_another(view))
        try:
            await view.poll()
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise
            is_there = False
        name = self._selected_name(view)
        if is_there and self.backend.mailboxes.is_here(name):
            if view.settle() and not self.contexts:  # mostly
                return b""
            return await self._tell(view, removals)
        if not self.backend.mailboxes.has_left(name):
            text, code = "The selected mailbox has been deleted", GONE
        elif not self._is_followed:
            text, code = "The selected mailbox has moved to another server: log in again", b""
        elif not leaves:
            view.is_dirty = True  # before the next command inside it
            return b""
        else:  # IDLE, NOTIFY
            self.send(await self._tell(view, removals))
            await self._hand_over()
            return b""
        self.leave_mailbox()
        self.send(done + bye(text, code))
        self.close()
        return b""

    # --- while the selected mailbox is stopped for its move

    def failed(self, event: Event, error: Exception) -> None:
        """A change that a move's stop refuses waits for the end of the stop, if the client follows: nothing has been done,
        and it shall not hear of the move. One that has waited for a move is not told that there is no such mailbox."""
        if isinstance(error, Refusal) and error.code is Code.NONEXISTENT:
            try:
                for name in error.names:
                    self.backend.mailboxes.check_has_not_left(MailboxName(name), self.login)
            except Refusal as has_left:
                error = has_left
        is_held = isinstance(error, Refusal) and error.code in (Code.IN_USE, Code.UNAVAILABLE)
        if is_held and self._task is not None and self._is_followed and self.view is not None:
            row = self.TABLE.get(event.name) if isinstance(event, Command) else None
            if row is not None and row.inside and self._again is not event:
                assert isinstance(event, Command)
                self._held, self._held_for = event, error
                return
        super().failed(event, error)

    def rested(self) -> None:
        event, self._held = self._held, None
        self._again = event
        if event is not None and self._task is None and not self.is_closing:
            self._task = self.loop.create_task(self._run(event, self._after_stop(event)))
            return
        if self.notifier is not None:
            self.notifier.wake()

    async def _after_stop(self, command: Command) -> None:
        """Again when the mailbox is not stopped any more; where it has left by then, whoever follows it does that there."""
        view, error = self.now, self._held_for
        give_up_at = self.loop.time() + LONGEST_STOP_S
        is_stopped = False
        while self.loop.time() < give_up_at and not self.connection.is_lost:
            view.is_dirty = True
            if self._has_left(view):
                await self._hand_over(command.tag)
                return
            store, name = self.backend.store, self._selected_name(view)
            if not (isinstance(store, CarriesMailboxes) and await store.is_frozen(name)):
                break
            is_stopped = True
            await asyncio.sleep(LOOK_AGAIN_S)
        if not is_stopped or self.loop.time() >= give_up_at:
            assert error is not None
            raise error
        running = ImapDialogue.handle(self, command)
        if running is not None:
            await running

    def _selected_name(self, view: View) -> MailboxName:
        """As it is called now: it may have been renamed."""
        return self.selected.entry.name if self.selected else view.mailbox.name

    @property
    def _is_followed(self) -> bool:
        """Whether the client goes on by itself where the selected mailbox moves to."""
        return FIELD in self.client_id

    def _has_left(self, view: View) -> bool:
        """The selected mailbox, and the client follows it."""
        if not (view.is_dirty and self._is_followed):
            return False
        mailboxes, name = self.backend.mailboxes, self._selected_name(view)
        return mailboxes.find(name) is None and mailboxes.has_left(name)

    async def _hand_over(self, anew: bytes = b"") -> None:
        """Leave; who follows the mailbox is told what the client knows of it, whatever has become of it here. No command
        runs, and none that has come is carried out any more; that with the tag `anew` is begun once more elsewhere."""
        view = self.now
        code = b"X-MOVED"
        saved = self.saved
        if saved is not None and len(saved) > MOST_SAVED_OCTETS // 2:
            saved = None
        if saved and len(format_ranges(saved)) > MOST_SAVED_OCTETS:
            saved = None
        last = Uid(view.uids[-1] if view.uids else 0)
        seen = SeenView(
            *(view.uid_validity, view.settled, view.exists, last),
            self.manner.condstore,
            saved,
        )
        for tag in self.contexts.tags:  # RFC 5267 §4.3.1: a server may end them
            if tag == anew:  # it may have been answered in part, and is kept up to date there
                continue
            text = "The mailbox has moved: ask again"
            self.send(status_line(b"*", b"NO", text, b"NOUPDATE " + string(tag)))
        code += (b" IDLING " if self.on_line is not None else b" ") + bytes(seen)
        self.leave_mailbox()
        self.send(bye("The selected mailbox has moved", code))
        self.close()

    async def _tell(self, view: View, removals: bool) -> bytes:
        """What has happened, and what that did to the searches that are kept up to date (RFC 5267 §4.3, RFC 5465 §7: a
        message that leaves is told first, then the changes, new messages, and who has come to the results)."""
        if view.has_many:
            async with view.steady():
                octets = await aside(self.contexts.removals, view)
                updates = await aside(view.take, removals=removals)
        else:
            octets = self.contexts.removals(view)
            updates = view.take(removals=removals)
        if updates.vanished:
            self.backend.tracker.told(view)
        is_much = len(updates.expunged) > MANY
        octets += await aside_if(is_much, format_numbers, updates, self.manner)
        octets += format_shared(updates.changed, self.forms, view, self.manner)
        while view.has_more_flags:
            self.send(octets)
            await self.flush()
            await view.look_at_more()
            octets = format_shared(view.take_flags(), self.forms, view, self.manner)
            view.settle()
        news = await self.contexts.changes(view, updates.arrived)
        wanted = {
            uid: items
            for uid in (updates.foreign if self.arrival_items or news.items else ())
            if (items := (*self.arrival_items, *news.items.get(uid, ())))
        }
        if wanted:
            self.send(octets)
            await self.tell_items(wanted)
            octets = b""
        if len(updates.expunged) + len(updates.arrived) > MANY:
            for several in (updates.expunged, updates.vanished, updates.arrived, updates.foreign):
                if isinstance(several, list):
                    await let_go_of(several)
        return octets + news.octets

    async def tell_items(self, wanted: Mapping[Uid, Sequence[FetchItem]]) -> None:
        """Send FETCH responses that nobody asked for just now."""
        raise NotImplementedError

    async def has_added(self, mailbox_id: str, uids: Sequence[Uid]) -> None:
        """The client has put messages into a mailbox: it need not be told what they are."""
        if self.view is not None and self.view.mailbox.mailbox_id == mailbox_id:
            await self.view.added(uids)
        elif self.watcher is not None:
            self.watcher.watch.expect(mailbox_id, uids)


Handler = Callable[[BackendImap, Command], Any]
