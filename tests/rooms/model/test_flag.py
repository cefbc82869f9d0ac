"""Flags: one spelling each."""

import pytest

from murder.model.flag import (
    MAX_KEYWORDS_OF_MESSAGE,
    canonical,
    fits_message,
    fitting,
    has_flag,
    in_order,
    is_keyword,
)


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


@pytest.mark.parametrize("octets", [3, 250])
def test_what_a_message_may_have_of_many_flags_can_be_set(octets: int) -> None:
    flags = {f"{number:0{octets}}" for number in range(2 * MAX_KEYWORDS_OF_MESSAGE)}
    fits = fitting({*flags, "\\Seen"})
    assert fits[0] == "\\Seen" and fits[1:] == sorted(flags)[: len(fits) - 1]
    assert fits_message([flag for flag in fits if is_keyword(flag)])
    assert not fits_message(sorted(flags)[: len(fits)])
    assert fitting(["new", "\\Seen"], sorted(flags)) == ["\\Seen"]
