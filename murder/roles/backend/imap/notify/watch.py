"""The mailboxes that one client watches with NOTIFY: what it knows of each, and what it is told when it changes.

RFC 5465 §5. STATUS for messages, LIST for names, rights and subscriptions, METADATA for annotations.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from murder.errors import Code, Refusal
from murder.model.acl import LOOKUP
from murder.model.message import MailboxStatus, Uid
from murder.model.name import MailboxName, owner_of, parent_of
from murder.model.query.notify import Event
from murder.model.query.status import StatusItem
from murder.net.turns import Turn
from murder.roles.backend.changes.news import Kind, News
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mailboxes.status import format_counts
from murder.roles.backend.imap.notify.filters import Filters, watches_messages
from murder.roles.backend.records.annotations import SERVER
from murder.wire.imap.mailboxes.list import ListEntry, format_list
from murder.wire.imap.mailboxes.metadata import format_metadata_changed
from murder.wire.imap.mailboxes.moved import FIELD, LEFT, WATCHES_TOO

MAX_WATCHED: Final = 10_000  # mailboxes of one client; each costs some 400 octets
COUNTS: Final = (StatusItem.MESSAGES, StatusItem.UIDNEXT, StatusItem.UIDVALIDITY)


def follows(dialogue: BackendImap) -> bool:
    """Whether the client is a frontend that goes on where a watched mailbox has moved to."""
    return dialogue.client_id.get(FIELD) == WATCHES_TOO


class Access(IntEnum):
    """What the client may do with a mailbox, as far as events go: they take `l` and `r` (RFC 5465 §5)."""

    NONE = 0
    LISTED = 1
    OPEN = 2


@dataclass(slots=True)
class Watched:
    """A mailbox whose messages are watched. `own`: the last that was added to `status` the client did itself."""

    name: MailboxName
    status: MailboxStatus
    own: bool = False


NONE_KNOWN: Final[Mapping[str, Watched]] = {}


class Watch:
    """See the module."""

    def __init__(self, dialogue: BackendImap, filters: Filters) -> None:
        self._dialogue = dialogue
        self._filters = filters
        self._access: dict[MailboxName, Access] = {}
        self._no_access: set[MailboxName] = set()  # told so
        self._watched: dict[str, Watched] = {}
        self._ids: dict[MailboxName, str] = {}
        self._once: set[MailboxName] = set()  # watched, until they were deleted

    def knows(self, mailbox_id: str) -> bool:
        """Whether the client is told of that mailbox's messages."""
        return mailbox_id in self._watched

    # --- the beginning

    async def begin(self, *, tell_status: bool) -> bytes:
        """Take in all mailboxes there are; what is told of them. Raises Refusal where they are too many."""
        if self._filters.uses_subscriptions:
            await self._read_subscriptions()
        turn = Turn()
        names = await self._filters.candidates(turn, MAX_WATCHED)
        if len(names) > MAX_WATCHED:
            text = f"At most {MAX_WATCHED} mailboxes can be watched"
            raise Refusal(Code.NOTIFICATION_OVERFLOW, text)
        lines: list[bytes] = []
        for name in names:
            await self._take_in(name)
            if self._access.get(name) is Access.LISTED:
                lines.append(self._without_access(name))
            if tell_status:
                lines.append(self._first_status(name))
            if turn.is_over:
                await turn.rest()
        return b"".join(lines)

    async def _read_subscriptions(self) -> None:
        store, user = self._dialogue.backend.store, self._dialogue.user.user
        self._filters.subscribed = frozenset(await store.subscriptions(user))

    async def _take_in(self, name: MailboxName, known: Mapping[str, Watched] = NONE_KNOWN) -> None:
        """Note what the client may do there, and the state that it knows from now on: of one that is `known` already, by
        whatever name, the state that it was told of, as more may have happened since."""
        self._access.pop(name, None)
        self._leave_out(name)
        access = self._access_to(name)
        if access is Access.NONE:
            return
        self._access[name] = access
        if access is not Access.OPEN or not watches_messages(self._filters.events(name)):
            return
        store, user = self._dialogue.backend.store, self._dialogue.user.user
        try:
            mailbox = await store.open(name, user)
        except Refusal:  # it has just gone
            return
        try:
            before = known.get(mailbox.mailbox_id) or Watched(name, await mailbox.status())
            self._watched[mailbox.mailbox_id] = replace(before, name=name)
            self._ids[name] = mailbox.mailbox_id
        except Refusal:
            pass
        finally:
            mailbox.close()

    def _leave_out(self, name: MailboxName) -> Mapping[str, Watched]:
        """What was known of it, by its id."""
        mailbox_id = self._ids.pop(name, None)
        if mailbox_id is None:
            return NONE_KNOWN
        self._once.add(name)
        return {mailbox_id: self._watched.pop(mailbox_id)}

    def _access_to(self, name: MailboxName) -> Access:
        mailboxes = self._dialogue.backend.mailboxes
        entry = mailboxes.find(name)
        rights = mailboxes.rights(entry, self._dialogue.user) if entry is not None else frozenset()
        if LOOKUP not in rights:
            return Access.NONE
        return Access.OPEN if "r" in rights else Access.LISTED

    # --- messages: STATUS

    def _first_status(self, name: MailboxName) -> bytes:
        """RFC 5465 §3.1: what each kind of event needs to be made sense of."""
        mailbox_id = self._ids.get(name)
        if mailbox_id is None or self._is_selected(name):
            return b""
        items: dict[StatusItem, None] = dict.fromkeys(COUNTS)
        if Event.FLAG_CHANGE in self._filters.events(name):
            items |= dict.fromkeys((StatusItem.HIGHESTMODSEQ, StatusItem.UNSEEN))
        return self._status(mailbox_id, items)

    def _status(self, mailbox_id: str, items: Iterable[StatusItem]) -> bytes:
        watched = self._watched[mailbox_id]
        external = self._dialogue.external(watched.name)
        return format_counts(self._dialogue, external, mailbox_id, watched.status, list(items))

    def _is_selected(self, name: MailboxName) -> bool:
        selected = self._dialogue.selected
        return selected is not None and selected.name == name

    def expect(self, mailbox_id: str, uids: Iterable[Uid]) -> None:
        """The client has put these messages there itself: it need not be told."""
        watched = self._watched.get(mailbox_id)
        added = list(uids)
        if watched is None or not added or watched.status.uid_next != added[0]:
            return
        messages = watched.status.messages + len(added)
        watched.status = replace(watched.status, uid_next=Uid(added[-1] + 1), messages=messages)
        watched.own = True

    def loses(self, name: MailboxName) -> bool:
        """Whether a mailbox that has moved to another server was watched, and the selected one has not moved: what that
        does to the client's session says enough."""
        selected = self._dialogue.selected
        if name not in self._access or not self._filters.events(name):
            return False
        return selected is None or not self._is_away(selected.name)

    def _is_away(self, name: MailboxName) -> bool:
        mailboxes = self._dialogue.backend.mailboxes
        return mailboxes.find(name) is None and mailboxes.has_left(name)

    async def look(self, mailbox_id: str) -> bytes:
        """Something has changed in a watched mailbox: the STATUS response, if the client wants to know of it."""
        watched = self._watched.get(mailbox_id)
        if watched is None or self._access.get(watched.name) is not Access.OPEN:
            return b""
        backend, user = self._dialogue.backend, self._dialogue.user.user
        try:
            mailbox = await backend.store.open(watched.name, user)
        except Refusal:  # deleted, or just being renamed: there will be news of it
            return b""
        try:
            status = await mailbox.status()
        except Refusal:
            return b""
        finally:
            mailbox.close()
        before, own = watched.status, watched.own
        watched.status, watched.own = status, False
        if self._is_selected(watched.name):
            return b""
        items = self._wanted(self._filters.events(watched.name), before, status, own)
        return self._status(mailbox_id, items) if items else b""

    def _wanted(
        self, events: frozenset[Event], before: MailboxStatus, now: MailboxStatus, own: bool
    ) -> dict[StatusItem, None]:
        """RFC 5465 §5.1 to §5.3. `own`: up to `before` the client did it itself, with whatever mod-sequence."""
        items: dict[StatusItem, None] = {}
        condstore = self._dialogue.manner.condstore
        counts = (before.uid_next, before.messages) != (now.uid_next, now.messages)
        if counts and Event.MESSAGE_NEW in events:
            items |= dict.fromkeys(COUNTS)
            if condstore:
                items[StatusItem.HIGHESTMODSEQ] = None
        flags = before.highest_modseq != now.highest_modseq and (counts or not own)
        if flags and Event.FLAG_CHANGE in events:
            if before.unseen != now.unseen:
                items |= dict.fromkeys((StatusItem.UIDVALIDITY, StatusItem.UNSEEN))
            if condstore and not counts:
                items |= dict.fromkeys((StatusItem.UIDVALIDITY, StatusItem.HIGHESTMODSEQ))
        return items

    # --- names, rights, subscriptions, annotations

    async def news(self, news: News, *, own: bool) -> bytes:
        """What the client is told of it; nothing where it did it itself (RFC 5465 §5)."""
        match news.kind:
            case Kind.CREATED:
                answer = await self._created(news.name)
            case Kind.ARRIVED:
                answer = await self._arrived(news.name)
            case Kind.LEFT:
                answer = self._left(news.name)
            case Kind.DELETED:
                answer = self._deleted(news.name)
            case Kind.RENAMED:
                answer = await self._renamed(news.other, news.name)
            case Kind.RENAMED_BELOW:
                answer = await self._renamed_below(news.other, news.name)
            case Kind.ACL:
                answer = await self._rights_changed(news.name)
            case Kind.SUBSCRIBED:
                answer = await self._subscribed(news.name, news.user)
            case Kind.ANNOTATED:
                answer = self._annotated(news)
        return b"" if own else answer

    async def _created(self, name: MailboxName) -> bytes:
        events = self._filters.events(name)
        if not events:
            return self._parent(name) if self._access_to(name) is not Access.NONE else b""
        await self._take_in(name)
        if self._access.get(name, Access.NONE) is Access.NONE:
            return b""
        answer = b""
        if Event.MAILBOX_NAME in events:
            answer = self._list(name) + self._parent(name)
        mailbox_id = self._ids.get(name)
        if mailbox_id is None:
            return answer
        if name in self._once and Event.FLAG_CHANGE in events:
            answer += self._status(mailbox_id, COUNTS)  # its UIDVALIDITY is another
        elif self._watched[mailbox_id].status.messages:
            answer += self._first_status(name)  # mail came before this news did
        return answer

    async def _arrived(self, name: MailboxName) -> bytes:
        """From another server, with its mail. Who has watched it there (through a frontend) knows its name, and not what has
        happened since."""
        events = self._filters.events(name)
        if not events or name in self._access:
            return b""
        await self._take_in(name)
        if name not in self._access:
            return b""
        is_new = Event.MAILBOX_NAME in events and not follows(self._dialogue)
        return (self._list(name) if is_new else b"") + self._first_status(name)

    def _left(self, name: MailboxName) -> bytes:
        """For another server: a frontend goes on there."""
        if not self.loses(name):
            return b""
        del self._access[name]
        self._leave_out(name)
        return LEFT + self._dialogue.external(name) + b"\r\n"

    def _deleted(self, name: MailboxName) -> bytes:
        access = self._access.pop(name, Access.NONE)
        self._leave_out(name)
        events = self._filters.events(name)
        if not events:  # what the user could not see they must not hear of
            is_own = owner_of(name) == self._dialogue.user.user
            return self._parent(name) if is_own else b""
        if access is Access.NONE or Event.MAILBOX_NAME not in events:
            return b""
        return self._list(name, "\\NonExistent") + self._parent(name)

    def _parent(self, name: MailboxName) -> bytes:
        """RFC 5465 §5.4: the mailbox above is affected too, whether there is one or not."""
        parent = parent_of(name)
        if parent is None or Event.MAILBOX_NAME not in self._filters.events(parent):
            return b""
        access = self._access_to(parent)
        if access is Access.NONE:
            return b""
        return self._list(parent)

    async def _renamed(self, old: MailboxName, new: MailboxName, *, below: bool = False) -> bytes:
        before = self._access.pop(old, Access.NONE)
        known = self._leave_out(old)
        events = self._filters.events(old) | self._filters.events(new)
        if not events:
            return b""
        if self._filters.events(new):
            await self._take_in(new, known)
        answer = b""
        if Event.MAILBOX_NAME in events and not below:
            if self._access_to(new) is not Access.NONE:
                answer = self._list(new, old=old if before is not Access.NONE else None)
            elif before is not Access.NONE:
                answer = self._list(old, "\\NonExistent")
        return answer + await self._more_of(new, known)

    async def _more_of(self, name: MailboxName, known: Mapping[str, Watched]) -> bytes:
        """What is in a mailbox that is watched from now on, or has happened since in one that was known: mail may have come
        before the news, which are of another worker."""
        mailbox_id = self._ids.get(name, "")
        return await self.look(mailbox_id) if mailbox_id in known else self._first_status(name)

    async def _renamed_below(self, old: MailboxName, new: MailboxName) -> bytes:
        """The client knows it by its new name, as it was told of the one above; also where it has gone from there since:
        of that there will be news."""
        before = self._access.get(old, Access.NONE)
        answer = await self._renamed(old, new, below=True)
        if before is not Access.NONE and self._filters.events(new):
            self._access.setdefault(new, before)
        return answer

    async def _rights_changed(self, name: MailboxName) -> bytes:
        """RFC 5465 §5.4 and §5.9: `l` that is granted or revoked makes a mailbox come and go."""
        events = self._filters.events(name)
        if not events:
            return b""
        before = self._access.get(name, Access.NONE)
        known = self._leave_out(name)
        await self._take_in(name, known)
        now = self._access.get(name, Access.NONE)
        if now is before:
            return await self._more_of(name, known)
        by_name = Event.MAILBOX_NAME in events
        if now is Access.NONE and by_name:
            return self._list(name, "\\NonExistent")
        if now < before:
            return self._without_access(name)
        if name in self._no_access or (before is Access.NONE and by_name):
            self._no_access.discard(name)
            return self._list(name) + self._first_status(name)
        return self._first_status(name)

    def _without_access(self, name: MailboxName) -> bytes:
        self._no_access.add(name)
        return self._list(name, "\\NoAccess")

    async def _subscribed(self, name: MailboxName, user: str) -> bytes:
        if user != self._dialogue.user.user:
            return b""
        events = self._filters.events(name)
        if self._filters.uses_subscriptions:
            await self._read_subscriptions()
        now = self._filters.events(name)
        news = b""
        if now != events:
            known = self._leave_out(name)
            await self._take_in(name, known)
            news = await self._more_of(name, known)
        if Event.SUBSCRIPTION_CHANGE not in events | now:
            return news
        exists = self._access_to(name) is not Access.NONE
        words = () if exists else ("\\NonExistent",)
        if name in self._filters.subscribed:
            words = (*words, "\\Subscribed")
        return self._list(name, *words) + news

    def _annotated(self, news: News) -> bytes:
        if news.user not in ("", self._dialogue.user.user):
            return b""
        if news.name == SERVER:
            return format_metadata_changed(b"", news.entries) if self._filters.wants_server else b""
        wanted = Event.MAILBOX_METADATA_CHANGE in self._filters.events(news.name)
        if not wanted or self._access_to(news.name) is not Access.OPEN:
            return b""
        return format_metadata_changed(self._dialogue.external(news.name), news.entries)

    def _list(self, name: MailboxName, *words: str, old: MailboxName | None = None) -> bytes:
        """A LIST response with all attributes as they are (RFC 5465 §5.5)."""
        dialogue = self._dialogue
        backend, login = dialogue.backend, dialogue.user
        if "\\NoAccess" not in words:
            below = backend.mailboxes.visible(login, [MailboxName(name + b".")])
            has_children = next(iter(below), None) is not None
            if has_children or "\\NonExistent" not in words:
                words = (*words, "\\HasChildren" if has_children else "\\HasNoChildren")
            if owner_of(name) == login.user and "\\NonExistent" not in words:
                words = (*words, *backend.annotations.special_uses(name, login.user))
        old_name = dialogue.external(old) if old is not None else None
        separator = backend.namespace.separator
        return format_list(ListEntry(words, separator, dialogue.external(name), old_name=old_name))
