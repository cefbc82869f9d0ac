"""Deciding whether a message fulfils search criteria: cheap facts first, its octets only where they decide.

RFC 3501 §6.4.4 and the extensions that `model.query.search` names. Criteria are made into one function of a Candidate that
answers True, False, or None for "only the content can tell". Sets of numbers that must all hold become one, and what is
asked twice is asked once. Knows no protocol and waits for nothing.
"""

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import chain
from typing import Final, Protocol, assert_never

from murder.mime.text import Needs, Wanted, wanted_texts
from murder.model.flag import RECENT, SYSTEM_FLAGS, has_flag
from murder.model.message import Message, ModSeq, SeqNum, Uid
from murder.model.query.search import (
    AddressHas,
    All,
    And,
    BodyHas,
    DateIs,
    DateOf,
    EmailIdIs,
    Fuzzy,
    HasFlag,
    HeaderHas,
    ModSeqFrom,
    Not,
    Or,
    Relation,
    SaveDateSupported,
    SearchKey,
    SeqNumIn,
    SizeIs,
    TextHas,
    ThreadIdIs,
    UidIn,
    YoungerThan,
    walk,
)
from murder.model.seqset import (
    Ranges,
    SeqSet,
    holds,
    indexes_of_uids,
    intersect,
    merge,
)


class Content(Protocol):
    """The searchable side of one message. None: it has not been looked at that far."""

    def header_has(self, name: str, text: str) -> bool | None:
        """Whether a field of this name (lower case) contains the text; with empty text: is there."""
        ...

    def addresses_have(self, name: str, text: str) -> bool | None:
        """Whether an address of this field (lower case) of the envelope contains the text."""
        ...

    def body_has(self, text: str) -> bool | None:
        """None where only the octets could tell."""
        ...

    def text_has(self, text: str) -> bool | None:
        """Header or body contains the text."""
        ...

    def sent_on(self) -> date | None:
        """The day of its Date field, as written there."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """One message in question. `content` is None as long as its octets have not been read."""

    seq: SeqNum
    message: Message
    is_recent: bool
    content: Content | None = None


Verdict = bool | None
Test = Callable[[Candidate], Verdict]


@dataclass(frozen=True, slots=True)
class Scene:
    """What criteria refer to besides the message: the session's numbering, and the time of day."""

    exists: int
    largest_uid: int
    saved: Ranges
    now: datetime

    def seq_ranges(self, sequence: SeqSet) -> Ranges:
        return sequence.resolved(self.exists)

    def uid_ranges(self, sequence: SeqSet) -> Ranges:
        return self.saved if sequence.is_saved else sequence.resolved(self.largest_uid)


def compile_key(key: SearchKey, scene: Scene) -> Test:
    """The function that judges candidates."""
    match key:
        case All():
            return lambda _: True
        case And(keys):
            return _all_of(_compile_together(keys, scene))
        case Or(first, second):
            return _any_of(compile_key(first, scene), compile_key(second, scene))
        case Not(inner):
            return _negated(compile_key(inner, scene))
        case Fuzzy(inner):
            return compile_key(inner, scene)
        case _:
            return _compile_plain(key, scene)


def _compile_together(keys: Iterable[SearchKey], scene: Scene) -> list[Test]:
    """Of criteria that must all hold: each once, all sets of numbers first and put together."""
    within: dict[bool, list[Ranges]] = {}  # by whether they are UIDs
    without: dict[bool, list[Ranges]] = {}
    tests: list[Test] = []
    for key in dict.fromkeys(_flattened(keys)):
        inner = key.key if isinstance(key, Not) else key
        if not isinstance(inner, SeqNumIn | UidIn) or inner.sequence.is_saved:
            tests.append(compile_key(key, scene))
            continue
        by_uid = isinstance(inner, UidIn)
        ranges = scene.uid_ranges(inner.sequence) if by_uid else scene.seq_ranges(inner.sequence)
        (without if inner is not key else within).setdefault(by_uid, []).append(ranges)
    sets = [_in_ranges(by_uid, intersect(each)) for by_uid, each in within.items()]
    for by_uid, each in without.items():
        sets.append(_negated(_in_ranges(by_uid, merge(chain.from_iterable(each)))))
    return sets + tests


def _flattened(keys: Iterable[SearchKey]) -> Iterator[SearchKey]:
    """With the criteria of conjunctions within it (`1 (2 3)`) in their place."""
    for key in keys:
        if isinstance(key, And):
            yield from _flattened(key.keys)
        else:
            yield key


