"""Which events a client wants of which mailbox: the filters of NOTIFY (RFC 5465 §6), as a function of names."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from murder.backend.mailboxes import Mailboxes
from murder.errors import Refusal
from murder.login.gate import Login
from murder.model.name import MailboxName, inbox_of, is_below, owner_of
from murder.model.notify import MESSAGE_EVENTS, Event, EventGroup, Which

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
        found = NOTHING
        for group in self._groups:
            if not group.events <= found and self._is_about(group, name):
                found |= group.events
        return found

    def _is_about(self, group: Group, name: MailboxName) -> bool:
        match group.which:
            case Which.PERSONAL:
                return owner_of(name) == self._login.user
            case Which.INBOXES:  # where mail may be delivered
                return owner_of(name) == self._login.user and self._mailboxes.may_post(name)
            case Which.SUBSCRIBED:
                return name in self.subscribed
            case Which.SUBTREE:
                return any(is_below(name, root) for root in group.names)
            case Which.MAILBOXES:
                return name in group.names
            case Which.SELECTED | Which.SELECTED_DELAYED:
                return False

    def candidates(self) -> Sequence[MailboxName]:
        """Existing mailboxes that the user may see and any group is about."""
        names: set[MailboxName] = set()
        for group in self._groups:
            names.update(self._candidates_of(group))
        return sorted(name for name in names if self.events(name))

    def _candidates_of(self, group: Group) -> Iterable[MailboxName]:
        match group.which:
            case Which.PERSONAL | Which.INBOXES:
                prefixes = {inbox_of(self._login.user)}
            case Which.SUBSCRIBED:
                return self.subscribed
            case Which.SUBTREE:
                prefixes = set(group.names)
            case _:
                return group.names
        visible = (self._mailboxes.visible(self._login, [prefix]) for prefix in prefixes if prefix)
        return [entry.name for each in visible for entry in each]


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
