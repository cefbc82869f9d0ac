"""Flags: one spelling each."""

import pytest

from murder.model.flag import canonical, has_flag, in_order


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("\\seen", "\\Seen"),
        ("\\DELETED", "\\Deleted"),
        ("\\Recent", "\\Recent"),
        ("$Junk", "$Junk"),
        ("\\Nonsense", None),
        ("\\", None),
    ],
)
def test_a_flag_has_one_spelling(given: str, kept: str | None) -> None:
    assert canonical(given) == kept


def test_flags_are_compared_without_case() -> None:
    assert has_flag(frozenset({"$Junk"}), "$junk")
    assert not has_flag(frozenset({"$Junk"}), "$NotJunk")


def test_the_same_flags_look_the_same() -> None:
    assert in_order({"b", "\\Seen", "a", "\\Answered"}) == ["\\Answered", "\\Seen", "a", "b"]
