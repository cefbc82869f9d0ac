"""`build.py attack`: strangers do their worst to a demo while others, who are logged in, say NOOP.

A row is `ok` where the longest NOOP took 200 ms at most, by the clock, or else 50 ms of CPU of the node's (`cpu`: other
programs had the machine), the node grew by 64 MiB at most, and all its processes are the same behind it. What is a MISS
is tried once more: the better of two counts. The exit code is 1 where a row is left.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.attacks.ground import FORK, Ground
from tests.attacks.rows import Row
from tests.attacks.table import ROWS
from tests.attacks.watching import (
    MIB,
    Bystander,
    Wait,
    beside,
    memory_of,
    processes_of,
)
from tests.kit.demo import Demo, running_demo
from tests.kit.process import ROOT
from tests.kit.waiting import pause

WAIT_S: Final = 0.2
CPU_S: Final = 0.05
GROWTH: Final = 64 * MIB
SETTLE_S: Final = 0.3
GRACE_S: Final = 5.0  # that the stranger is given to end by themselves
BAD_EVENTS: Final = ("worker.died", "worker.stuck", "role.failed", "server.failed")


@dataclass
class Outcome:
    """What others felt of a row."""

    row: str
    waits: list[Wait]
    grown: dict[str, int]  # octets, by node
    killed: list[str]
    entered: int  # how often the stranger got in; 0 proves nothing

    @property
    def worst(self) -> Wait:
        """The one that is furthest from what is let pass."""
        return max(self.waits, key=lambda wait: (wait_is_long(wait), wait.seconds), default=Wait())

    @property
    def faults(self) -> list[str]:
        found = [f"{wait.lost}" for wait in self.waits if wait.lost]
        if wait_is_long(self.worst):
            found.append("others wait")
        if max(self.grown.values()) > GROWTH:
            found.append("memory")
        if not self.entered:
            found.append("the stranger never got in")
        return found + self.killed

    @property
    def verdict(self) -> str:
        if self.faults:
            return "MISS"
        return "ok" if self.worst.seconds <= WAIT_S else "ok cpu"

    def line(self) -> str:
        by_node = " ".join(f"{wait.where} {wait.seconds * 1000:.0f}" for wait in self.waits)
        node, octets = max(self.grown.items(), key=lambda item: item[1])
        return (
            f"{self.row:<58} {self.verdict:<6} {self.worst.seconds * 1000:6.0f} {self.worst.cpu_s * 1000:6.0f} "
            f"{octets / MIB:+6.1f} {node:<2} {self.entered:5}  [{by_node}] {'; '.join(self.faults)}"
        ).rstrip()


HEAD: Final = f"{'row':<58} {'':<6} {'ms':>6} {'CPU ms':>6} {'MiB':>6}    {'in':>5}"


def wait_is_long(wait: Wait) -> bool:
    return wait.seconds > WAIT_S and wait.cpu_s > CPU_S


class Field:
    """A demo, and all that is watched of it."""

    def __init__(self, demo: Demo, *, is_unified: bool) -> None:
        info = demo.info
        names = {"fe": info["frontends"][0], "be": demo.home(1), "mu": info["mupdate"]}
        self.nodes = {"fe": names["fe"]} if is_unified else names
        home = demo.home(1)["node"]
        others = (n for n in range(5, int(info["users"]) + 1) if demo.home(n)["node"] == home)
        self.others = demo.user(next(others))
        self.password = demo.password
        self.ground = Ground(names, demo.folder, demo.user(1), demo.password)
        self.logs = [demo.folder / node["node"] / "log" for node in self.nodes.values()]

    def run(self, row: Row, seconds: float) -> Outcome:
        if row.prepare is not None:
            row.prepare(self.ground)
        pids = {name: processes_of(node["pid"]) for name, node in self.nodes.items()}
        before = {name: memory_of(some) for name, some in pids.items()}
        most = dict(before)
        said = self._bad_events()
        self.ground.entered.value = 0
        workers = {name: workers_of(some) for name, some in pids.items()}

        def attack() -> None:
            end = time.monotonic() + seconds
            process = FORK.Process(target=stranger, args=(row, self.ground, end), daemon=True)
            process.start()
            while process.is_alive() and time.monotonic() < end + GRACE_S:
                process.join(0.05)
                for name, some in pids.items():
                    most[name] = max(most[name], memory_of(some))
            process.kill()
            process.join()
            pause(SETTLE_S, "what the stranger has left behind is done")

        waits = beside(self._bystanders(pids), attack)
        killed = [
            f"{name}: {len(gone)} processes ended"
            for name, some in workers.items()
            if (gone := [pid for pid in some if not Path(f"/proc/{pid}").exists()])
        ]
        if more := self._bad_events() - said:
            killed.append(f"{more} bad events in the logs")
        grown = {name: most[name] - before[name] for name in pids}
        return Outcome(row.name, waits, grown, killed, self.ground.entered.value)

    def _bystanders(self, pids: dict[str, list[int]]) -> list[Bystander]:
        answering = {"fe": [*pids["fe"], *pids.get("be", [])]}
        return [
            Bystander(name, node, self.others, self.password, answering.get(name, pids[name]))
            for name, node in self.nodes.items()
        ]

    def _bad_events(self) -> int:
        texts = [log.read_text(errors="replace") for log in self.logs]
        return sum(text.count(f" {event} ") for text in texts for event in BAD_EVENTS)


def workers_of(pids: list[int]) -> list[int]:
    """The node itself, and its workers; what else it starts for a moment may end."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
    return [pid for pid, line in lines.items() if b"\0serve\0" in line]


