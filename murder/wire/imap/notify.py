"""NOTIFY's arguments (RFC 5465 §8)."""

from typing import Final

from murder.errors import Code, Refusal
from murder.model.query.fetch import FetchItem
from murder.model.query.notify import (
    MESSAGE_EVENTS,
    SUPPORTED,
    Event,
    EventGroup,
    NotifyRequest,
    Which,
)
from murder.wire.imap.mail.fetch import parse_item_list
from murder.wire.token import Scanner

MAX_GROUPS: Final = 100
MAX_MAILBOXES: Final = 1000
MAX_EVENTS: Final = 100  # of a group; there are nine
MAX_NAMES: Final = 5000  # in all groups together

SELECTED: Final = frozenset({Which.SELECTED, Which.SELECTED_DELAYED})

_EVENTS: Final = {event.value.upper().encode(): event for event in Event}
_WHICH: Final = {which.value.encode(): which for which in Which}


# notify = "NOTIFY" SP (notify-add / notify-none)
# notify-add = "SET" [SP status-indicator] SP event-groups; notify-none = "NONE"
def parse_notify(scanner: Scanner) -> NotifyRequest:
    """All arguments, from the SP behind the name. Raises Refusal(BAD_EVENT) for an event that is not known, with the
    list of those that are; BadSyntax for a set of events that the RFC forbids."""
    scanner.space()
    if scanner.accept_word(b"NONE"):
        scanner.end()
        return NotifyRequest()
    if not scanner.accept_word(b"SET"):
        raise scanner.bad("SET or NONE")
    scanner.space()
    status = scanner.accept_word(b"STATUS")
    if status:
        scanner.space()
    groups = [_parse_group(scanner)]
    while not scanner.at_end():
        scanner.space()
        groups.append(_parse_group(scanner))
        if len(groups) > MAX_GROUPS:
            raise scanner.bad(f"at most {MAX_GROUPS} event groups")
        if sum(len(group.mailboxes) for group in groups) > MAX_NAMES:
            raise scanner.bad(f"at most {MAX_NAMES} mailboxes in all groups")
    scanner.end()
    if sum(group.which in SELECTED for group in groups) > 1:
        raise scanner.bad("SELECTED or SELECTED-DELAYED, once")
    return NotifyRequest(tuple(groups), status)


# event-group = "(" filter-mailboxes SP events ")"; events = ("(" event *(SP event) ")") / "NONE"
def _parse_group(scanner: Scanner) -> EventGroup:
    scanner.open()
    start = scanner.at
    which = _WHICH.get(scanner.word())
    if which is None:
        scanner.at = start
        raise scanner.bad("which mailboxes: " + ", ".join(known.value for known in Which))
    scanner.space()
    mailboxes: tuple[bytes, ...] = ()
    if which in (Which.SUBTREE, Which.MAILBOXES):
        mailboxes = _parse_mailboxes(scanner)
        scanner.space()
    events: set[Event] = set()
    fetch: tuple[FetchItem, ...] = ()
    if not scanner.accept_word(b"NONE"):
        fetch = _parse_events(scanner, events)
        _check(scanner, which, events, fetch)
    scanner.close()
    return EventGroup(which, mailboxes, frozenset(events), fetch)


# one-or-more-mailbox = mailbox / many-mailboxes
def _parse_mailboxes(scanner: Scanner) -> tuple[bytes, ...]:
    if not scanner.accept(b"("):
        return (scanner.astring(),)
    names = [scanner.astring()]
    while not scanner.accept(b")"):
        scanner.space()
        names.append(scanner.astring())
        if len(names) > MAX_MAILBOXES:
            raise scanner.bad(f"at most {MAX_MAILBOXES} mailboxes")
    return tuple(names)


def _parse_events(scanner: Scanner, events: set[Event]) -> tuple[FetchItem, ...]:
    scanner.open()
    fetch: tuple[FetchItem, ...] = ()
    for _ in range(MAX_EVENTS):
        word = scanner.word()
        event = _EVENTS.get(word)
        if event not in SUPPORTED:
            known = " ".join(supported.value for supported in SUPPORTED)
            text = f"{word.decode('ascii')} is not an event that is known here"
            raise Refusal(Code.BAD_EVENT, text, f"({known})")
        events.add(event)
        if event is Event.MESSAGE_NEW and scanner.is_open_next():
            scanner.space()
            fetch = parse_item_list(scanner)
        if scanner.accept(b")"):
            return fetch
        scanner.space()
    raise scanner.bad(f"at most {MAX_EVENTS} events")


def _check(
    scanner: Scanner, which: Which, events: set[Event], fetch: tuple[FetchItem, ...]
) -> None:
    """RFC 5465 §5: new and expunged go together, flags only with both; FETCH items only for the selected mailbox."""
    selected = which in SELECTED
    both = {Event.MESSAGE_NEW, Event.MESSAGE_EXPUNGE}
    if events & MESSAGE_EVENTS and not both <= events:
        raise scanner.bad("MessageNew and MessageExpunge together")
    if selected and not events <= MESSAGE_EVENTS:
        raise scanner.bad("message events only, for the selected mailbox")
    if fetch and not selected:
        raise scanner.bad("FETCH items for the selected mailbox only")
