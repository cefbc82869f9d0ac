"""A large user moves to another backend while they work, beside Cyrus' XFER of the same: `build.py bench move [--quick]`,
`--only ours` (or `cyrus`) for one of the two.

First a small user moves (a twentieth), then the large one: memory must be the same. Meanwhile a client of theirs reads and
writes through a frontend, and other users of both backends go on with NOOP and FETCH. Then everything is compared, octet
by octet. Between our backends all goes over TLS with certificates; Cyrus' lab speaks plain text.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.kit.waiting import pause
from tests.load import results
from tests.load.large_user import (
    Bystander,
    Imap,
    Refused,
    Seen,
    Worker,
    beside,
    faults,
    fill,
    look,
)
from tests.load.our_murder import Murder, clients_at, following, listening_at, upstream
from tests.load.processes import cpu_s, pss_kib

PROJECT = Path(__file__).parent.parent.parent

LAB: Final = PROJECT / "tests" / "cyrus" / "lab.sh"
LAB_ROOT: Final = Path(os.environ.get("LAB_ROOT", "/tmp/murder-cyrus-lab"))
NAMES: Final = ("be1.murder.test", "be2.murder.test")
OURS: Final = ("127.0.0.41", "127.0.0.43")
OUR_MASTER, OUR_FRONTEND = "127.0.0.40", "127.0.0.42"
CYRUS: Final = ("127.0.0.11", "127.0.0.12")
CYRUS_FRONTEND: Final = "127.0.0.20"
SMALL, LARGE = "user1", "user3"
BYSTANDERS: Final = (tuple(range(5, 21, 2)), tuple(range(6, 22, 2)))  # of each backend
USERS: Final = 21
PASSWORD: Final = "secret"
SAMPLE_S: Final = 0.2


@dataclass(frozen=True)
class Peer:
    """Two backends and a frontend of one make; the backends' root processes."""

    name: str
    hosts: tuple[str, str]
    frontend: str
    processes: tuple[int, int]

    def admin(self, which: int) -> Imap:
        return Imap(self.hosts[which], "cyrus", PASSWORD)


@dataclass
class Told:
    """What one move took. Memory in MiB, of the source's and the target's process trees."""

    messages: int = 0
    octets: int = 0
    seconds: float = 0.0
    stop_s: float | None = None  # as the server tells
    before: tuple[float, float] = (0.0, 0.0)
    at_most: tuple[float, float] = (0.0, 0.0)
    cpu: tuple[float, float] = (0.0, 0.0)
    bystanders: list[tuple[float, float]] = field(default_factory=list)
    calm: list[tuple[float, float]] = field(default_factory=list)
    worker: Worker | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.octets / 1e6 / self.seconds


class Memory(threading.Thread):
    """The most that each process tree has (PSS), looked at several times a second."""

    def __init__(self, processes: tuple[int, int]) -> None:
        super().__init__(daemon=True)
        self._processes = processes
        self.before = self._now()
        self.at_most = self.before
        self.stopping = threading.Event()

    def _now(self) -> tuple[float, float]:
        source, target = (pss_kib([one]) / 1024 for one in self._processes)
        return source, target

    def run(self) -> None:
        while not self.stopping.wait(SAMPLE_S):
            source, target = self._now()
            self.at_most = (max(self.at_most[0], source), max(self.at_most[1], target))


def move(peer: Peer, user: str, before: Seen) -> Told:
    """XFER, with everything around it."""
    told = Told()
    told.messages, told.octets = before.messages, before.octets
    told.calm = _watched(peer, lambda: pause(3, "nothing moves: what there is to compare with"))
    worker = told.worker = Worker(peer.frontend, user, PASSWORD)
    worker.start()
    pause(1, "work goes on before and behind the move")
    memory = Memory(peer.processes)
    memory.start()
    used = [cpu_s([one]) for one in peer.processes]
    told.bystanders = _watched(peer, lambda: _xfer(peer, user, told))
    told.cpu = (cpu_s([peer.processes[0]]) - used[0], cpu_s([peer.processes[1]]) - used[1])
    memory.stopping.set()
    memory.join()
    told.before, told.at_most = memory.before, memory.at_most
    pause(1, "work goes on before and behind the move")
    worker.stopping.set()
    worker.join()
    with contextlib.closing(Imap(peer.hosts[1], user, PASSWORD)) as client:
        told.faults = faults(before, look(client), worker, modseqs=peer.name == "ours")
    return told


def _watched(peer: Peer, work: Any) -> list[tuple[float, float]]:
    others = [
        Bystander(host, [f"user{number}" for number in numbers], PASSWORD)
        for host, numbers in zip(peer.hosts, BYSTANDERS, strict=True)
    ]
    return beside(others, work)


def _xfer(peer: Peer, user: str, told: Told) -> None:
    began = time.perf_counter()
    with contextlib.closing(peer.admin(0)) as admin:
        said = admin.ask(f"XFER user/{user} {NAMES[1]}")
        told.seconds = time.perf_counter() - began
        if not any(line.startswith(b"* OK USER") for line in said):
            told.faults.append(f"XFER said {said}")
        with contextlib.suppress(Refused):  # Cyrus has no such command
            for line in admin.ask("XFERS LIST"):
                text = re.sub(r"^\{\d+\}\r\n", "", line.decode().removeprefix("* XFERS ")).strip()
                if text.startswith('"'):
                    facts = json.loads(json.loads(text))
                    if facts["root"] == f"user.{user}" and facts["side"] == "out":
                        told.stop_s = facts["stop_s"]


