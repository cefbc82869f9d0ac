"""What it costs a frontend to be watched: one that logs, keeps a mail log and tells figures, which are fetched each second,
beside one that logs errors alone, keeps nothing and tells nothing, in front of the same backend:
`build.py bench watching [--turns N] [--write]`.

CPU of the whole process tree for each operation, in turns of both (ABAB), so that both meet the same neighbours; the goal
is of the median of the turns' ratios. System calls are counted beside it: these no neighbour changes.
"""

import argparse
import functools
import os
import statistics
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kit.waiting import until
from tests.load import imap, lmtp, proxies, results
from tests.load.imap import Server
from tests.load.our_murder import Murder, clients_at, following, listening_at, upstream
from tests.load.processes import cpu_s, system_calls

MASTER, BACKEND = "127.0.0.60", "127.0.0.61"
NAME: Final = "be1.murder.test"
USERS: Final = 10
SESSIONS: Final = 10
METRICS: Final = "127.0.0.63:9190"
MOST: Final = 1.03  # of the one, the other
FETCHED_S: Final = 1.0


@dataclass(frozen=True)
class Frontend:
    """One of both: what it is called here, its process, its address."""

    title: str
    process: int
    host: str

    @property
    def server(self) -> Server:
        return Server(self.host, 143, users=USERS)


WATCHED: Final[Mapping[str, tuple[str, Mapping[str, Mapping[str, object]]]]] = {
    "silent": ("127.0.0.62", {"log": {"level": "error", "format": "json", "mail": "off"}}),
    "watched": (
        "127.0.0.63",
        {"log": {"level": "info", "format": "json"}, "metrics": {"listen": [METRICS]}},
    ),
}


@contextmanager
def both(folder: Path, workers: int) -> Iterator[list[Frontend]]:
    """With a master and a backend behind them."""
    murder = Murder(folder, USERS)
    murder.prepare()
    master = {"mupdate": listening_at(MASTER, 3905)}
    backend = {
        "mupdate": following(MASTER, 3905),
        "backend": {**clients_at(BACKEND, 0), "proxies": ["murder"], "create_inbox": True},
    }
    with ExitStack() as stack:
        node = murder.write("mupdate.murder.test", "mupdate", master)
        stack.enter_context(murder.serving(node, MASTER, 3905))
        stack.enter_context(murder.serving(murder.write(NAME, "backend", backend), BACKEND, 143))
        for number in range(USERS):  # whose first login makes an INBOX
            imap.open_session(Server(BACKEND, 143, users=USERS), number).close()
        found = []
        for title, (host, more) in WATCHED.items():
            name = f"{title}.murder.test"
            murder.issue(name, "frontend")
            sections: dict[str, Mapping[str, object]] = {
                "mupdate": following(MASTER, 3905),
                "frontend": {**clients_at(host, workers), **upstream("none", "plain")},
                f'servers."{NAME}"': {"address": BACKEND},
                **more,
            }
            node = murder.write(name, "frontend", sections)
            found.append(
                Frontend(title, stack.enter_context(murder.serving(node, host, 143)), host)
            )
        for one in found:
            until(functools.partial(has_the_list, one), f"{one.title} has the list", every_s=0.2)
        stack.enter_context(fetching())
        yield found


def has_the_list(frontend: Frontend) -> bool:
    try:
        for number in range(USERS):
            imap.open_session(frontend.server, number).close()
    except (OSError, RuntimeError, EOFError):
        return False
    return True


@contextmanager
def fetching() -> Iterator[None]:
    """A monitoring system that asks often."""
    over = threading.Event()

    def fetch() -> None:
        while not over.wait(FETCHED_S):
            with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=10) as answer:
                assert b"murder_" in answer.read()

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# --- one figure


def noops(frontend: Frontend, seconds: float) -> float:
    sockets = [imap.open_session(frontend.server, number) for number in range(SESSIONS)]
    imap.loop(sockets, b"NOOP", 0.1)
    before = cpu_s([frontend.process])
    done = imap.loop(sockets, b"NOOP", seconds)
    used_s = cpu_s([frontend.process]) - before
    for sock in sockets:
        sock.close()
    return 1e6 * used_s / done


def sessions(frontend: Frontend, seconds: float) -> float:
    before = cpu_s([frontend.process])
    done = imap.logins(frontend.server, seconds)
    proxies.settle(0.1)
    return 1e6 * (cpu_s([frontend.process]) - before) / done


def deliveries(frontend: Frontend, seconds: float) -> float:
    users = [f"user{number + 1}" for number in range(USERS)]
    before = cpu_s([frontend.process])
    done, _ = lmtp.delivered((frontend.host, 24), users, SESSIONS, seconds)
    return 1e6 * (cpu_s([frontend.process]) - before) / done


ROWS: Final[Mapping[str, Callable[[Frontend, float], float]]] = {
    "CPU us, NOOP": noops,
    "CPU us, LOGIN+SELECT+LOGOUT": sessions,
    "CPU us, LMTP delivery": deliveries,
}


def some_noops(server: Server) -> int:
    with imap.open_session(server) as sock:
        return imap.loop([sock], b"NOOP", 0.5)


COUNTED: Final[Mapping[str, Callable[[Server], int]]] = {
    "system calls, NOOP": some_noops,
    "system calls, LOGIN+SELECT+LOGOUT": lambda server: imap.logins(server, 1.0),
}


def measure(
    found: list[Frontend], turns: int, seconds: float
) -> tuple[dict[str, dict[str, float]], int]:
    """The table, and how many rows miss the goal."""
    shown: dict[str, dict[str, float]] = {}
    missed = 0
    for row, act in ROWS.items():
        taken: dict[str, list[float]] = {one.title: [] for one in found}
        for turn in range(turns + 1):
            for one in found if turn % 2 else reversed(found):
                figure = act(one, seconds)
                if turn:  # the first one warms up
                    taken[one.title].append(figure)
        ratios = [b / a for a, b in zip(*(taken[one.title] for one in found), strict=True)]
        ratio = statistics.median(ratios)
        shown[row] = {title: statistics.median(figures) for title, figures in taken.items()}
        shown[row]["of the silent one"] = ratio
        missed += ratio > MOST
        spread = f"{min(ratios):.3f} … {max(ratios):.3f}"
        word = "ok  " if ratio <= MOST else "MISS"
        told = "  ".join(f"{title} {figure:,.1f}" for title, figure in shown[row].items())
        print(f"{row:32}{told}  {word} {ratio:.3f} ({spread}; wanted <= {MOST})", flush=True)
    for row, work in COUNTED.items():
        for one in found:
            calls = system_calls([one.process], functools.partial(work, one.server))
            if calls is not None:
                shown.setdefault(row, {})[one.title] = calls
        print(f"{row:32}{shown.get(row)}", flush=True)
    return shown, missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the table into the manual")
    given = parser.parse_args()
    if os.geteuid():
        sys.exit("this needs root: the servers listen on ports 24 and 143")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with both(Path(name) / "murder", given.workers) as found:
            shown, missed = measure(found, given.turns, given.seconds)
    if given.write:
        method = (
            f"Medians of {given.turns} turns of {given.seconds:g} s of both, and of the ratios of each turn; figures were "
            "fetched each second. Other programs ran on the machine: the ratios count."
        )
        results.write("watching", shown, [*WATCHED, "of the silent one"], method, base="")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