def _in_ranges(by_uid: bool, ranges: Ranges) -> Test:
    if by_uid:
        return _uid_in(ranges)
    return lambda candidate: holds(ranges, candidate.seq)


def _compile_plain(key: SearchKey, scene: Scene) -> Test:
    match key:
        case SeqNumIn(sequence) if not sequence.is_saved:
            return _in_ranges(False, scene.seq_ranges(sequence))
        case SeqNumIn(sequence) | UidIn(sequence):
            return _in_ranges(True, scene.uid_ranges(sequence))
        case HasFlag(flag):
            return _flagged(flag)
        case SizeIs(larger, octets):
            if larger:
                return lambda candidate: candidate.message.rfc822_size > octets
            return lambda candidate: candidate.message.rfc822_size < octets
        case YoungerThan(interval_s):
            limit = scene.now.timestamp() - interval_s
            return lambda candidate: candidate.message.internal_date.timestamp() >= limit
        case ModSeqFrom(modseq):
            return lambda candidate: candidate.message.modseq >= modseq
        case EmailIdIs(email_id):
            return lambda candidate: candidate.message.email_id == email_id
        case ThreadIdIs(thread_id):
            return lambda candidate: candidate.message.thread_id == thread_id
        case SaveDateSupported():
            return lambda candidate: candidate.message.save_date is not None
        case DateIs():
            return _dated(key)
        case HeaderHas() | AddressHas() | BodyHas() | TextHas():
            return _containing(key)
        case All() | And() | Or() | Not() | Fuzzy():
            return compile_key(key, scene)
        case _:
            assert_never(key)


def _all_of(tests: Sequence[Test]) -> Test:
    def judge(candidate: Candidate) -> Verdict:
        verdict: Verdict = True
        for test in tests:
            holds_here = test(candidate)
            if holds_here is False:
                return False
            if holds_here is None:
                verdict = None
        return verdict

    return judge


def _any_of(first: Test, second: Test) -> Test:
    def judge(candidate: Candidate) -> Verdict:
        verdict = first(candidate)
        if verdict:
            return True
        other = second(candidate)
        if other:
            return True
        return None if verdict is None or other is None else False

    return judge


def _negated(test: Test) -> Test:
    def judge(candidate: Candidate) -> Verdict:
        verdict = test(candidate)
        return None if verdict is None else not verdict

    return judge


def _uid_in(ranges: Ranges) -> Test:
    return lambda candidate: holds(ranges, candidate.message.uid)


def _flagged(flag: str) -> Test:
    if flag == RECENT:
        return lambda candidate: candidate.is_recent
    if flag.startswith("\\"):
        return lambda candidate: flag in candidate.message.flags
    return lambda candidate: has_flag(candidate.message.flags, flag)


def _dated(key: DateIs) -> Test:
    def judge(candidate: Candidate) -> Verdict:
        message = candidate.message
        match key.of:
            case DateOf.INTERNAL:
                day = message.internal_date.date()
            case DateOf.SAVED:
                day = (message.save_date or message.internal_date).date()
            case DateOf.SENT:
                if candidate.content is None:
                    return None
                # without a date it counts with the one of its arrival, as in SORT (RFC 5256 §2.2); Cyrus does too
                day = candidate.content.sent_on() or message.internal_date.date()
        match key.relation:
            case Relation.BEFORE:
                return day < key.day
            case Relation.ON:
                return day == key.day
            case Relation.SINCE:
                return day >= key.day

    return judge


def _containing(key: HeaderHas | AddressHas | BodyHas | TextHas) -> Test:
    def judge(candidate: Candidate) -> Verdict:
        content = candidate.content
        if content is None:
            return None
        match key:
            case HeaderHas(field, text):
                return content.header_has(field, text)
            case AddressHas(field, text):
                return content.addresses_have(field, text)
            case BodyHas(text):
                return content.body_has(text)
            case TextHas(text):
                return content.text_has(text)

    return judge


def texts_in(key: SearchKey) -> Wanted:
    """All texts that the criteria look for in messages, and what they must know of these."""
    fields: list[tuple[str, str]] = []
    addresses: list[tuple[str, str]] = []
    bodies: list[str] = []
    texts: list[str] = []
    is_dated = False
    for inner in walk(key):
        match inner:
            case HeaderHas(field, text):
                fields.append((field, text))
            case AddressHas(field, text):
                addresses.append((field, text))
            case BodyHas(text):
                bodies.append(text)
            case TextHas(text):
                texts.append(text)
            case DateIs(DateOf.SENT):
                is_dated = True
            case _:
                pass
    wanted = wanted_texts(fields, addresses, bodies, texts)
    if not is_dated:
        return wanted
    return replace(wanted, needs=Needs.ENVELOPE, envelope=wanted.envelope | {b"DATE"})


