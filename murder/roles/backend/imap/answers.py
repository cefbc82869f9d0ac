"""Answers that are kept, as octets, for as long as nothing has changed: LIST, STATUS and FETCH FLAGS in their commonest
spelling.

A client asks the same again and again, many sessions of one user ask the same. What an answer was made from is kept with
it as numbers that change with it, whichever process changes it: the mailbox list's (`MailboxList.stamp_now`) and a
mailbox's (`murder.api.store.TellsAtOnce`). They are read before the answer is made, so that one of an older state is never
told. `express` tells kept answers, the commands' own files keep them.
"""

import re
from collections.abc import Callable, Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from murder.api.store import Mailbox, Numbers
from murder.model.identity import Login
from murder.model.name import MailboxName, Namespace
from murder.model.query.listing import Node
from murder.model.query.status import StatusItem
from murder.roles.backend.imap.flags import FlagForms
from murder.roles.backend.imap.untagged import Manner
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.status import StatusRequest
from murder.wire.token import astring

MOST_OCTETS: Final = 2 * 1024 * 1024  # of the kept answers of one kind, in a worker
LONGEST: Final = 64 * 1024  # an answer that is kept
NODE_OCTETS: Final = 400  # of a mailbox in a `Tree`
ENTRY_OCTETS: Final = 1000  # of one beside its octets: its key, numbers and objects

# What clients ask, as they mostly spell it: tag, then NOOP or CHECK, LIST, STATUS, or FETCH; in capitals, or as Thunderbird
# does (`noop`, `UID fetch`). Whatever else comes is read by the dialogue.
PLAIN_OCTETS: Final = 200
PLAIN: Final = re.compile(
    rb"([A-Za-z0-9.]{1,32}) (?:(NOOP|CHECK|noop|check)"
    rb'|((?:LIST|list) "" (?:[A-Za-z0-9*%./_-]{1,80}|"[A-Za-z0-9*%./_ -]{1,80}"))'
    rb'|((?:STATUS|status) (?:[A-Za-z0-9./_&+,-]{1,100}|"[A-Za-z0-9./_&+, -]{1,100}")'
    rb" \((?:[A-Z ]{1,100}|[a-z ]{1,100})\))"
    rb"|((?:UID |uid )?(?:FETCH|fetch) 1:\* (?:FLAGS|\(FLAGS\)|flags|\(flags\)))"
    rb")\r\n"
)
NOOP, LIST, STATUS, FETCH = 2, 3, 4, 5  # the group that matches

Who = tuple[str, bool, frozenset[str], bool]  # who asks, as far as answers differ by it


def who_of(login: Login, in_utf8: bool) -> Who:
    """For the key of an answer."""
    return login.user, login.is_admin, login.identity.groups, in_utf8


def flags_key(
    mailbox: Mailbox, login: Login, manner: Manner, forms: FlagForms, octets: bytes
) -> Hashable:
    """The key of an answer to FETCH FLAGS: what else makes one look otherwise than another."""
    asked = manner.condstore, manner.qresync, manner.uid_only, forms.tells_recent
    return mailbox.mailbox_id, login.user, asked, octets


def plain(command: Command, kind: int) -> bytes | None:
    """What of a command stands in the key of its answer; None where the answer is not to be kept."""
    octets = command.octets
    match = PLAIN.fullmatch(octets) if len(octets) <= PLAIN_OCTETS else None
    return None if match is None else match[kind]


class Answer(Protocol):
    @property
    def octets(self) -> bytes | int:
        """Or how many they are."""
        ...


T = TypeVar("T", bound=Answer)


class Kept(Generic[T]):
    """Answers of one kind by their keys. Two generations: what has not been told while a whole one grew up is forgotten."""

    __slots__ = ("_octets", "_old", "young")

    def __init__(self) -> None:
        self.young: dict[Hashable, T] = {}
        self._old: dict[Hashable, T] = {}
        self._octets = 0

    def get(self, key: Hashable) -> T | None:
        kept = self.young.get(key)
        if kept is None and (kept := self._old.pop(key, None)) is not None:
            self.keep(key, kept)
        return kept

    def keep(self, key: Hashable, answer: T) -> None:
        """One that is too long is forgotten."""
        kept = answer.octets
        octets = kept if isinstance(kept, int) else len(kept)
        if octets > LONGEST:
            return
        self._octets += octets + ENTRY_OCTETS
        if self._octets > MOST_OCTETS // 2:
            self._old, self.young = self.young, {}
            self._octets = octets + ENTRY_OCTETS
        self.young[key] = answer


@dataclass(slots=True)
class Listed:
    """An answer to LIST. `stamp`: of the mailbox list."""

    stamp: int
    octets: bytes


