"""NOTIFY (RFC 5465): the client is told of the events it chose, in the selected mailbox and in others, at any time."""

from collections.abc import Sequence
from typing import Final

from murder.model.name import MailboxName
from murder.model.query.notify import Event, EventGroup, Which
from murder.roles.backend.changes.looking import EVERYTHING as ALL
from murder.roles.backend.changes.looking import Interest
from murder.roles.backend.changes.news import Kind, News
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.notify.filters import Filters
from murder.roles.backend.imap.notify.watch import Watch, follows
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.notify import SELECTED, parse_notify
from murder.wire.imap.response import status_line

MAX_NEWS: Final = 1000  # events that wait for a client who does not read
UNINTERESTED: Final = Interest(arrivals=False, removals=False, flags=False)


def run_notify(dialogue: BackendImap, command: Command) -> Running:
    """RFC 5465."""
    return _notify(dialogue, command)


async def _notify(dialogue: BackendImap, command: Command) -> None:
    request = await arguments(command, parse_notify)
    if not request.groups:
        stop_notifying(dialogue)
        await dialogue.finish(command)
        return
    watcher = MailboxWatcher(dialogue, request.groups)
    watchers = dialogue.backend.tracker.watchers
    watchers.add(watcher)  # before it looks: nothing may happen unseen
    try:
        answers = await watcher.watch.begin(tell_status=request.status)
    except BaseException:
        watchers.discard(watcher)
        raise
    if dialogue.view is not None:  # RFC 5465 §3.1: a NOOP is implied
        dialogue.view.interest = ALL
        # a frontend asks it again where a mailbox has gone, before commands that the client has sent: by its numbers
        was_taken_up, dialogue.view.was_taken_up = dialogue.view.was_taken_up, False
        dialogue.send(await dialogue.updates(removals=not was_taken_up))
    dialogue.send(answers)
    _start(dialogue, watcher, request.groups)
    dialogue.send_ok(command)


def _start(dialogue: BackendImap, watcher: "MailboxWatcher", groups: Sequence[EventGroup]) -> None:
    if dialogue.watcher is not None:
        dialogue.backend.tracker.watchers.discard(dialogue.watcher)
    selected = next((group for group in groups if group.which in SELECTED), None)
    events = selected.events if selected is not None else frozenset()
    dialogue.interest = Interest(
        arrivals=Event.MESSAGE_NEW in events,
        removals=Event.MESSAGE_EXPUNGE in events,
        flags=Event.FLAG_CHANGE in events,
    )
    dialogue.manner.uid_with_flags = True
    dialogue.arrival_items = selected.fetch if selected is not None else ()
    dialogue.watcher = watcher
    dialogue.notify(
        between=True,
        removals=selected is not None and selected.which is Which.SELECTED,
        beside=watcher,
    )


def stop_notifying(dialogue: BackendImap) -> None:
    """NOTIFY NONE: from now on the client is told of nothing that it has not done itself."""
    if dialogue.watcher is not None:
        dialogue.backend.tracker.watchers.discard(dialogue.watcher)
    dialogue.watcher = None
    dialogue.interest = UNINTERESTED
    dialogue.arrival_items = ()
    dialogue.notify(between=False, removals=False, beside=None)


class MailboxWatcher:
    """What has happened in other mailboxes, until the client can be told."""

    def __init__(self, dialogue: BackendImap, groups: Sequence[EventGroup]) -> None:
        self._dialogue = dialogue
        others = [group for group in groups if group.which not in SELECTED]
        mailboxes = dialogue.backend.mailboxes
        filters = Filters(others, dialogue.user, mailboxes, dialogue.name_of)
        self.watch = Watch(dialogue, filters)
        self.own: set[tuple[Kind, MailboxName]] = set()  # what the client is just doing itself
        self._news: list[tuple[News, bool]] = []
        self._dirty: dict[str, None] = {}
        self._overflown = False

    # --- Watcher

    def mailbox_changed(self, mailbox_id: str) -> None:
        if self.watch.knows(mailbox_id):
            self._dirty[mailbox_id] = None
            self._wake()

    def happened(self, news: News) -> None:
        if len(self._news) >= MAX_NEWS:
            self.all_changed()
        else:
            self._news.append((news, (news.kind, news.name) in self.own))
            self._wake()

    def all_changed(self) -> None:
        self._overflown = True
        self._news.clear()
        self._dirty.clear()
        self._wake()

    def _wake(self) -> None:
        if self._dialogue.notifier is not None:
            self._dialogue.notifier.wake()

    # --- Beside

    @property
    def has_news(self) -> bool:
        return bool(self._news or self._dirty or self._overflown)

    async def tell(self) -> None:
        """All that has come together. Where it was too much: that, and nothing more (RFC 5465 §5.8)."""
        dialogue = self._dialogue
        while self.has_news and dialogue.watcher is self and not dialogue.is_closing:
            if self._overflown:
                self._end("Too much has happened: ask again with NOTIFY")
                return
            if self._news:
                news, own = self._news.pop(0)
                if news.kind is Kind.LEFT and not follows(dialogue):
                    if self.watch.loses(news.name):
                        self._end("A mailbox has moved to another server: ask again with NOTIFY")
                        return
                else:
                    dialogue.send(await self.watch.news(news, own=own))
            else:
                mailbox_id = next(iter(self._dirty))
                del self._dirty[mailbox_id]
                dialogue.send(await self.watch.look(mailbox_id))
            await dialogue.flush()

    def _end(self, text: str) -> None:
        dialogue = self._dialogue
        stop_notifying(dialogue)
        dialogue.send(status_line(b"*", b"OK", text, b"NOTIFICATIONOVERFLOW"))
