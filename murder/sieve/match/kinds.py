"""Match types: what a key says of a value (RFC 5228 §2.7.1), and those that extensions bring (RFC 5231, regex, RFC 6134)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final

from murder.sieve.match.comparators import Comparator
from murder.sieve.match.glob import WINDOW, Glob
from murder.sieve.match.regex import compile_regex

Values = list[str]  # what ${0}, ${1}, ... are
Test = Callable[[str, str], bool | Values]  # a folded value, and as it is
# of an instruction of a regular expression, beside a character that is compared
REGEX_WEIGHT: Final = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """A key. `weight`: what it costs to look at a character, where 1 is to compare it. `patterns`: how many regular
    expressions it is made of; `pieces`: of how many objects in memory."""

    test: Test
    weight: int = 1
    patterns: int = 0
    pieces: int = 1


class Over(Enum):
    """What a match type looks at."""

    EACH = 0  # value after value
    COUNT = 1  # how many there are
    LISTS = 2  # keys are names of external lists


OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": gt,
    "ge": ge,
    "lt": lt,
    "le": le,
    "eq": eq,
    "ne": ne,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """`:name`. `prepare` makes a test of a key; it raises ValueError for what is no key. `has_operator`: "gt" and its like
    stand behind it."""

    name: str
    prepare: Callable[[str, Comparator, str], Prepared]
    over: Over = Over.EACH
    has_operator: bool = False
    finds: bool = False  # it looks within values, which not every comparator can
    checks_keys: bool = False  # not every text is a key


def _is(key: str, comparator: Comparator, operator: str) -> Prepared:
    folded = comparator.fold(key)
    return Prepared(lambda value, _whole: value == folded)


def _contains(key: str, comparator: Comparator, operator: str) -> Prepared:
    folded = comparator.fold(key)

    def test(value: str, _whole: str) -> bool:
        if len(value) <= WINDOW:
            return folded in value
        step = max(WINDOW, len(folded))
        return any(
            value.find(folded, at, at + step + len(folded)) >= 0
            for at in range(0, len(value), step)
        )

    return Prepared(test)


def _matches(key: str, comparator: Comparator, operator: str) -> Prepared:
    glob = Glob(comparator.fold(key))

    def test(value: str, whole: str) -> bool | Values:
        spans = glob.spans(value)
        if spans is None:
            return False
        if len(value) != len(whole):
            return [whole, *(value[start:end] for start, end in spans)]
        return [whole, *(whole[start:end] for start, end in spans)]

    return Prepared(test, glob.weight, glob.patterns, glob.pieces)


def _regex(key: str, comparator: Comparator, operator: str) -> Prepared:
    pattern = compile_regex(key, comparator.name != "i;octet")

    def test(value: str, whole: str) -> bool | Values:
        groups = pattern.groups(whole)
        return False if groups is None else [group or "" for group in groups]

    return Prepared(test, 1 + REGEX_WEIGHT * pattern.weight, 1)


def _value(key: str, comparator: Comparator, operator: str) -> Prepared:
    compare, wanted = OPERATORS[operator], comparator.order(key)
    return Prepared(lambda _value, whole: compare(comparator.order(whole), wanted))


def _count(key: str, comparator: Comparator, operator: str) -> Prepared:
    return _value(key, comparator, operator)


IS: Final = Kind("is", _is)
CONTAINS: Final = Kind("contains", _contains, finds=True)
MATCHES: Final = Kind("matches", _matches, finds=True, checks_keys=True)
REGEX: Final = Kind("regex", _regex, finds=True, checks_keys=True)
VALUE: Final = Kind("value", _value, has_operator=True)
COUNT: Final = Kind("count", _count, over=Over.COUNT, has_operator=True)
LIST: Final = Kind("list", _is, over=Over.LISTS)
