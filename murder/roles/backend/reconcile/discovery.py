"""Mailboxes that other software makes in the store while we serve: taken into the list when somebody comes near them.

The store says cheaply whether there may be any (`api.NoticesMailboxes`); one without that power has none. What others
remove stays in the list, as at a start (`match`).
"""

from collections.abc import Callable
from typing import Final

from murder.api.store import NoticesMailboxes
from murder.errors import Refusal
from murder.log import logger
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, display
from murder.roles.backend.changes.events import Events, MasterMayDiffer
from murder.roles.backend.changes.news import Kind, News
from murder.roles.backend.hierarchy.announce import Announcer
from murder.roles.backend.hierarchy.intent import tree_of
from murder.roles.backend.hierarchy.mailboxes import Mailboxes
from murder.roles.mupdate.database.change import PutEntry

MAX_WAITING: Final = 1000  # names that could not be taken in at once


class Noticer:
    """See the module. One a worker; `is_kept` tells what rightly is not in the list (for a move to another server)."""

    def __init__(
        self,
        store: NoticesMailboxes,
        mailboxes: Mailboxes,
        announcer: Announcer,
        events: Events,
        is_kept: Callable[[MailboxName], bool],
    ) -> None:
        self._store = store
        self._mailboxes = mailboxes
        self._announcer = announcer
        self._events = events
        self._is_kept = is_kept
        self._waiting: set[MailboxName] = set()
        self._log = logger(role="backend")

    async def look(self, name: MailboxName) -> None:
        """Take in what others have made in the tree of this mailbox, it among them. Fails for nobody."""
        try:
            made = set(await self._store.made_beside(name))
        except Refusal:
            return  # whoever opens it is told
        tree = tree_of(name)
        waiting = {other for other in self._waiting if tree_of(other) == tree}
        unknown = {other for other in made | waiting if self._is_unknown(other)}
        self._waiting -= waiting
        if not unknown:
            return
        try:
            async with self._announcer.locked(name):
                for other in sorted(unknown):
                    await self._take_in(other)
        except Refusal as refusal:  # somebody else is at work in the tree: next time
            if len(self._waiting) < MAX_WAITING:
                self._waiting |= unknown
            self._log.info("mailbox.not_created", mailbox=display(name), problem=refusal.text)

    def _is_unknown(self, name: MailboxName) -> bool:
        return self._mailboxes.list.find(name) is None and not self._is_kept(name)

    async def _take_in(self, name: MailboxName) -> None:
        """Under the tree's lock, so that nobody makes or removes it just now."""
        if not self._is_unknown(name):
            return
        try:
            (await self._mailboxes.store.open(name, "")).close()
        except Refusal:
            return  # gone again
        place = bytes(self._announcer.location)
        raw_acl = self._mailboxes.default_acl(name)
        await self._announcer.commit(
            [PutEntry(MailboxEntry(name, EntryState.ACTIVE, place, raw_acl))]
        )
        self._log.info("mailbox.discovered", mailbox=display(name))
        self._events.publish(MasterMayDiffer((name,)))
        self._events.publish(News(Kind.CREATED, name))
