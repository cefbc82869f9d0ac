"""What ends of a move say to each other: values there and back, and fields that are wrong."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from murder.errors import BadSyntax, Code, Refusal
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import Message, ModSeq, Uid, UidValidity
from murder.model.name import MailboxName
from murder.model.seqset import Ranges
from murder.model.uidset import Tombstones
from murder.wire.nodes import carry_answers as answers
from murder.wire.nodes.carry import Words
from murder.wire.nodes.carry_answers import (
    CopyRows,
    Done,
    Facts,
    Held,
    Known,
    Refused,
    Row,
    Stored,
    Sum,
    Tree,
    TreeRow,
    check_refused,
    format_answer,
)
from murder.wire.nodes.carry_words import (
    Abort,
    AskSum,
    Begin,
    Commit,
    Compare,
    Fate,
    Hold,
    Prepare,
    Request,
    Rows,
    format_request,
    parse_request,
)

ANA: Final = MailboxName(b"user.ana")
SUB: Final = MailboxName(b"user.ana.caf\xe9")
WHEN: Final = datetime(2026, 11, 29, 8, 0, tzinfo=UTC)
MESSAGE: Final = Message(Uid(3), frozenset({"\\Seen"}), WHEN, 17, ModSeq(9), WHEN, "E1")
NUMBERS: Final = dict(zip(answers.NUMBERS, range(1, 8), strict=True))
PORTRAIT: Final = Portrait(
    CarriedIdentity("M1", UidValidity(7)), Uid(4), ModSeq(9), Tombstones(()), {}, Uid(2)
)
PAIRS: Final[list[tuple[answers.Answer, Callable[[Words], answers.Answer]]]] = [
    (Done(), answers.parse_done),
    (Held(ModSeq(5), ((1, 4), (7, 7))), answers.parse_held),
    (Stored("abc"), answers.parse_stored),
    (Sum(**NUMBERS, uids="abc"), answers.parse_sum),
    (Known("done", has_root=True), answers.parse_known),
    (
        Tree(
            (TreeRow(SUB, "M1", b"ana\tlr\t", 4),), {"a/x": b"\xff{}"}, (ANA,), 3, (ANA, SUB), "be3"
        ),
        answers.parse_moved_tree,
    ),
    (Facts(NUMBERS, "M1", ((2, 3),), "abc", {"bob": "d"}), answers.parse_facts),
    (CopyRows((Row(MESSAGE, "abc"), Row(MESSAGE, "", "it is gone"))), answers.parse_rows),
]
REQUESTS: Final[list[Request]] = [
    Begin("a1", ANA, "default", "be1.example.org"),
    Hold(SUB, PORTRAIT),
    Hold(SUB, PORTRAIT, CarriedIdentity("M0", UidValidity(6))),
    Rows(ANA, [(MESSAGE, True), (MESSAGE, False)]),
    AskSum(SUB),
    Prepare([(SUB, b"ana\tlr\t")], {"a/x": b"\xff"}, [ANA]),
    Commit("a1"),
    Abort("a1"),
    Fate("a1", ANA),
    Compare("a1", ANA, SUB, "tree", -1),
    Compare("a1", ANA, SUB, "facts", 12),
    Compare("a1", ANA, SUB, "rows", 0),
]


def over_the_wire(words: Words) -> Any:
    return json.loads(json.dumps(words))


@pytest.mark.parametrize(("answer", "parse"), PAIRS)
def test_an_answer_comes_back_as_it_went(
    answer: answers.Answer, parse: Callable[[Words], answers.Answer]
) -> None:
    told = over_the_wire(format_answer(answer))
    check_refused(told, "be2")
    assert parse(told) == answer
    for key in told.keys() - ({"ok"} if len(told) > 1 else set()):
        with pytest.raises(BadSyntax):
            parse({**told, key: [None]})
        with pytest.raises(BadSyntax):
            parse({other: value for other, value in told.items() if other != key})


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_comes_back_as_it_went(request_: Request) -> None:
    assert parse_request(over_the_wire(format_request(request_))) == request_


def test_a_refusal_is_raised_with_who_says_so() -> None:
    told = over_the_wire(format_answer(Refused(Code.IN_USE, "not now")))
    with pytest.raises(Refusal, match=r"^be2: not now$") as raised:
        check_refused(told, "be2")
    assert raised.value.code is Code.IN_USE
    with pytest.raises(BadSyntax):
        check_refused({"no": 1}, "be2")


def test_what_differs_is_named() -> None:
    ours, theirs = Sum(**NUMBERS, uids="a"), Sum(**NUMBERS | {"unseen": 0}, uids="b")
    assert ours.differing(theirs) == ["uids", "unseen"]
    assert ours.differing(ours) == []


@pytest.mark.parametrize("kept", [(), ((3, 4),)])
def test_what_is_kept_of_expunged_messages_may_be_told(kept: Ranges) -> None:
    held = Held(ModSeq(5), (), kept)
    told = over_the_wire(format_answer(held))
    assert answers.parse_held(told) == held
    with pytest.raises(BadSyntax):
        answers.parse_held({**told, "kept": [None]})
    assert answers.parse_held({"modseq": 5, "uids": []}).kept is None  # of an earlier version


@pytest.mark.parametrize(
    "was", ["M1", ["M1"], ["x y", 1], ["M1", 0], ["M1", "x"], ["M1", 2**32], 7]
)
def test_what_a_mailbox_was_is_no_other_than_one_can_be(was: object) -> None:
    words = over_the_wire(format_request(Hold(SUB, PORTRAIT)))
    with pytest.raises(BadSyntax):
        parse_request({**words, "was": was})