def stranger(row: Row, ground: Ground, end: float) -> None:
    """A process's whole life."""
    os.setpgid(0, 0)
    ground.again(end, lambda: row.attack(ground, end))


def chosen(words: str) -> list[Row]:
    """Those whose names have all words of one of the groups: `imap read, lmtp`."""
    groups = [set(words_of(group)) for group in words.split(",")]
    return [row for row in ROWS if any(group <= set(words_of(row.name)) for group in groups)]


def words_of(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text)


def attempts(
    field_: Field, rows: list[Row], seconds: float, tell: Callable[[str], None]
) -> Iterator[Outcome]:
    for number, row in enumerate(rows):
        field_.ground.source = f"127.0.{1 + number // 250}.{1 + number % 250}"
        outcome = field_.run(row, seconds)
        if outcome.faults:
            tell(outcome.line() + "  (once more)")
            outcome = min((outcome, field_.run(row, seconds)), key=lambda each: len(each.faults))
        tell(outcome.line())
        yield outcome


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="build.py attack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rows", default="", help="words of their names; groups with commas")
    parser.add_argument("--unified", action="store_true", help="one node that is everything")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row")
    parser.add_argument("--out", type=Path, help="the table as a file, too")
    parser.add_argument("--list", action="store_true", help="only the rows' names")
    given = parser.parse_args()
    rows = chosen(given.rows)
    if given.list or not rows:
        print("\n".join(row.name for row in rows) or f"no row has these words: {given.rows}")
        sys.exit(0 if rows else 2)
    os.environ.setdefault("MURDER_ARCHIVE", str(ROOT / "dist" / "murder.pyz"))
    shape = ["--unified", "1"] if given.unified else ["--backends", "2"]
    options = [*shape, "--users", "20", "--workers", str(given.workers), "--no-tls-required"]
    lines = [f"{given.workers} workers, load {os.getloadavg()[0]:.1f} at the start", HEAD]

    def tell(line: str) -> None:
        print(line, flush=True)

    with tempfile.TemporaryDirectory(prefix="murder-attack-") as name:
        folder = Path(name) / "demo"
        with running_demo(*options, folder=folder) as demo:
            field_ = Field(demo, is_unified=given.unified)
            tell("\n".join(lines))
            outcomes = list(attempts(field_, rows, given.seconds, tell))
    missed = [outcome for outcome in outcomes if outcome.faults]
    lines += [outcome.line() for outcome in outcomes]
    lines.append(
        f"{len(outcomes)} rows, {len(missed)} missed; load {os.getloadavg()[0]:.1f} at the end"
    )
    if given.out:
        given.out.write_text("\n".join(lines) + "\n")
    print("\n".join(outcome.line() for outcome in missed))
    print(lines[-1])
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