def needs_messages(key: SearchKey) -> bool:
    """Whether more than numbers is asked for (else the store is not)."""
    match key:
        case All() | SeqNumIn() | UidIn():
            return False
        case And(keys):
            return any(needs_messages(inner) for inner in keys)
        case Or(first, second):
            return needs_messages(first) or needs_messages(second)
        case Not(inner) | Fuzzy(inner):
            return needs_messages(inner)
        case HasFlag(flag):
            return flag != RECENT
        case _:
            return True


def split_flags(key: SearchKey) -> tuple[list[tuple[str, bool]], SearchKey]:
    """System flags that every match must have (True) or lack (False), and the criteria that are left beside them."""
    wanted: list[tuple[str, bool]] = []
    left: list[SearchKey] = []
    for top in key.keys if isinstance(key, And) else (key,):
        match top:
            case HasFlag(flag) if flag in SYSTEM_FLAGS:
                wanted.append((flag, True))
            case Not(HasFlag(flag)) if flag in SYSTEM_FLAGS:
                wanted.append((flag, False))
            case _:
                left.append(top)
    if not wanted:
        return [], key
    return wanted, And(tuple(left)) if left else All()


def is_bounds_only(key: SearchKey) -> bool:
    """Whether `bounds` alone has answered."""
    match key:
        case All() | UidIn():
            return True
        case SeqNumIn(sequence):
            return not sequence.is_saved
        case _:
            return False


def bounds(key: SearchKey, scene: Scene, uids: Sequence[int]) -> Sequence[int]:
    """The part of these UIDs that a set at the top of the criteria leaves; most often all."""
    tops = key.keys if isinstance(key, And) else (key,)
    for top in tops:
        if isinstance(top, SeqNumIn) and not top.sequence.is_saved:
            ranges = scene.seq_ranges(top.sequence)
            return _put_together(uids[low - 1 : high] for low, high in ranges)
        if isinstance(top, UidIn):
            meant = SeqSet(scene.uid_ranges(top.sequence))
            spans = indexes_of_uids(meant, uids)  # type: ignore[arg-type] # UIDs
            return _put_together(uids[span.start : span.stop] for span in spans)
    return uids


def _put_together(slices: Iterable[Sequence[int]]) -> Sequence[int]:
    uids = array("I")
    for part in slices:
        uids.extend(part)
    return uids


def weight_of(key: SearchKey) -> int:
    """What making the criteria ready costs: how many there are, with the ranges of their sets."""
    weight = 0
    for inner in walk(key):
        weight += 1
        if isinstance(inner, (SeqNumIn, UidIn)):
            weight += len(inner.sequence.ranges)
    return weight


def settled(key: SearchKey, uids: Sequence[int], saved: Ranges) -> SearchKey:
    """The criteria with sequence numbers and `$` as UIDs: what they mean now, they mean as long as a search is kept up
    to date (RFC 5267 §4.3)."""
    match key:
        case SeqNumIn(sequence) if not sequence.is_saved:
            # also UIDs between them, which no message will ever have
            within = intersect([sequence.resolved(len(uids)), ((1, len(uids)),)])
            return UidIn(SeqSet(tuple((uids[low - 1], uids[high - 1]) for low, high in within)))
        case SeqNumIn(sequence) | UidIn(sequence) if sequence.is_saved:
            return UidIn(SeqSet(saved))
        case And(keys):
            return And(tuple(settled(inner, uids, saved) for inner in keys))
        case Or(first, second):
            return Or(settled(first, uids, saved), settled(second, uids, saved))
        case Not(inner):
            return Not(settled(inner, uids, saved))
        case Fuzzy(inner):
            return Fuzzy(settled(inner, uids, saved))
        case _:
            return key


NOWHEN: Final = datetime.fromtimestamp(0, UTC)
_NO_MODSEQ: Final = ModSeq(0)


def bare(uid: int, seq: SeqNum, recent: Collection[Uid]) -> Candidate:
    """A candidate for criteria that need no more than its numbers."""
    message = Message(Uid(uid), frozenset(), NOWHEN, 0, modseq=_NO_MODSEQ)
    return Candidate(seq, message, uid in recent)
