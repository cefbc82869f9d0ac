"""THREAD's algorithms on values: ORDEREDSUBJECT and REFERENCES (RFC 5256 §3). Knows no header syntax and no octets.

Threads may be as deep as a mailbox has messages, so nothing here recurses.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from murder.model.ordering import in_order
from murder.model.pieces import PIECE, dict_for, empty, let_go, pieces


@dataclass(frozen=True, slots=True)
class Threadable:
    """What threading needs to know of a message. `number` is what the answer tells and its place in the mailbox.

    `references` are message ids, oldest first (of In-Reply-To, where References has none).
    """

    number: int
    sent: float  # seconds since 1970: a datetime with its zone is five times as large
    subject: str  # the base subject
    is_reply: bool
    message_id: str
    references: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Thread:
    """A message with its answers; without `message` a place for one that is not in the mailbox."""

    message: Threadable | None = None
    children: "list[Thread]" = field(default_factory=list)
    parent: "Thread | None" = None  # while threads are being put together
    above: "Thread | None" = None  # some place further up, or at the top, of the same thread
    order: int = -1  # of the message among all; an empty place is before all of them

    @property
    def number(self) -> int | None:
        return None if self.message is None else self.message.number


def by_ordered_subject(messages: Sequence[Threadable]) -> list[Thread]:
    """Messages of one subject are a thread: the oldest, and all others as its children; threads by their oldest."""
    by_subject: MutableMapping[str, Thread] = dict_for(len(messages))
    threads: list[Thread] = []
    for message in in_order(messages, attrgetter("sent", "number")):
        thread = Thread(message)
        root = by_subject.setdefault(message.subject, thread)
        (threads if root is thread else root.children).append(thread)
    empty(by_subject)
    return threads


def by_references(messages: Sequence[Threadable]) -> list[Thread]:
    """Messages below what they answer, then threads of one subject together."""
    roots = _prune(_link(messages))
    roots = _merge_subjects(in_order(roots, _root_key))
    return _sort_all(roots)


def let_go_of_threads(threads: list[Thread]) -> None:
    """Empty the list, and free what is below them, a piece at a time."""
    while threads:
        some = threads[-PIECE:]
        del threads[-PIECE:]
        for thread in some:
            for children in pieces(thread.children):
                threads += children
            thread.children = []
        let_go(some)


def _link(messages: Sequence[Threadable]) -> list[Thread]:
    """Steps 1 and 2: every message id has its place; the places without a parent.

    A message's own last reference says where it belongs; what the references of others say holds where it has none, unless
    it comes behind them. So what they say of one that is still to come is left out, and no link is ever cut again. One
    that names itself last says that it belongs nowhere; where messages contradict each other, who comes first is right.
    """
    places: MutableMapping[str, Thread] = dict_for(len(messages))
    nameless: list[Thread] = []
    placed: list[Thread] = []
    for message in messages:
        place = places.get(message.message_id) if message.message_id else None
        fresh = Thread(message, order=len(placed))
        if place is not None or not message.message_id:  # a second one of that id
            nameless.append(fresh)
        else:
            places[message.message_id] = fresh
        placed.append(fresh)
    for order, message in enumerate(messages):
        above: Thread | None = None
        for reference in message.references:
            named = places.get(reference)
            if named is None:
                named = places[reference] = Thread()
            if above is not None and named.parent is None and named.order <= order:
                if named is not placed[order]:
                    _adopt(above, named)
            above = named
        if above is not None:
            _adopt(above, placed[order])
    roots = [place for place in (*places.values(), *nameless) if place.parent is None]
    empty(places)
    return roots


def _adopt(parent: Thread, child: Thread) -> None:
    """Put a place that has no parent below another, unless that made a loop. What is found on the way up is remembered, so
    that long lines of descent are not climbed again and again."""
    top = parent
    while top.above is not None:
        top = top.above
    climbing: Thread | None = parent
    while climbing is not None and climbing is not top:
        climbing.above, climbing = top, climbing.above
    if top is not child:
        child.parent = child.above = parent
        parent.children.append(child)


def _put_below(parent: Thread, child: Thread) -> None:
    child.parent = parent
    parent.children.append(child)


def _prune(roots: list[Thread]) -> list[Thread]:
    """Step 3: take out empty places, their children going up; a root with several children stays."""
    waiting = [(child, root) for root in roots for child in root.children]
    for root in roots:
        root.children = []
    while waiting:
        thread, above = waiting.pop()
        children, thread.children = thread.children, []
        if thread.message is not None:
            thread.parent = above
            above.children.append(thread)
            above = thread
        waiting.extend((child, above) for child in children)
    left: list[Thread] = []
    for root in roots:
        if root.message is None and len(root.children) < 2:
            for child in root.children:
                child.parent = None
            left.extend(root.children)
        else:
            left.append(root)
    return left


def _key(thread: Thread) -> tuple[float, int]:
    """By sent date, then by place in the mailbox; an empty place goes by its first child."""
    message = thread.message if thread.message is not None else thread.children[0].message
    assert message is not None  # after pruning only roots are empty, and these have children
    return message.sent, message.number


def _root_key(root: Thread) -> tuple[float, int]:
    if root.message is None:
        root.children = in_order(root.children, _key)
    return _key(root)


def _subject_of(root: Thread) -> Threadable:
    message = root.message if root.message is not None else root.children[0].message
    assert message is not None  # see _key
    return message


def _merge_subjects(roots: list[Thread]) -> list[Thread]:
    """Step 5. In no order."""
    table: MutableMapping[str, Thread] = dict_for(len(roots))
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
    merged: MutableMapping[int, Thread] = dict_for(len(roots))
    for root in roots:
        merged[id(root)] = root
    for root in roots:
        message = _subject_of(root)
        known = table.get(message.subject) if message.subject else None
        if known is None or known is root or id(root) not in merged:
            continue
        del merged[id(root)]
        if known.message is None:
            for child in [root] if root.message is not None else root.children:
                _put_below(known, child)
        elif message.is_reply and not known.message.is_reply:
            _put_below(known, root)
        else:
            both = Thread()
            del merged[id(known)]
            merged[id(both)] = both
            _put_below(both, known)
            _put_below(both, root)
            table[message.subject] = both
    roots = list(merged.values())
    empty(table)
    empty(merged)
    return roots


def _sort_all(roots: list[Thread]) -> list[Thread]:
    """Step 6: siblings at every level by sent date."""
    waiting = list(roots)
    while waiting:
        thread = waiting.pop()
        thread.children = in_order(thread.children, _key)
        thread.parent = thread.above = None  # so that no cycles are left for the collector
        waiting.extend(thread.children)
    return in_order(roots, _key)
