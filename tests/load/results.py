"""A benchmark's table in the manual: between two marks, written by the benchmark itself, with what it was measured on."""

import os
import platform
import re
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).parent.parent.parent
PAGE: Final = TOP / "murder" / "admin" / "manual" / "costs.md"
README: Final = TOP / "README.md"
IN_SHORT: Final = {  # what the README shows of which benchmark's row
    "CPU µs of a proxy for a NOOP": ("frontend", "CPU us, NOOP, 10 sessions"),
    "… for LOGIN, SELECT, LOGOUT before Cyrus backends": (
        "frontend",
        "CPU us, LOGIN+SELECT+LOGOUT, before Cyrus",
    ),
    "KiB of an idle session with TLS": ("frontend", "KiB PSS per idle session, TLS"),
    "mixed commands per CPU second, proxy and backend": (
        "backend",
        "mixed through a frontend, commands per CPU second",
    ),
    "durable changes of the list a second, 8 connections": (
        "mupdate",
        "ACTIVATE/s, 8 connections",
    ),
}
WAYS: Final = "Each row in one run, written by `build.py bench`; all of it: [costs](murder/admin/manual/costs.md)."
COLUMNS: Final = ("ours", "nginx", "dovecot", "cyrus")
VERSIONS: Final = {
    "nginx": ("nginx", "-v"),
    "dovecot": ("dovecot", "--version"),
    "cyrus": ("dpkg-query", "-f", "${Version}", "-W", "cyrus-imapd"),
}

Rows = Mapping[str, Mapping[str, float]]  # row → who → figure


def write(
    name: str,
    rows: Rows,
    who: Sequence[str],
    method: str,
    file: Path = PAGE,
    *,
    base: str = "nginx",
) -> None:
    """In place of what the last run wrote; beside each figure how many times that of `base` it is. Raises ValueError where
    the page has no place for this benchmark."""
    _replace(file, f"bench {name}", told(rows, who, method, base))
    if file == PAGE:
        _replace(README, "costs", in_short(PAGE.read_text(encoding="utf-8")))


def in_short(page: str) -> str:
    """The README's table, of what stands in the page; on what and when the frontend's were measured."""
    lines = ["| | murder | nginx | Dovecot | Cyrus |", "|---|--:|--:|--:|--:|"]
    for title, (bench, row) in IN_SHORT.items():
        figures = _figures(_part(page, f"bench {bench}")[1], row)
        lines.append(f"| {title} | {' | '.join(figures.get(who, '–') for who in COLUMNS)} |")
    about = " ".join(_part(page, "bench frontend")[1].partition("\n\n")[2].split())
    machine = about.partition(";")[0]
    return "\n".join(
        [*lines, "", *textwrap.wrap(f"{machine}. {WAYS}", 120, break_on_hyphens=False), ""]
    )


def _figures(table: str, row: str) -> Mapping[str, str]:
    """Of one row of a written table, by column, without the ratios. Empty where it has no such row."""
    cells = [
        [cell.strip().partition(" (")[0] for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    if not cells:
        return {}
    return next(
        (
            dict(zip(cells[0][1:], figures, strict=True))
            for title, *figures in cells
            if title == row
        ),
        {},
    )


def _part(text: str, name: str) -> tuple[str, str, str]:
    """Before, between and behind two marks, which go with what is beside them. Raises ValueError where they are missing."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, mark, rest = text.partition(begin)
    between, closing, after = rest.partition(end)
    if not mark or not closing:
        raise ValueError(f"no {begin.strip()} … {end}")
    return before + begin, between, end + after


def _replace(file: Path, name: str, between: str) -> None:
    before, _, after = _part(file.read_text(encoding="utf-8"), name)
    file.write_text(before + between + after, encoding="utf-8")


def told(rows: Rows, who: Sequence[str], method: str, base: str = "nginx") -> str:
    """The table, and a line about the run."""
    seen = [one for one in who if any(one in figures for figures in rows.values())]
    lines = [f"| | {' | '.join(seen)} |", f"|---|{'--:|' * len(seen)}"]
    for row, figures in rows.items():
        lines.append(f"| {row} | {' | '.join(_cell(figures, one, base) for one in seen)} |")
    versions = [f"{one} {_version(one)}" for one in seen if one in VERSIONS]
    today = datetime.now(UTC).date().isoformat()
    machine = f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}"
    load = f"load {os.getloadavg()[1]:.1f}"
    about = f"{'; '.join([f'{today}, {machine}, {load}', *([', '.join(versions)] if versions else [])])}. {method}"
    return "\n".join([*lines, "", *textwrap.wrap(about, 120), ""])


def _cell(figures: Mapping[str, float], one: str, base: str) -> str:
    """A figure, and how many times that of the base it is."""
    if one not in figures:
        return "–"
    is_small = figures[one] < 10 and figures[one] != int(figures[one])
    figure = f"{figures[one]:,.2f}" if is_small else f"{figures[one]:,.0f}"
    least = figures.get(base)
    return f"{figure} ({figures[one] / least:.2f} ×)" if least and one != base else figure


def _version(name: str) -> str:
    try:
        done = subprocess.run(VERSIONS[name], capture_output=True, text=True, check=False)
    except OSError:
        return "of the lab"
    found = re.search(r"\d+\.\d+(?:\.\d+)*", done.stdout + done.stderr)
    return found.group() if found else "of the lab"


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found.group(1).strip() if found else platform.machine()
