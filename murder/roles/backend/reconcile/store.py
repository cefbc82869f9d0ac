"""Comparing this backend's list with its own store: after a restored backup, or a bug, one may have what the other lacks.

Nothing is ever removed. A mailbox that only the store has is adopted into the list, one that only the list has is made
anew, empty; both are reported. What crashes leave is not settled here (`announce.repair` does that).
"""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Final

from murder.api.store import MailboxStore, NeedsPlace
from murder.errors import Code, Refusal
from murder.log import logger
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import DELETED_ROOT, USER_ROOT, MailboxName, display, is_deleted, owner_of
from murder.net.turns import line_up
from murder.roles.backend.hierarchy.announce import Announcer
from murder.roles.backend.hierarchy.intent import CHANGES_STORE, parse_intent, tree_of
from murder.roles.backend.hierarchy.mailboxes import Mailboxes
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.change import PutEntry
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transaction import ListTransaction

AT_ONCE: Final = 2000  # so many mailboxes are compared before serving; more of them while serving
PAUSE_AFTER: Final = 100
USERS: Final = USER_ROOT + b"."


def need_places(store: NeedsPlace, mailbox_list: MailboxList) -> None:
    """Before the store is started: that the mail of users and of shared mailboxes, as far as the list has such, is there.
    Else each would be made anew, empty, where a file system was to be mounted. Raises Refusal."""
    looked_at = set[bool]()
    for entry in _settled(mailbox_list):
        is_user = owner_of(entry.name) is not None
        if is_user in looked_at:
            continue
        looked_at.add(is_user)
        try:
            store.need_place(entry.name)
        except Refusal as refusal:
            raise Refusal(
                refusal.code,
                f"{refusal.text}, and {mailbox_list.path} has mailboxes whose mail is kept there ({display(entry.name)}): "
                "mount its file system there, or put the mail back. If it is lost for good, move that list away as well, "
                "start, and restore from a backup (`murder help backup`)",
            ) from refusal


def _settled(mailbox_list: MailboxList) -> Iterator[MailboxEntry]:
    """Mailboxes that the store has: nothing that a crash has left on its way."""
    busy, walk = _being_changed(mailbox_list), mailbox_list.walk
    # shared mailboxes stand before those of users and behind, those of domains behind all, what was deleted (and may rest
    # with others' mail) before most; of many some are looked at
    walks = walk(), walk(after=DELETED_ROOT + b".\xff"), walk(USERS), walk(after=USERS + b"\xff")
    for entry in chain.from_iterable(islice(rows, AT_ONCE) for rows in walks):
        is_whole = entry.is_active and entry.name not in busy
        if is_whole and not is_deleted(entry.name):
            yield entry


def _being_changed(mailbox_list: MailboxList) -> set[MailboxName]:
    """What the store may have, or not have, of what has been begun: all else in the same tree it has."""
    begun = map(parse_intent, mailbox_list.intents().values())
    return {name for intent in begun if intent.operation in CHANGES_STORE for name in intent.names}


class Matcher:
    """See the module. May run while clients work: each difference is looked at again before anything is done."""

    def __init__(
        self,
        mailboxes: Mailboxes,
        ledger: Ledger,
        announcer: Announcer,
        is_kept: Callable[[MailboxName], bool] = lambda _: False,
    ) -> None:
        self._is_kept = is_kept  # for a move to or from another server: rightly not in the list
        self._mailboxes = mailboxes
        self._list = mailboxes.list
        self._store: MailboxStore = mailboxes.store
        self._ledger = ledger
        self._announcer = announcer
        self._log = logger(role="backend")

    async def match(self) -> None:
        """Compare all; raises what the store raises."""
        stored = {mailbox.name for mailbox in await self._store.mailboxes()}
        for count, entry in enumerate(self._list.walk(), 1):
            if entry.name in stored:
                stored.discard(entry.name)
            elif entry.is_active:
                await self._make(entry)
            if count % PAUSE_AFTER == 0:
                await line_up()
        for name in sorted(stored):
            await self._adopt(name)

    async def _make(self, entry: MailboxEntry) -> None:
        present = self._mailboxes.find(entry.name)
        if present is None or self._announcer.is_busy(entry.name):
            return
        try:
            await self._store.create(entry.name, entry.location.partition)
        except Refusal as refusal:
            if refusal.code is not Code.ALREADY_EXISTS:  # made since the store was asked
                self._log.error(
                    "mailbox.unreadable", mailbox=display(entry.name), problem=refusal.text
                )
            return
        self._log.error("mailbox.missing", mailbox=display(entry.name))

    async def _adopt(self, name: MailboxName) -> None:
        try:
            (await self._store.open(name, "")).close()
        except Refusal:
            return  # deleted or renamed since
        if self._is_kept(name):
            return
        raw_acl = self._mailboxes.default_acl(name)
        place = bytes(self._announcer.location)
        entry = MailboxEntry(name, EntryState.ACTIVE, place, raw_acl)

        def propose(transaction: ListTransaction) -> bool:
            if transaction.find(name) is not None or transaction.intent(tree_of(name)) is not None:
                return False
            transaction.apply(PutEntry(entry))
            return True

        if await self._ledger.submit(propose):
            self._log.error("mailbox.adopted", mailbox=display(name))
