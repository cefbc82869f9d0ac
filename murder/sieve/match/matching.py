"""A test's match type, comparator and keys together, and what they say of values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from murder.sieve.match.comparators import Comparator
from murder.sieve.match.kinds import IS, Kind, Test, Values

# characters compared, about a millisecond: beyond, it is no work for between two turns
LONG: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Matching:
    """`tests` where all keys are known before the run, in order; `equal` their folded forms where that is all there is to
    ask."""

    kind: Kind
    comparator: Comparator
    operator: str = ""
    tests: tuple[Test, ...] | None = None
    equal: frozenset[str] | None = None
    weight: int = 1  # of all keys
    patterns: int = 0  # regular expressions that they are made of
    pieces: int = 0  # objects in memory that they are made of

    def prepared(self, keys: Iterable[str]) -> "Matching":
        """With these keys. Raises ValueError for what is none."""
        if self.kind is IS:
            fold = self.comparator.fold
            equal = frozenset(fold(key) for key in keys)
            return Matching(self.kind, self.comparator, self.operator, (), equal)
        known = [self.kind.prepare(key, self.comparator, self.operator) for key in keys]
        return Matching(
            self.kind,
            self.comparator,
            self.operator,
            tuple(pattern.test for pattern in known),
            weight=sum(pattern.weight for pattern in known),
            patterns=sum(pattern.patterns for pattern in known),
            pieces=sum(pattern.pieces for pattern in known),
        )

    def together(self, others: Iterable["Matching"]) -> "Matching":
        """With the keys of all of these, which are prepared."""
        known = list(others)
        return Matching(
            self.kind,
            self.comparator,
            self.operator,
            tuple(test for matcher in known for test in matcher.tests or ()),
            weight=sum(matcher.weight for matcher in known),
            patterns=sum(matcher.patterns for matcher in known),
            pieces=sum(matcher.pieces for matcher in known),
        )

    def first(self, values: Sequence[str]) -> bool | Values:
        """Whether a value has a key; where that has match values, these."""
        fold = self.comparator.fold
        if self.equal is not None:
            equal = self.equal
            return any(fold(value) in equal for value in values)
        for value in values:
            folded = fold(value)
            for test in self.tests or ():
                if result := test(folded, value):
                    return result
        return False

    def work(self, values: Sequence[str]) -> int:
        """Characters that are compared, about."""
        return (sum(map(len, values)) + 16 * len(values)) * max(1, self.weight)
