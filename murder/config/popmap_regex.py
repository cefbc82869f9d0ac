"""A table of expressions and servers, in the form of Perdition's popmap.re: `expression: [user@]server[:port]`.

The first that matches anywhere in a user's name decides; `$1` to `$9` are what its groups have matched. As Perdition reads
it: white space ends an expression, and a colon before that is not part of it; `#` begins a remark; a backslash makes the
next character plain (so two and a dot are a dot), and a line end nothing; what is in quotes is plain. POSIX extended
expressions, but for back references: names are foreign, and are looked at in linear time (RE2).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from murder.config.popmap import MOST_SHOWN, Place, parse_place
from murder.model.linear import clean, compile_linear

MOST_ROWS: Final = 1000  # each may be asked about every login: 1 to 5 us
MAX_EXPRESSION: Final = 1000  # characters
_GROUP: Final = re.compile(r"\$([1-9])")


@dataclass(frozen=True, slots=True)
class Row:
    """One line. `fixed` is where it leads, if that does not depend on the name."""

    compiled: Any  # of re2, which has no types
    substitution: str
    fixed: Place | None

    def place_of(self, user: str) -> Place | None:
        """None where it does not match. Raises ValueError where what comes out is no place."""
        matched = self.compiled.search(user)
        if matched is None or self.fixed is not None:
            return self.fixed if matched is not None else None
        groups = matched.groups()

        def put(match: re.Match[str]) -> str:
            number = int(match[1])
            return (groups[number - 1] or "") if number <= len(groups) else ""

        return parse_place(_GROUP.sub(put, self.substitution))


def read_popmap_regex(file: Path) -> tuple[Row, ...]:
    """Raises OSError, and ValueError with what is wrong in which lines."""
    try:
        return parse_popmap_regex(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: {error}") from None


def parse_popmap_regex(text: str) -> tuple[Row, ...]:
    """Raises ValueError."""
    rows: list[Row] = []
    wrong: list[str] = []
    for number, line in _lines(text):
        expression, substitution = _split(line)
        if not expression:
            continue
        try:
            rows.append(_row(expression, substitution))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
        if len(rows) > MOST_ROWS:
            raise ValueError(f"more than {MOST_ROWS} expressions: write a table of users instead")
    if wrong:
        more = f"; and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
        raise ValueError("; ".join(wrong[:MOST_SHOWN]) + more)
    return tuple(rows)


def first_place(rows: Sequence[Row], user: str) -> tuple[Place, bool] | None:
    """Where the first that matches leads, and whether that is written there as it is. Raises ValueError."""
    name = clean(user)
    for row in rows:
        place = row.place_of(name)
        if place is not None:
            return place, row.fixed is not None
    return None


def _row(expression: str, substitution: str) -> Row:
    if not substitution:
        raise ValueError("write `expression: server`")
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"an expression has {MAX_EXPRESSION} characters at most")
    try:
        compiled = compile_linear(expression)
    except ValueError as error:
        raise ValueError(f"{expression!r} is no expression: {error}") from None
    highest = max((int(number) for number in _GROUP.findall(substitution)), default=0)
    if highest > compiled.groups:
        raise ValueError(f"${highest}, but {expression!r} has {compiled.groups} groups")
    fixed = None if highest else parse_place(substitution)
    return Row(compiled, substitution, fixed)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Those that go on behind a `\\\\` as one, with the number of the first."""
    begun, number = "", 0
    for at, line in enumerate(text.splitlines(), 1):
        number = number or at
        behind = len(line) - len(line.rstrip("\\"))
        if behind % 2:
            begun += line[:-1]
            continue
        yield number, begun + line
        begun, number = "", 0
    if begun:
        yield number, begun


def _split(line: str) -> tuple[str, str]:
    """The expression, and what is behind it, both without quotes and remarks."""
    words: list[str] = [""]
    is_word, at, quote = False, 0, ""
    plain_colon = False
    while at < len(line):
        letter = line[at]
        at += 1
        is_plain = bool(quote) and letter != quote
        if not is_plain:
            if letter == quote:
                quote = ""
                continue
            if letter in "'\"":
                quote, is_word = letter, True
                continue
            if letter == "#":
                break
            if letter.isspace():
                if is_word:
                    words.append("")
                is_word = False
                continue
            if letter == "\\" and at < len(line):
                letter, is_plain = line[at], True
                at += 1
        words[-1] += letter
        is_word = True
        if len(words) == 1:
            plain_colon = letter == ":" and not is_plain
    expression = words[0][:-1] if plain_colon else words[0]
    return expression, "".join(words[1:])
