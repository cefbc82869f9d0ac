"""Regular expressions in linear time, by RE2: foreign patterns on foreign texts (draft-ietf-sieve-regex).

POSIX extended expressions, as the draft has them, are all understood but for back references and collating elements,
which no linear engine has. What POSIX leaves open is as in Perl, and as in a Cyrus with PCRE: `\\d`, and a backslash within
brackets; `\\<` is that letter.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import re2

from murder.model.linear import clean, compile_linear

MAX_WEIGHT: Final = 10_000  # of one expression: some 5 ms to compile, 140 us for each character
WIDE: Final = 10  # weight of what matches any character, or any but some: UTF-8 has many
_UNIT: Final = re.compile(
    r"\\[pP](?:\{[^}]*+\}|.)|\\.|\[\^?+\]?+(?:[^\]\[]|\[:[a-z^]*+:\]|\[)*+\]?+|\{([0-9]*+)(,?)([0-9]*+)\}|.",
    re.DOTALL,
)
MAX_GROUPS: Final = 100
_COLLATING: Final = re.compile(r"\[([.=])[^\[\]]*?\1\]")
Groups = list[str | None]


def weight_of(expression: str) -> int:
    """About how many instructions it has, with its repetitions written out: a character of a text costs as many at worst."""
    open_groups = [0]  # weights of what is open, outermost first
    last = 0  # weight of what a repetition would repeat
    for match in _UNIT.finditer(expression):
        unit = match[0]
        if match[1] is not None and unit[0] == "{":
            times = int((match[3] or match[1] or "1")[:5]) + bool(match[2] and not match[3])
            open_groups[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
        elif unit == "(":
            open_groups.append(0)
        elif unit == ")" and len(open_groups) > 1:
            last = open_groups.pop() + 2
            open_groups[-1] += last
        else:
            is_wide = unit == "." or unit[:2] in ("[^", "\\W", "\\D", "\\S", "\\p", "\\P")
            last = WIDE if is_wide else 1
            if unit[:2] in ("\\p", "\\P"):
                last = WIDE * WIDE
            open_groups[-1] += last
        if open_groups[-1] > MAX_WEIGHT:
            break
    return sum(open_groups)


def _as_known(expression: str) -> str:
    """What RE2 reads otherwise than POSIX, in its words: `a{,3}`. Raises ValueError for what it has not."""
    units: list[str] = []
    for match in _UNIT.finditer(expression):
        unit = match[0]
        if unit[0] == "[" and _COLLATING.search(unit):
            raise ValueError("it has a collating element, or an equivalence class")
        is_open = match[1] == "" and match[2] and match[3] and units
        units.append("{0" + unit[1:] if is_open else unit)
    return "".join(units)


class Pattern:
    """A compiled expression. Places are of characters."""

    __slots__ = ("_compiled", "weight")

    def __init__(self, expression: str, *, is_case_blind: bool = False) -> None:
        """Raises ValueError, with what is wrong, for what is no expression or too large."""
        self.weight = weight_of(expression)
        if self.weight > MAX_WEIGHT:
            raise ValueError("it is too large")
        known = _as_known(expression)
        self._compiled = compile_linear(known, is_case_blind=is_case_blind)
        if self._compiled.groups > MAX_GROUPS:
            raise ValueError(f"it has more than {MAX_GROUPS} groups")

    def search(self, text: str, start: int, end: int) -> int | None:
        """Where it first matches in `[start, end)`."""
        match = self._compiled.search(clean(text[start:end]))
        return None if match is None else start + int(match.start())

    def stands(self, text: str, start: int, end: int) -> bool:
        """Whether it is all that is between those places."""
        return self._compiled.fullmatch(clean(text[start:end])) is not None

    def groups(self, text: str) -> Groups | None:
        """What it matches first, and its groups; None for one that takes no part."""
        match = self._compiled.search(clean(text))
        return None if match is None else [match.group(0), *match.groups()]


@lru_cache(maxsize=256)
def compile_regex(expression: str, is_case_blind: bool) -> Pattern:
    """Raises ValueError for what is no expression."""
    return Pattern(expression, is_case_blind=is_case_blind)


def compile_literal(tokens: Sequence[str | None]) -> Pattern:
    """These texts, with any one character where there is None. Raises ValueError where it is too large."""
    return Pattern("".join("." if token is None else re2.escape(token) for token in tokens))