@dataclass(slots=True)
class Tree:
    """All that a user may see, as a LIST of it has found: of it any other plain LIST is answered that looks no further.
    `stamp`: of the mailbox list. `prefixes`: where it has looked (`ListQuery`), other domains are not among them. `lines`:
    as far as they have been told."""

    stamp: int
    namespace: Namespace
    prefixes: tuple[bytes, ...]
    nodes: list[Node]
    lines: list[bytes | None]

    @property
    def octets(self) -> int:
        return NODE_OCTETS * len(self.nodes)


@dataclass(slots=True)
class Counted:
    """An answer to STATUS. `row` is the mailbox's in the list, which had it at `stamp`. `template` and `pick` make the
    answer anew of other numbers; None where more is asked than these tell."""

    name: MailboxName
    mailbox_id: str
    stamp: int
    row: bytes | None
    at_once: Callable[[], Numbers | None]
    numbers: Numbers
    octets: bytes
    template: bytes | None
    pick: Callable[[Numbers], object] | None
    asks_recent: bool
    asks_modseq: bool


@dataclass(slots=True)
class Flags:
    """An answer to FETCH FLAGS of all messages: as of a mod-sequence, to a session that knows so many messages up to a UID,
    and these keywords, and for which these messages are recent."""

    modseq: int
    exists: int
    last_uid: int
    keywords: frozenset[str]
    recent: AbstractSet[int]
    octets: bytes


@dataclass(slots=True)
class Answers:
    """All that one worker keeps. `told`: how many of them have been told again."""

    lists: Kept[Listed] = field(default_factory=Kept[Listed])
    trees: Kept[Tree] = field(default_factory=Kept[Tree])
    counts: Kept[Counted] = field(default_factory=Kept[Counted])
    flags: Kept[Flags] = field(default_factory=Kept[Flags])
    told: int = 0


# Which of a mailbox's numbers an item is
_AT: Final = {
    StatusItem.UIDVALIDITY: 0,
    StatusItem.UIDNEXT: 1,
    StatusItem.HIGHESTMODSEQ: 2,
    StatusItem.MESSAGES: 4,
    StatusItem.UNSEEN: 5,
    StatusItem.DELETED: 6,
}
# What no number tells
_NOT_KEPT: Final = frozenset({StatusItem.SIZE, StatusItem.DELETED_STORAGE, StatusItem.APPENDLIMIT})


def counted(
    name: MailboxName,
    mailbox_id: str,
    tell: Callable[[], Numbers | None],
    stamp: int,
    row: bytes | None,
    numbers: Numbers,
    request: StatusRequest,
    octets: bytes,
) -> Counted | None:
    """An answer to STATUS as it is kept, if it may be. Stamp, row and numbers are of before it was made."""
    if not _NOT_KEPT.isdisjoint(request.items):
        return None
    template: bytes | None = None
    pick: Callable[[Numbers], object] | None = None
    counters = counters_of(tuple(request.items))
    if numbers[5] >= 0 and counters is not None and not counters.asks_recent:
        name_told = astring(request.mailbox).replace(b"%", b"%%")
        template, pick = b"* STATUS %s (%s)\r\n" % (name_told, counters.text), counters.pick
    return Counted(
        name,
        mailbox_id,
        stamp,
        row,
        tell,
        numbers,
        octets,
        template,
        pick,
        StatusItem.RECENT in request.items,
        StatusItem.HIGHESTMODSEQ in request.items,
    )


class Counters(NamedTuple):
    """What a STATUS asks for, where a mailbox's numbers have all of it."""

    items: tuple[StatusItem, ...]
    text: bytes  # with a `%d` for each
    pick: Callable[[tuple[int, ...]], object]  # of the numbers, and 0 for what is recent
    asks_unseen: bool
    asks_recent: bool
    asks_modseq: bool


@lru_cache(maxsize=256)
def counters_in(octets: bytes) -> Counters | None:
    """By what stands between the parentheses. None: it asks for more than numbers tell, or is not spelled so."""
    words = dict.fromkeys(octets.upper().split(b" "))
    if not _BY_WORD.keys() >= words.keys():
        return None
    return counters_of(tuple([_BY_WORD[word] for word in words]))


@lru_cache(maxsize=256)
def counters_of(items: tuple[StatusItem, ...]) -> Counters | None:
    """None: numbers do not tell all of them."""
    if not _TOLD >= set(items):
        return None
    return Counters(
        items,
        b" ".join([item.value.encode() + b" %d" for item in items]),
        itemgetter(*[_AT.get(item, _RECENT_AT) for item in items]),
        StatusItem.UNSEEN in items,
        StatusItem.RECENT in items,
        StatusItem.HIGHESTMODSEQ in items,
    )


_RECENT_AT: Final = 8  # behind all numbers
_TOLD: Final = frozenset({*_AT, StatusItem.RECENT})
_BY_WORD: Final = {item.value.encode(): item for item in _TOLD}