def show(small: dict[str, Told], large: dict[str, Told]) -> int:
    """The table, and how many aims are missed."""
    names = list(large)
    judged = "ours" if "ours" in large else names[0]
    missed = 0

    def row(title: str, figures: list[str], verdict: str = "") -> None:
        print(f"{title:46}" + "".join(f"{figure:>18}" for figure in figures) + f"  {verdict}")

    def well(is_met: bool, aim: str) -> str:
        nonlocal missed
        if judged != "ours":
            return ""
        missed += not is_met
        return f"{'ok  ' if is_met else 'MISS'} {aim}"

    def pair(figures: tuple[float, float]) -> str:
        return f"{figures[0]:.0f} / {figures[1]:.0f}"

    ours = large[judged]
    assert ours.worker is not None
    row("", names)
    row("messages", [f"{large[one].messages:,}" for one in names])
    row("MB", [f"{large[one].octets / 1e6:,.0f}" for one in names])
    row("seconds", [f"{large[one].seconds:.1f}" for one in names])
    row("MB/s", [f"{large[one].rate:.1f}" for one in names], well(ours.rate >= 50, ">= 50"))
    stops = ["-" if large[one].stop_s is None else f"{large[one].stop_s:.3f}" for one in names]
    row("stop as told, s", stops, well((ours.stop_s or 9) < 1, "< 1"))
    pauses = [f"{worker.pause_s:.2f}" for one in names if (worker := large[one].worker)]
    row("longest wait of the user's writes, s", pauses, well(ours.worker.pause_s < 2, "< 2"))
    row(
        "their writes / refused",
        [f"{w.writes} / {w.refusals}" for one in names if (w := large[one].worker)],
    )
    row("CPU of source / target, s", [pair(large[one].cpu) for one in names])
    row("memory before, source / target, MiB", [pair(large[one].before) for one in names])
    row("memory at most, small user", [pair(small[one].at_most) for one in names])
    grown = max(
        most - least for most, least in zip(ours.at_most, small[judged].at_most, strict=True)
    )
    row(
        "memory at most, large user",
        [pair(large[one].at_most) for one in names],
        well(grown < 60, f"{grown:+.0f} beside the small, < 60"),
    )
    for which, side in enumerate(("source", "target")):
        row(
            f"slowest of others at the {side}: calm, ms",
            [_ms(large[one].calm[which]) for one in names],
        )
        row("  while they move", [_ms(large[one].bystanders[which]) for one in names])
    slowest = max(ended[0] for ended in ours.bystanders)
    row("", ["(slowest, 99 %)" for _ in names], well(slowest < 200, "slowest < 200"))
    for one in names:
        wrong = [*small[one].faults, *large[one].faults]
        for fault in wrong[:10]:
            print(f"{one}: {fault}"[:400])
        if one == "ours":
            row("compared", ["ok" if not wrong else f"{len(wrong)} faults"], well(not wrong, ""))
        if worker := large[one].worker:
            for said in sorted(worker.said):
                print(f"{one} said to the worker: {said}"[:200])
    return missed


def told(large: Mapping[str, Told]) -> dict[str, dict[str, float]]:
    """For the manual, of the large user's move."""
    rows: dict[str, dict[str, float]] = {}
    for name, one in large.items():
        figures = {
            "messages": one.messages,
            "MB": one.octets / 1e6,
            "MB/s": one.rate,
            "s, longest wait of the user's writes": one.worker.pause_s if one.worker else 0.0,
        }
        for which, side in enumerate(("source", "target")):
            figures[f"ms, others' commands at the {side}, 99 %, before"] = one.calm[which][1]
            figures[f"ms, others' commands at the {side}, 99 %, meanwhile"] = one.bystanders[which][
                1
            ]
        for row, figure in figures.items():
            rows.setdefault(row, {})[name] = figure
    return rows


def _ms(figures: tuple[float, float]) -> str:
    return f"{figures[0]:.0f}, {figures[1]:.1f}"


# --- the servers


@contextmanager
def ours(folder: Path, workers: int) -> Iterator[Peer]:
    """A master, two backends and a frontend."""
    murder = Murder(folder, USERS)
    murder.prepare()
    everywhere: dict[str, Mapping[str, object]] = {
        "mupdate": following(OUR_MASTER, 3905),
        **{f'servers."{name}"': {"address": host} for name, host in zip(NAMES, OURS, strict=True)},
    }
    with ExitStack() as stack:
        master = {"mupdate": listening_at(OUR_MASTER, 3905)}
        node = murder.write("mupdate.murder.test", "mupdate", master)
        stack.enter_context(murder.serving(node, OUR_MASTER, 3905))
        processes = []
        for name, host in zip(NAMES, OURS, strict=True):
            backend = {**clients_at(host, workers), "proxies": ["murder"]}
            node = murder.write(name, "backend", {**everywhere, "backend": backend})
            processes.append(stack.enter_context(murder.serving(node, host, 143)))
        frontend = {**clients_at(OUR_FRONTEND, 1), **upstream("none", "plain")}
        node = murder.write("fe.murder.test", "frontend", {**everywhere, "frontend": frontend})
        stack.enter_context(murder.serving(node, OUR_FRONTEND, 143))
        yield Peer("ours", OURS, OUR_FRONTEND, (processes[0], processes[1]))


