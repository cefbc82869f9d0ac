"""Every regular expression of the code takes a number of steps that is linear in what it looks at, whatever that is.

The octets come from a peer or from mail, so a pattern that is quadratic stops a node (60 kB of `;` in a Content-Type did).
The matcher of `tests.kit.steps` counts; a pattern that `search`, `finditer`, `sub` or `split` use is tried from every place.
"""

import importlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.steps import Counted, TooManySteps, interesting, literal_head

ROOT = Path(__file__).parent.parent
DEFINED = re.compile(r"^([A-Za-z_]+)(?:: Final)? = re\.compile\(", re.MULTILINE)
FROM_ALL_PLACES = "search finditer findall sub split".split()
# What no peer can choose: a site's template, our own journal
NOT_FOREIGN: frozenset[str] = frozenset()
FEW = 6  # octets of a pattern that are put together in all ways
BOUND = 2.5
FAR_TOO_MANY = 10**9
LENGTH = 12  # of the repeated piece, and its double


def patterns() -> Iterator[tuple[str, "re.Pattern[Any]", bool]]:
    """Each compiled pattern with its name, and whether it is tried from every place."""
    for path in sorted((*ROOT.glob("murder/**/*.py"), *ROOT.glob("plugins/**/*.py"))):
        source = path.read_text()
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in DEFINED.findall(source):
            pattern = getattr(importlib.import_module(module), name)
            used = [method for method in FROM_ALL_PLACES if f"{name}.{method}(" in source]
            passed = len(re.findall(rf"\b{name}\b(?!\.| *:|\s*=)", source)) > 0
            yield f"{module}.{name}", pattern, bool(used) or passed


FOUND = [one for one in patterns() if one[0] not in NOT_FOREIGN]


def inputs(pattern: "re.Pattern[Any]", times: int) -> Iterator[bytes]:
    """A beginning, a piece again and again, an end that does not fit."""
    chosen = interesting(pattern)[:FEW]
    chosen += [octet for octet in b" a;\x00" if octet not in chosen][:2]
    pieces = [bytes([octet]) for octet in chosen if octet < 256]
    pieces += [a + b for a, b in itertools.permutations(pieces[:3], 2)]
    head = literal_head(pattern)
    for begin in dict.fromkeys((b"", head, b"".join(pieces[:1]), b"".join(pieces[:3]))):
        for piece in (*pieces, *([head] if len(head) > 1 else [])):
            for end in (b"", b"\x00"):
                yield begin + piece * times + end


def steps(pattern: "re.Pattern[Any]", octets: bytes, everywhere: bool) -> int:
    counted = Counted(pattern)
    text = octets if isinstance(pattern.pattern, bytes) else octets.decode("latin-1")
    try:
        if everywhere:
            counted.search_all(text)
        else:
            counted.match(text)
    except TooManySteps:
        return FAR_TOO_MANY
    return counted.steps


def worst_growth(pattern: "re.Pattern[Any]", everywhere: bool) -> tuple[float, bytes]:
    """How many times the steps of twice the octets are those of once; and for which."""
    worst = (0.0, b"")
    sizes = [inputs(pattern, times * LENGTH) for times in (1, 2, 4, 8)]
    for once, twice, four, eight in zip(*sizes, strict=True):
        few, many = steps(pattern, once, everywhere), steps(pattern, twice, everywhere)
        if many > 40 and many / few >= BOUND:  # or it was small, or a `{1,14}` has just filled
            few, many = steps(pattern, four, everywhere), steps(pattern, eight, everywhere)
        if many == FAR_TOO_MANY:
            return float("inf"), twice
        if many > 40:
            worst = max(worst, (many / few, twice))
    return worst


@pytest.mark.parametrize(("name", "pattern", "everywhere"), FOUND, ids=[one[0] for one in FOUND])
def test_twice_the_octets_are_about_twice_the_steps(
    name: str, pattern: "re.Pattern[Any]", everywhere: bool
) -> None:
    growth, octets = worst_growth(pattern, everywhere)
    assert growth < BOUND, octets


def test_what_is_not_linear_is_found() -> None:
    for source in (rb"[ \t;]*([^ \t;=]+)=", rb"[ \t]+(?=\r?\n)", rb"(a|aa)+b", rb"a*a*b"):
        assert worst_growth(re.compile(source), True)[0] >= BOUND, source


def test_patterns_are_found() -> None:
    names = {name for name, _, _ in FOUND}
    assert len(names) > 50
    assert {"murder.mime.field._PARAMETER", "murder.mime.decode._TRAILING_SPACE"} <= names
