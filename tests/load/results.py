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

PAGE: Final = Path(__file__).parent.parent.parent / "murder" / "admin" / "manual" / "costs.md"
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
    begin, end = f"<!-- bench {name} -->\n", f"<!-- end of bench {name} -->"
    before, mark, rest = file.read_text(encoding="utf-8").partition(begin)
    _, closing, after = rest.partition(end)
    if not mark or not closing:
        raise ValueError(f"{file.name} has no {begin.strip()} … {end}")
    file.write_text(before + begin + told(rows, who, method, base) + end + after, encoding="utf-8")


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
