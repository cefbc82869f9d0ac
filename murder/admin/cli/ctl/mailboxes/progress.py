"""Moves as they go: bars on a terminal, a line for each end otherwise."""

import sys
import time
from collections.abc import Sequence
from typing import Final

import asyncclick as click

from murder.admin.cli.screen import (
    BAD,
    DIM,
    GOOD,
    columns,
    count,
    cut,
    octets,
    paint,
    plain,
    seconds,
)
from murder.admin.operate.moves import Planned
from murder.admin.operate.reach import Reach

BAR: Final = 20
NAME: Final = 30  # most cells of a name
MOST_LINES: Final = 12
DRAW_EVERY_S: Final = 0.1
KNOWN_S: Final = 1.0
OVER: Final = ("done", "failed")


class Screen:
    """What is being moved, how far it is, at what rate, and when all will be over."""

    def __init__(self, reach: Reach, planned: Sequence[Planned], *, quiet: bool) -> None:
        self._reach = reach
        self._planned = planned
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._drawn = 0
        self._drawn_at = 0.0
        self._began = time.monotonic()
        self._begun: dict[bytes, float] = {}
        self._told: dict[bytes, str] = {}  # why each waits, as it was last said

    def tell(self, each: Planned) -> None:
        """One has gone on, or is over."""
        if self._quiet:
            return
        now = time.monotonic()
        self._begun.setdefault(each.root, now)
        if not self._live:
            if each.state in OVER:
                click.echo(self._ended(each), err=True)
            elif each.problem and each.problem != self._told.get(each.root):
                self._told[each.root] = each.problem
                click.echo(
                    f"{plain(self._reach.shown(each.root))}: waits: {each.problem}", err=True
                )
        elif now - self._drawn_at >= DRAW_EVERY_S or each.state in OVER:
            self._drawn_at = now
            self._draw()

    def _ended(self, each: Planned) -> str:
        name = plain(self._reach.shown(each.root))
        if each.state == "failed":
            return f"{name}: failed: {each.problem}"
        copied = f"{count(each.messages, 'message')}, {octets(each.octets)} copied"
        return f"{name}: now at {each.target} ({copied})"

    def _draw(self) -> None:
        width = columns() - 1
        over = [move for move in self._planned if move.state in OVER]
        active = [move for move in self._planned if move.state not in (*OVER, "waiting")]
        names = max((len(self._reach.shown(move.root)) for move in active), default=0)
        lines = [self._line(move, min(names, NAME), width) for move in active[:MOST_LINES]]
        if len(active) > MOST_LINES:
            lines.append(paint(f"… and {len(active) - MOST_LINES} more", DIM, sys.stderr))
        lines.append(self._sum(over, width))
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        sys.stderr.write(up + "".join(f"\x1b[K{line}\n" for line in lines) + "\x1b[J")
        sys.stderr.flush()
        self._drawn = len(lines)

    def _sum(self, over: Sequence[Planned], width: int) -> str:
        carried = sum(move.octets for move in self._planned)
        passed = max(time.monotonic() - self._began, 0.001)
        failed = sum(move.state == "failed" for move in over)
        parts = [f"{len(over) - failed} of {len(self._planned)} moved"]
        parts += [f"{failed} failed"] if failed else []
        parts += [octets(carried), f"{octets(carried / passed)}/s"]
        done = sum(1.0 if move.state in OVER else part_of(move) for move in self._planned)
        if 0 < done < len(self._planned) and passed >= KNOWN_S:
            parts.append(f"about {seconds(passed / done * (len(self._planned) - done))} left")
        elif done:
            parts.append(seconds(passed))
        return paint(cut(", ".join(parts), width), BAD if failed else "1", sys.stderr)

    def _line(self, planned: Planned, names: int, width: int) -> str:
        part = part_of(planned)
        passed = max(time.monotonic() - self._begun.get(planned.root, self._began), 0.001)
        is_known = passed >= KNOWN_S  # before, a rate would be made up
        left = f"{seconds(passed / part * (1 - part))} left" if is_known and 0 < part < 1 else ""
        rate = f"{octets(planned.octets / passed)}/s" if is_known else ""
        tail = f" {100 * part:3.0f} %  {octets(planned.octets):>9}  {rate:>11}  "
        tail += left if planned.state == "copying" and left else planned.state
        if planned.problem:
            tail = f" waits: {planned.problem}"
        name = cut(plain(self._reach.shown(planned.root)), names).ljust(names)
        room = min(BAR, width - names - len(tail) - 1)
        if room < 4:
            return cut(f"{name} {tail}", width)
        filled = round(room * part)
        bar = paint("━" * filled, GOOD, sys.stderr) + paint("─" * (room - filled), DIM, sys.stderr)
        return f"{name} {bar}{tail}"

    def end(self) -> None:
        """The last picture."""
        if self._live:
            self._draw()


def part_of(move: Planned) -> float:
    """How much of it is there, from 0 to 1."""
    return min(1.0, move.messages / move.total) if move.total else 0.0
