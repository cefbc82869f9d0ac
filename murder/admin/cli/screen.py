"""What a terminal shows: tables that fit it, and colour where it means something (never in a pipe, nor with NO_COLOR)."""

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Collection, Sequence
from typing import Final, TextIO

from murder.admin.operate.wording import count as count
from murder.admin.operate.wording import octets as octets
from murder.admin.operate.wording import plain as plain
from murder.admin.operate.wording import seconds as seconds

GOOD, BAD, CAUTION, DIM, HEAD = "32", "1;31", "33", "2", "1"
GAP: Final = "  "
LEAST: Final = 8  # a column is made no narrower


class Painted(str):
    """A cell with a colour."""

    __slots__ = ("colour",)
    colour: str

    def __new__(cls, text: str, colour: str) -> "Painted":
        made = super().__new__(cls, text)
        made.colour = colour
        return made


def has_colour(stream: TextIO) -> bool:
    """https://no-color.org"""
    return (
        stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") != "dumb"
    )


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text, coloured if `stream` (standard output) shows colours."""
    return f"\x1b[{colour}m{text}\x1b[0m" if text and has_colour(stream or sys.stdout) else text


def columns() -> int:
    """How wide the terminal is."""
    return shutil.get_terminal_size((80, 24)).columns


def width_of(text: str) -> int:
    """Cells that a text takes: 2 for wide characters, none for those that combine."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def cut(text: str, width: int) -> str:
    """The text in so many cells, with … where something is missing."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) >= width:
        text = text[:-1]
    return text + "…"


def first_labels(texts: Collection[str]) -> dict[str, str]:
    """Host names without their domain, where that leaves them different; else as they are."""
    short = {text: text.split(".")[0] for text in texts}
    if len(set(short.values())) < len(short) or any(text[:1].isdigit() for text in texts):
        return {text: text for text in texts}
    return short


class Table:
    """Columns as wide as their content, made to fit: hosts lose their domain, `spare` columns go, the widest is cut."""

    def __init__(
        self,
        heads: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Collection[str] = (),
        hosts: Collection[str] = (),
        spare: Sequence[str] = (),
    ) -> None:
        self._heads = list(heads)
        self._cells = [[_clean(cell) for cell in row] for row in rows]
        self._right = right
        self._hosts = hosts
        self._spare = list(spare)

    def lines(self, width: int) -> list[str]:
        """For a terminal of that width: heads, then rows."""
        if self._total() > width:
            self._shorten_hosts()
        while self._total() > width and self._spare:
            self._drop(self._spare.pop())
        widths = self._widths()
        while (excess := self._total(widths) - width) > 0:
            at = max(
                (at for at, head in enumerate(self._heads) if head not in self._right),
                key=lambda at: widths[at],
                default=None,
            )
            if at is None or widths[at] <= LEAST:
                break
            others = sorted(widths, reverse=True)[1:2] or [LEAST]
            widths[at] = max(LEAST, widths[at] - excess, min(others[0], widths[at] - 1))
        heads = [paint(text, HEAD) for text in self._row(self._heads, widths)]
        rendered = [GAP.join(heads).rstrip()]
        for row in self._cells:
            texts = self._row(row, widths)
            colours = [cell.colour if isinstance(cell, Painted) else "" for cell in row]
            cells = [
                paint(text, colour) if colour else text
                for text, colour in zip(texts, colours, strict=True)
            ]
            rendered.append(GAP.join(cells).rstrip())
        return rendered

    def bare(self) -> list[str]:
        """For a program: no heads, nothing cut."""
        widths = [max(map(width_of, cells)) for cells in zip(*self._cells, strict=True)]
        return [
            GAP.join(
                cell + " " * (width - width_of(cell))
                for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in self._cells
        ]

    def _widths(self) -> list[int]:
        return [max(map(width_of, cells)) for cells in zip(self._heads, *self._cells, strict=True)]

    def _total(self, widths: Sequence[int] | None = None) -> int:
        widths = self._widths() if widths is None else widths
        return sum(widths) + len(GAP) * (len(widths) - 1)

    def _shorten_hosts(self) -> None:
        places = [at for at, head in enumerate(self._heads) if head in self._hosts]
        short = first_labels({str(row[at]) for row in self._cells for at in places})
        for row in self._cells:
            for at in places:
                cell = row[at]
                text = short[str(cell)]
                row[at] = Painted(text, cell.colour) if isinstance(cell, Painted) else text

    def _drop(self, head: str) -> None:
        if head in self._heads:
            at = self._heads.index(head)
            for row in (self._heads, *self._cells):
                del row[at]

    def _row(self, row: Sequence[str], widths: Sequence[int]) -> list[str]:
        cells = []
        for head, cell, width in zip(self._heads, row, widths, strict=True):
            text = cut(cell, width)
            room = " " * (width - width_of(text))
            cells.append(room + text if head in self._right else text + room)
        return cells


def _clean(cell: str) -> str:
    return Painted(plain(cell), cell.colour) if isinstance(cell, Painted) else plain(cell)


def finding(mark: str, colour: str, what: str, cure: str, width: int) -> list[str]:
    """A finding: its mark, what it is, and behind an arrow what to do; folded at `width` (0: not at all)."""
    margin = " " * (len(mark) + 1)
    lines = [f"{paint(mark, colour)} {line}" if at == 0 else margin + line
             for at, line in enumerate(_folded(plain(what), width - len(margin)))]  # fmt: skip
    for at, line in enumerate(_folded(plain(cure), width - len(margin) - 3)):
        lines.append(margin + ("-> " if at == 0 else "   ") + line)
    return lines


def _folded(text: str, width: int) -> list[str]:
    return (
        textwrap.wrap(text, width, break_on_hyphens=False) if width > LEAST else [text] * bool(text)
    )
