"""THREAD's algorithms on values: ORDEREDSUBJECT and REFERENCES (RFC 5256 §3). Knows no header syntax and no octets.

Threads may be as deep as a mailbox has messages, so nothing here recurses.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter


@dataclass(frozen=True, slots=True)
class Threadable:
    """What threading needs to know of a message. `number` is what the answer tells and its place in the mailbox.

    `references` are message ids, oldest first (of In-Reply-To, where References has none).
    """

    number: int
    sent: datetime
    subject: str  # the base subject
    is_reply: bool
    message_id: str
    references: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Thread:
    """A message with its answers; without `message` a place for one that is not in the mailbox."""

    message: Threadable | None = None
    children: "list[Thread]" = field(default_factory=list)
    parent: "Thread | None" = None

    @property
    def number(self) -> int | None:
        return None if self.message is None else self.message.number


def by_ordered_subject(messages: Iterable[Threadable]) -> list[Thread]:
    """Messages of one subject are a thread: the oldest, and all others as its children; threads by their oldest."""
    threads: dict[str, Thread] = {}
    for message in sorted(messages, key=attrgetter("sent", "number")):
        root = threads.get(message.subject)
        if root is None:
            threads[message.subject] = Thread(message)
        else:
            root.children.append(Thread(message, parent=root))
    return list(threads.values())


def by_references(messages: Sequence[Threadable]) -> list[Thread]:
    """Messages below what they answer, then threads of one subject together."""
    roots = _prune(_link(messages))
    roots.sort(key=_root_key)
    roots = _merge_subjects(roots)
    _sort_all(roots)
    return roots


def _link(messages: Sequence[Threadable]) -> list[Thread]:
    """Steps 1 and 2: every message id has its place; the places without a parent."""
    places: dict[str, Thread] = {}
    nameless: list[Thread] = []
    for message in messages:
        place = places.get(message.message_id) if message.message_id else None
        if place is None or place.message is not None:  # new, or a second one of that id
            fresh = Thread(message)
            if place is None and message.message_id:
                places[message.message_id] = fresh
            else:
                nameless.append(fresh)
            place = fresh
        else:
            place.message = message
        above: Thread | None = None
        for reference in message.references:
            named = places.get(reference)
            if named is None:
                named = places[reference] = Thread()
            if above is not None and named.parent is None and _may_adopt(above, named):
                _adopt(above, named)
            above = named
        if place.parent is not None:  # guessed from other messages; its own word counts more
            place.parent.children.remove(place)
            place.parent = None
        if above is not None and _may_adopt(above, place):
            _adopt(above, place)
    return [place for place in (*places.values(), *nameless) if place.parent is None]


def _may_adopt(parent: Thread, child: Thread) -> bool:
    """Whether no loop would come of it."""
    if parent is child:
        return False
    if not child.children:
        return True
    above: Thread | None = parent
    while above is not None:
        if above is child:
            return False
        above = above.parent
    return True


def _adopt(parent: Thread, child: Thread) -> None:
    child.parent = parent
    parent.children.append(child)


def _prune(roots: list[Thread]) -> list[Thread]:
    """Step 3: take out empty places, their children going up; a root with several children stays."""
    order: list[Thread] = []
    waiting = list(roots)
    while waiting:
        thread = waiting.pop()
        order.append(thread)
        waiting.extend(thread.children)
    for thread in reversed(order):  # children before their parents
        kept: list[Thread] = []
        for child in thread.children:
            if child.message is not None:
                kept.append(child)
            else:
                kept.extend(child.children)
        for child in kept:
            child.parent = thread
        thread.children = kept
    left: list[Thread] = []
    for root in roots:
        if root.message is None and len(root.children) < 2:
            for child in root.children:
                child.parent = None
            left.extend(root.children)
        else:
            left.append(root)
    return left


def _key(thread: Thread) -> tuple[datetime, int]:
    """By sent date, then by place in the mailbox; an empty place goes by its first child."""
    message = thread.message if thread.message is not None else thread.children[0].message
    assert message is not None  # after pruning only roots are empty, and these have children
    return message.sent, message.number


def _root_key(root: Thread) -> tuple[datetime, int]:
    if root.message is None:
        root.children.sort(key=_key)
    return _key(root)


def _subject_of(root: Thread) -> Threadable:
    message = root.message if root.message is not None else root.children[0].message
    assert message is not None  # see _key
    return message


def _merge_subjects(roots: list[Thread]) -> list[Thread]:
    """Step 5."""
    table: dict[str, Thread] = {}
    for root in roots:
        message = _subject_of(root)
        if not message.subject:
            continue
        known = table.get(message.subject)
        if known is None or (
            known.message is not None
            and (root.message is None or (known.message.is_reply and not message.is_reply))
        ):
            table[message.subject] = root
    merged: dict[int, Thread] = {id(root): root for root in roots}
    for root in roots:
        message = _subject_of(root)
        known = table.get(message.subject) if message.subject else None
        if known is None or known is root or id(root) not in merged:
            continue
        del merged[id(root)]
        if known.message is None:
            for child in [root] if root.message is not None else root.children:
                _adopt(known, child)
        elif message.is_reply and not known.message.is_reply:
            _adopt(known, root)
        else:
            both = Thread()
            del merged[id(known)]
            merged[id(both)] = both
            _adopt(both, known)
            _adopt(both, root)
            table[message.subject] = both
    return list(merged.values())


def _sort_all(roots: list[Thread]) -> None:
    """Step 6: siblings at every level by sent date."""
    waiting = list(roots)
    while waiting:
        thread = waiting.pop()
        thread.children.sort(key=_key)
        waiting.extend(thread.children)
    roots.sort(key=_key)
