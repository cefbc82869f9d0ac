"""Criteria against candidates: what the store's facts decide, and what needs the content."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.backend.searching import Candidate, Scene, bounds, compile_key, split_flags
from murder.model.message import Message, ModSeq, SeqNum, Uid
from murder.model.search import (
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
    UidIn,
    YoungerThan,
)
from murder.model.seqset import SeqSet

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
SCENE = Scene(exists=10, largest_uid=100, saved=((20, 30),), now=NOW)
SEEN, WORK = HasFlag("\\Seen"), HasFlag("work")
UNKNOWN = BodyHas("x")


class Content:
    """Says yes to everything."""

    def header_has(self, field: str, text: str) -> bool:
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
