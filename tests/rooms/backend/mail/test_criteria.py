"""Criteria against candidates: what the store's facts decide, and what needs the content."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.api.store import Mailbox
from murder.mime.decode import PIECE_OCTETS
from murder.model.message import Message, ModSeq, SeqNum, Uid
from murder.model.query.search import (
    All,
    And,
    BodyHas,
    DateIs,
    DateOf,
    HasFlag,
    Not,
    Or,
    Relation,
    SearchKey,
    SeqNumIn,
    SizeIs,
    TextHas,
    UidIn,
    YoungerThan,
)
from murder.model.seqset import SAVED, Ranges, SeqSet, holds
from murder.net.turns import Turn
from murder.roles.backend.changes.updates import View
from murder.roles.backend.imap.search import criteria
from murder.roles.backend.imap.search.criteria import (
    Candidate,
    Scene,
    bounds,
    compile_key,
    settled,
    split_flags,
)
from murder.roles.backend.imap.search.judging import Judge
from tests.kit.steps import lines_run

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
SCENE = Scene(exists=10, largest_uid=100, saved=((20, 30),), now=NOW)
SEEN, WORK = HasFlag("\\Seen"), HasFlag("work")
UNKNOWN = BodyHas("x")


class Content:
    """Says yes to everything."""

    def header_has(self, field: str, text: str) -> bool:
        return True

    def addresses_have(self, field: str, text: str) -> bool:
        return True

    def body_has(self, text: str) -> bool:
        return True

    def text_has(self, text: str) -> bool:
        return True

    def sent_on(self) -> date | None:
        return date(2024, 5, 1)


def candidate(content: Content | None = None) -> Candidate:
    message = Message(
        Uid(25),
        frozenset({"\\Seen", "Work"}),
        NOW - timedelta(hours=1),
        1000,
        ModSeq(7),
    )
    return Candidate(SeqNum(3), message, False, content)


CASES: list[tuple[SearchKey, bool | None]] = [
    (All(), True),
    (SEEN, True),
    (Not(SEEN), False),
    (WORK, True),
    (SizeIs(True, 999), True),
    (SizeIs(False, 1000), False),
    (SeqNumIn(SeqSet(((2, 4),))), True),
    (SeqNumIn(SeqSet(((0, 0),))), False),
    (SeqNumIn(SeqSet(is_saved=True)), True),
    (UidIn(SeqSet(((200, 0),))), False),
    (YoungerThan(3601), True),
    (Not(YoungerThan(60)), True),
    (DateIs(DateOf.INTERNAL, Relation.ON, date(2024, 6, 1)), True),
    (DateIs(DateOf.INTERNAL, Relation.BEFORE, date(2024, 6, 1)), False),
    (DateIs(DateOf.SENT, Relation.SINCE, date(2024, 5, 1)), None),
    (UNKNOWN, None),
    (Not(UNKNOWN), None),
    (And((UNKNOWN, Not(SEEN))), False),
    (And((UNKNOWN, SEEN)), None),
    (Or(UNKNOWN, SEEN), True),
    (Or(UNKNOWN, Not(SEEN)), None),
]


@pytest.mark.parametrize(("key", "verdict"), CASES)
def test_facts_decide_where_they_can(key: SearchKey, verdict: bool | None) -> None:
    assert compile_key(key, SCENE)(candidate()) is verdict


@pytest.mark.parametrize(("key", "verdict"), CASES)
def test_the_content_decides_the_rest(key: SearchKey, verdict: bool | None) -> None:
    decided = compile_key(key, SCENE)(candidate(Content()))
    assert decided is not None
    assert verdict is None or decided is verdict


KEYS = st.recursive(
    st.sampled_from([All(), SEEN, WORK, UNKNOWN, SizeIs(True, 5), UidIn(SeqSet(((20, 26),)))]),
    lambda inner: st.one_of(
        inner.map(Not),
        st.builds(Or, inner, inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda keys: And(tuple(keys))),
    ),
    max_leaves=8,
)


@given(KEYS)
def test_a_verdict_without_content_never_changes_with_it(key: SearchKey) -> None:
    early = compile_key(key, SCENE)(candidate())
    assert early is None or compile_key(key, SCENE)(candidate(Content())) is early


@given(KEYS)
def test_flags_taken_out_of_the_criteria_mean_the_same(key: SearchKey) -> None:
    wanted, rest = split_flags(key)
    one = candidate(Content())
    split = all((flag in one.message.flags) == present for flag, present in wanted)
    whole = compile_key(key, SCENE)(one)
    assert (split and compile_key(rest, SCENE)(one)) == whole


@given(KEYS)
def test_bounds_keep_every_match(key: SearchKey) -> None:
    if compile_key(key, SCENE)(candidate(Content())):
        uids = [5, 10, 25, *range(40, 47)]
        assert 25 in bounds(key, SCENE, uids)


def test_sets_that_must_all_hold_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counting(ranges: Ranges, number: int) -> bool:
        nonlocal asked
        asked += 1
        return holds(ranges, number)

    monkeypatch.setattr(criteria, "holds", counting)
    numbers = [SeqNumIn(SeqSet(((n, n),))) for n in range(4, 3000)]
    keys: list[SearchKey] = [*(Not(key) for key in numbers), *[SeqNumIn(SAVED)] * 9000]
    keys += [UidIn(SeqSet(((1, 20 + n), (25, 0)))) for n in range(3000)]
    assert compile_key(And(tuple(keys)), SCENE)(candidate()) is True
    assert asked == 3


SETS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=3).map(
    lambda pairs: SeqSet(tuple(pairs))
)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([SeqNumIn, UidIn]), SETS), max_size=5))
def test_sets_together_mean_what_each_means(
    rows: list[tuple[bool, "type[SeqNumIn | UidIn]", SeqSet]],
) -> None:
    keys = [Not(kind(numbers)) if negated else kind(numbers) for negated, kind, numbers in rows]
    one = candidate()
    each = all(compile_key(key, SCENE)(one) for key in keys)
    assert compile_key(And(tuple(keys)), SCENE)(one) is each


def test_sequence_numbers_settle_as_ranges() -> None:
    uids = range(10, 30_010, 3)
    key = And(tuple(SeqNumIn(SeqSet(((1, 0),))) for _ in range(500)))
    meant = UidIn(SeqSet(((10, uids[-1]),)))
    assert settled(key, uids, ()) == And((meant,) * 500)
    assert lines_run(settled, key, uids, ()) < 40_000
    assert settled(SeqNumIn(SeqSet(((2, 3), (20_000, 20_001)))), uids, ()) == UidIn(
        SeqSet(((13, 16),))
    )


class Silent:
    """A mailbox of one message over and over."""

    mailbox_id = "silent"

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    async def octets(self, _: Uid) -> memoryview:
        return memoryview(self._octets)

    async def summary(self, _: Uid) -> bytes | None:
        return None

    async def keep_summary(self, uid: Uid, summary: bytes) -> None: ...


class Ticking:
    """A clock on which each look takes a millisecond."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 0.001
        return self._now


@pytest.mark.parametrize("size", [500_000, 1_000_000])
def test_a_large_message_is_searched_in_fair_turns(size: int) -> None:
    octets = b"Subject: x\r\n\r\n" + b"abcd efgh\r\n" * (size // 11)
    view = View(cast("Mailbox", Silent(octets)), True)
    view.uids.append(25)
    turn = Turn(clock=Ticking())
    keys = tuple(Not(TextHas(f"q{n}")) for n in range(100))
    judge = Judge(view, And(keys), SCENE, turn)
    assert asyncio.run(judge.fulfils(candidate().message))
    steps = size // PIECE_OCTETS
    assert steps <= turn.rests <= 4 * steps  # ten looks at each piece, and every fifth step a rest
