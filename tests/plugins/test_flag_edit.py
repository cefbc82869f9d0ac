"""What a STORE asks for, on the flags of one message (murder.kit.flags)."""

import pytest

from murder.api import FlagChange
from murder.kit.flags import FlagEdit
from tests.kit.steps import lines_run


@pytest.mark.parametrize(
    ("change", "keywords", "before", "after"),
    [
        (FlagChange.ADD, ["b"], "a", "a b"),
        (FlagChange.ADD, ["a"], "a", "a"),
        (FlagChange.ADD, [], "b a", "b a"),
        (FlagChange.REMOVE, ["a"], "a b", "b"),
        (FlagChange.REMOVE, [], "b a", "b a"),
        (FlagChange.REPLACE, ["c"], "a b", "c"),
        (FlagChange.REPLACE, [], "a b", ""),
    ],
)
def test_keywords(change: FlagChange, keywords: list[str], before: str, after: str) -> None:
    """Where no keyword is asked for, those there are stay as they are."""
    assert FlagEdit(change, 1, keywords).keywords(before) == after


def test_a_store_of_system_flags_does_not_sort_keywords() -> None:
    """It is looked at for each message: these were 6 lines."""
    assert lines_run(FlagEdit(FlagChange.ADD, 1, []).keywords, "a b") == 2
