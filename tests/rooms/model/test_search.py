"""The criteria tree."""

from murder.model.message import ModSeq
from murder.model.query.search import (
    All,
    And,
    BodyHas,
    HasFlag,
    ModSeqFrom,
    Not,
    Or,
    SearchKey,
    needs_octets,
    uses_modseq,
    walk,
)


def test_walk_visits_every_key_outermost_first() -> None:
    key = And((Not(HasFlag("a")), Or(All(), BodyHas("x"))))
    assert [type(inner).__name__ for inner in walk(key)] == [
        "And",
        "Not",
        "HasFlag",
        "Or",
        "All",
        "BodyHas",
    ]


def test_a_deep_tree_does_not_exhaust_the_stack() -> None:
    key: SearchKey = ModSeqFrom(ModSeq(5))
    for _ in range(100_000):
        key = Not(key)
    assert uses_modseq(key)
    assert not needs_octets(key)