@contextmanager
def cyrus() -> Iterator[Peer]:
    """The lab."""
    for words in (["setup"], ["reset"], ["start"]):
        lab(*words)
    try:
        pids = [int((LAB_ROOT / name / "master.pid").read_text()) for name in ("be1", "be2")]
        yield Peer("cyrus", CYRUS, CYRUS_FRONTEND, (pids[0], pids[1]))
    finally:
        lab("stop")


def lab(*words: str) -> None:
    environment = os.environ | {"LAB_USERS": str(USERS)}
    subprocess.run(
        ["bash", str(LAB), *words], check=True, stdout=subprocess.DEVNULL, env=environment
    )


class Furnishing(threading.Thread):
    """The small user, the large one, and all the others of one make, beside the other make's: what the two that move have
    then."""

    def __init__(self, peer: Peer, messages: int) -> None:
        super().__init__(daemon=True)
        self._peer, self._messages = peer, messages
        self._seen: dict[str, Seen] = {}
        self._problem: BaseException | None = None
        self.start()

    def seen(self) -> dict[str, Seen]:
        """At its end. Raises what went wrong."""
        self.join()
        if self._problem is not None:
            raise self._problem
        return self._seen

    def run(self) -> None:
        try:
            self._furnish()
        except BaseException as problem:  # noqa: BLE001 - the end of a thread
            self._problem = problem

    def _furnish(self) -> None:
        peer = self._peer
        for which, numbers in enumerate(BYSTANDERS):
            with contextlib.closing(peer.admin(which)) as admin:
                for number in (*((1, 3) if not which else ()), *numbers):
                    admin.ask(f"CREATE user/user{number}")
            for number in numbers:
                with contextlib.closing(
                    Imap(peer.hosts[which], f"user{number}", PASSWORD)
                ) as client:
                    octets = b"Subject: one\r\n\r\n" + b"x" * 70 + b"\r\n"
                    client.ask(b"APPEND INBOX {%d+}\r\n%s" % (len(octets), octets))
        for user, count in ((SMALL, self._messages // 20), (LARGE, self._messages)):
            began = time.perf_counter()
            with contextlib.closing(Imap(peer.hosts[0], user, PASSWORD)) as client:
                fill(client, count)
                filled = time.perf_counter()
                self._seen[user] = look(client)
            passed = filled - began, time.perf_counter() - filled
            print(
                f"{peer.name}: {user} has {count:,} messages after {passed[0]:.0f} s, seen in {passed[1]:.0f} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=100_000, help="21.5 kB each on average")
    parser.add_argument("--quick", action="store_true", help="6,000 messages")
    parser.add_argument("--only", choices=("ours", "cyrus"), help="one of the two")
    parser.add_argument(
        "--workers", type=int, default=0, help="of our backends; 0: as many as cores"
    )
    parser.add_argument("--write", action="store_true", help="write the table into the manual")
    parser.add_argument("--keep", type=Path, help="a folder for our nodes, kept for a look")
    given = parser.parse_args()
    if os.geteuid():
        sys.exit("this needs root: the servers listen on ports 24 and 143")
    if given.write and given.only:
        parser.error("the manual's table has both")
    messages = 6_000 if given.quick else given.messages
    with ExitStack() as stack:
        name = given.keep or stack.enter_context(tempfile.TemporaryDirectory())
        folder = Path(name)
        folder.chmod(0o755) if folder.exists() else folder.mkdir(mode=0o755)
        peers = []
        if given.only != "cyrus":
            peers.append(stack.enter_context(ours(folder / "ours", given.workers)))
        if (LAB_ROOT / "pkg/usr/lib/cyrus/bin/imapd").exists() and given.only != "ours":
            peers.append(stack.enter_context(cyrus()))
        small: dict[str, Told] = {}
        large: dict[str, Told] = {}
        # all at once: no figure is of this
        furnished = [Furnishing(peer, messages) for peer in peers]
        for peer, seen in zip(peers, [each.seen() for each in furnished], strict=True):
            small[peer.name] = move(peer, SMALL, seen[SMALL])
            large[peer.name] = move(peer, LARGE, seen[LARGE])
            print(f"{peer.name}: {large[peer.name].rate:.1f} MB/s", flush=True)
        missed = show(small, large)
        if given.write:
            method = (
                "One large user, while they read and write and others of both backends go on with NOOP and FETCH; every "
                "message was compared behind it. In brackets how many times Cyrus' figure it is: other programs ran on "
                "the machine and its disk."
            )
            results.write("move", told(large), list(large), method, base="cyrus")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
