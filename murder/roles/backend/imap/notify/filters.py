"""Which events a client wants of which mailbox: the filters of NOTIFY (RFC 5465 §6), as a function of names."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from murder.errors import Refusal
from murder.model.identity import Login
from murder.model.name import MailboxName, inbox_of, owner_of
from murder.model.query.notify import MESSAGE_EVENTS, Event, EventGroup, Which
from murder.net.turns import Turn
from murder.roles.backend.hierarchy.mailboxes import Mailboxes

NOTHING: frozenset[Event] = frozenset()


@dataclass(frozen=True, slots=True)
class Group:
    """An event group with its mailboxes' canonical names."""

    which: Which
    events: frozenset[Event]
    names: frozenset[MailboxName]


class Filters:
    """All groups but those about the selected mailbox. `subscribed` is what the user has subscribed to."""

    def __init__(
        self,
        groups: Iterable[EventGroup],
        login: Login,
        mailboxes: Mailboxes,
        name_of: Callable[[bytes], MailboxName],
    ) -> None:
        self._login = login
        self._mailboxes = mailboxes
        self.subscribed: frozenset[MailboxName] = frozenset()
        self._groups = [
            Group(group.which, group.events, frozenset(_names(group.mailboxes, name_of)))
            for group in groups
        ]

    @property
    def wants_server(self) -> bool:
        """Whether changes of the server's own annotations are wanted: they belong to no mailbox."""
        return any(Event.SERVER_METADATA_CHANGE in group.events for group in self._groups)

    @property
    def uses_subscriptions(self) -> bool:
        return any(
            group.which is Which.SUBSCRIBED or Event.SUBSCRIPTION_CHANGE in group.events
            for group in self._groups
        )

    def events(self, name: MailboxName) -> frozenset[Event]:
        """All that is wanted of one mailbox: several groups may be about it (RFC 5465 §6)."""
        events = NOTHING
        for group in self._groups:
            if not group.events <= events and self._is_about(group, name):
                events |= group.events
        return events

    def _is_about(self, group: Group, name: MailboxName) -> bool:
        match group.which:
            case Which.PERSONAL:
                return owner_of(name) == self._login.user
            case Which.INBOXES:  # where mail may be delivered
                return owner_of(name) == self._login.user and self._mailboxes.may_post(name)
            case Which.SUBSCRIBED:
                return name in self.subscribed
            case Which.SUBTREE:
                return name in group.names or not group.names.isdisjoint(_above(name))
            case Which.MAILBOXES:
                return name in group.names
            case Which.SELECTED | Which.SELECTED_DELAYED:
                return False

    async def candidates(self, turn: Turn, most: int) -> Sequence[MailboxName]:
        """Existing mailboxes that the user may see and any group is about; one more than `most` where there are more.
        Each part of the list is looked at once, whatever the groups say of it."""
        names: set[MailboxName] = set()
        for name in self._looked_at():
            if turn.is_over:
                await turn.rest()
            if self.events(name):
                names.add(name)
                if len(names) > most:
                    break
        return sorted(names)

    def _looked_at(self) -> Iterator[MailboxName]:
        """Names that a group may be about, some of them twice."""
        prefixes: set[MailboxName] = set()
        for group in self._groups:
            match group.which:
                case Which.PERSONAL | Which.INBOXES:
                    prefixes.add(inbox_of(self._login.user))
                case Which.SUBSCRIBED:
                    yield from self.subscribed
                case Which.SUBTREE:
                    prefixes |= group.names
                case _:
                    yield from group.names
        for prefix in prefixes:
            if prefix and prefixes.isdisjoint(_above(prefix)):
                yield from (row.name for row in self._mailboxes.visible(self._login, [prefix]))


def _above(name: MailboxName) -> Iterator[MailboxName]:
    """All that a subtree with this name in it may be called: also `user`, which is no mailbox."""
    at = name.find(b".")
    while at >= 0:
        yield MailboxName(name[:at])
        at = name.find(b".", at + 1)


def _names(
    mailboxes: Iterable[bytes], name_of: Callable[[bytes], MailboxName]
) -> Iterator[MailboxName]:
    """RFC 5465 §3.1: a name that no mailbox has, or can have, is ignored."""
    for external in mailboxes:
        try:
            yield name_of(external)
        except Refusal:
            continue


def watches_messages(events: frozenset[Event]) -> bool:
    return bool(events & MESSAGE_EVENTS)
