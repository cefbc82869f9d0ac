"""Who watches which mailbox, in one process: who does is told that something has changed, not how it stands now."""

import asyncio
from typing import Final, Protocol

from murder.api.store import Mailbox
from murder.model.message import ModSeq
from murder.roles.backend.changes.changecache import ChangeCaches
from murder.roles.backend.changes.events import Events, MailboxChanged
from murder.roles.backend.changes.news import EVERYTHING, NO_NAME, Kind, News, parse_news
from murder.roles.backend.changes.powers import TELLS_EXPUNGED
from murder.roles.backend.changes.presence import Presence
from murder.roles.backend.changes.updates import View

LET_GO_S: Final = 0.5
MAX_MODSEQ: Final = ModSeq(2**63 - 1)


class Watcher(Protocol):
    """A session that wants to know of other mailboxes than the selected one."""

    def mailbox_changed(self, mailbox_id: str) -> None:
        """Its messages have changed: look when it suits."""
        ...

    def happened(self, news: News) -> None: ...

    def all_changed(self) -> None:
        """So much has happened that nobody says what."""
        ...


class Tracker:
    """Who watches which mailbox in this process; hears of changes from the store and from other workers. `presence`: where
    there are others."""

    def __init__(self, events: Events, presence: Presence | None = None) -> None:
        self._views: dict[str, set[View]] = {}
        self._presence = presence
        self._bit = 1 if presence is None else presence.bit
        self._told: set[str] = set()  # mailboxes in which removals have just been told
        self._letting_go: asyncio.TimerHandle | None = None
        self.watchers: set[Watcher] = set()
        self._events = events
        events.subscribe(News, self._spread)
        self._caches = ChangeCaches()
        self.changes = 0  # how often something was heard

    def enter(self, view: View, reader: str | None = None) -> None:
        """`reader`: whose flags it tells; None where it does not tell any."""
        mailbox_id = view.mailbox.mailbox_id
        if reader is not None:
            view.cache = self._caches.enter(mailbox_id, reader)
        self._views.setdefault(mailbox_id, set()).add(view)
        if self._presence is not None:
            self._presence.enter(mailbox_id)

    def leave(self, view: View) -> None:
        """The view's mailbox is open still."""
        mailbox_id = view.mailbox.mailbox_id
        views = self._views.get(mailbox_id)
        if views is None or view not in views:
            return
        views.discard(view)
        if view.cache is not None:
            self._caches.leave(view.cache)
            view.cache = None
        if self._presence is not None:
            self._presence.leave(mailbox_id)
        if not views:
            del self._views[mailbox_id]
            if (keeping := TELLS_EXPUNGED.of(view.mailbox)) is not None:
                keeping.let_go(MAX_MODSEQ, self._bit)
        elif view.gone or view.is_dirty:
            self.told(view)

    # --- what is kept although it was expunged

    def holders(self, mailbox: Mailbox) -> int:
        """See murder.api.store.Untold."""
        mailbox_id = mailbox.mailbox_id
        workers = 0 if self._presence is None else self._presence.elsewhere(mailbox_id)
        views = self._views.get(mailbox_id, ())
        if any(view.mailbox is not mailbox for view in views):
            workers |= self._bit
        return workers

    def told(self, view: View) -> None:
        """A client has been told of removals, or has left. Many are told of the same ones: what nobody here has still to be
        told of is let go of a moment later, at once for all."""
        self._told.add(view.mailbox.mailbox_id)
        if self._letting_go is None:
            self._letting_go = asyncio.get_running_loop().call_later(LET_GO_S, self._let_go)

    def _let_go(self) -> None:
        self._letting_go = None
        waiting, self._told = self._told, set()
        for mailbox_id in waiting:
            views = self._views.get(mailbox_id)
            if views:
                keeping = TELLS_EXPUNGED.of(next(iter(views)).mailbox)
                if keeping is not None:
                    keeping.let_go(min(view.told_up_to for view in views), self._bit)

    # --- what happens

    def mailbox_changed(self, mailbox_id: str) -> None:
        """StoreListener: something was changed through this process's store."""
        self.heard(mailbox_id)
        self._events.publish(MailboxChanged(mailbox_id))

    def heard(self, text: str) -> None:
        """Another worker has told something: the id of a mailbox that has changed, or news."""
        self.changes += 1
        if text == EVERYTHING:
            for views in tuple(self._views.values()):
                for view in tuple(views):
                    view.note_changed()
            for watcher in tuple(self.watchers):
                watcher.all_changed()
            return
        news = parse_news(text)
        if news is not None:
            self._spread(news)
            return
        for view in tuple(self._views.get(text, ())):
            view.note_changed()
        for watcher in tuple(self.watchers):
            watcher.mailbox_changed(text)

    def _spread(self, news: News) -> None:
        if news.kind in (Kind.RENAMED, Kind.RENAMED_BELOW, Kind.DELETED):
            old, new = news.other, news.name
            if news.kind is Kind.DELETED:
                old, new = news.name, NO_NAME
            for views in tuple(self._views.values()):
                for view in tuple(views):
                    if view.on_renamed is not None:
                        view.on_renamed(old, new)
        for watcher in tuple(self.watchers):
            watcher.happened(news)
