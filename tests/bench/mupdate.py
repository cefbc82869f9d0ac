"""The MUPDATE master beside the Cyrus master, in one run: `build.py bench mupdate [--entries N] [--cyrus-entries N]`.

Each figure is the median of three, taken in turns, so that both meet the same disk and neighbours. Without the Cyrus lab
(tests/cyrus/lab.sh, root) only ours is measured. What is compared, and how often ours should do it, stands in `TARGETS`.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(PROJECT))

from murder.model.entry import EntryState, MailboxEntry  # noqa: E402 - the path comes first
from murder.model.name import MailboxName  # noqa: E402
from murder.mupdate.ledger import Ledger  # noqa: E402
from murder.mupdate.link import Target  # noqa: E402
from murder.mupdate.mboxlist import MailboxList  # noqa: E402
from murder.mupdate.replica import Replica  # noqa: E402
from murder.mupdate.transfer import load  # noqa: E402
from tests.cyrus.our_nodes import our_node  # noqa: E402

LAB = PROJECT / "tests" / "cyrus" / "lab.sh"
LOAD = PROJECT / "tests" / "load" / "mupdate.py"
CYRUS = ("127.0.0.10", 3905)
OURS = ("127.0.0.1", 13905)
TURNS = 3

# what → arguments of the generator, its figure, and how many times Cyrus' figure ours should be
TARGETS: dict[str, tuple[list[str], str, float]] = {
    "ACTIVATE/s, 1 connection": (["activate", "--number", "2000"], "per_s", 1.0),
    "ACTIVATE/s, 8 connections": (
        ["activate", "--number", "8000", "--connections", "8"],
        "per_s",
        5.0,
    ),
    "ACTIVATE/s, pipelined": (
        ["activate", "--number", "20000", "--pipeline", "500"],
        "per_s",
        10.0,
    ),
    "FIND per CPU second": (["find", "--number", "10000"], "per_cpu_s", 1.0),
    "UPDATE rows/s": (["dump"], "per_s", 1.0),
}


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def listening(address: tuple[str, int]) -> int:
    """The process that serves an address (its listener's busiest child counts for Cyrus)."""
    said = subprocess.run(
        ["ss", "-ltnpH", f"src {address[0]} and sport = {address[1]}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pids = [int(piece.split(",")[0]) for piece in said.split("pid=")[1:]]
    return max(pids, key=cpu_s)


def generate(address: tuple[str, int], words: list[str], first: int) -> dict[str, float]:
    command = [sys.executable, str(LOAD), words[0], address[0], str(address[1]), *words[1:]]
    process = listening(address)
    before = cpu_s(process)
    done = subprocess.run(
        [*command, "--first", str(first)], capture_output=True, text=True, timeout=300, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    used_s = cpu_s(process) - before
    number = int(words[words.index("--number") + 1]) if "--number" in words else 0
    if used_s:
        found["per_cpu_s"] = number / used_s
    return found


def compare(servers: dict[str, tuple[str, int]]) -> None:
    """The table of TARGETS."""
    for title, (words, figure, target) in TARGETS.items():
        figures: dict[str, list[float]] = {name: [] for name in servers}
        for turn in range(TURNS):
            for name, address in servers.items():
                first = 0 if words[0] == "find" else 1_000_000 * (turn + 1) + hash(title) % 900_000
                figures[name].append(generate(address, words, first).get(figure, 0.0))
        medians = {name: statistics.median(found) for name, found in figures.items()}
        line = "  ".join(f"{name} {median:12,.0f}" for name, median in medians.items())
        if medians.get("cyrus"):
            line += f"  ratio {medians['ours'] / medians['cyrus']:6.2f} (wanted {target:g})"
        print(f"{title:28}{line}", flush=True)


def memory_mib(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


async def followed(folder: Path) -> float:
    """Seconds until a replica of ours is in step."""
    began = time.perf_counter()
    mailboxes = MailboxList.open(folder)
    ledger = Ledger(mailboxes)
    replica = Replica(Target(*OURS, None, "murder", "secret", 5.0, 60.0), ledger)
    replica.start()
    await replica.until_synchronised(300)
    elapsed_s = time.perf_counter() - began
    await replica.stop()
    await ledger.close()
    mailboxes.close()
    return elapsed_s


def at_scale(folder: Path, entries: int) -> None:
    """Ours with a large list: dumps, replicas, memory, and what others feel of it."""
    generator = [str(OURS[0]), str(OURS[1])]
    dump = generate(OURS, ["dump"], 0)
    print(f"UPDATE of {dump['rows']:,.0f} rows: {dump['elapsed_s']:.2f} s, {dump['per_s']:,.0f}/s")
    stall = generate(OURS, ["stall"], 0)
    print(f"longest stop of another connection meanwhile: {stall['longest_ms']:.1f} ms")
    subscribers = [
        subprocess.Popen(
            [
                sys.executable,
                str(LOAD),
                "latency",
                *generator,
                "--number",
                "2000",
                "--first",
                str(10**8 + i * 10**4),
            ],
            stdout=subprocess.DEVNULL,
        )
        for i in range(10)
    ]
    most = 0.0
    while any(one.poll() is None for one in subscribers):
        most = max(most, memory_mib(listening(OURS)))
        time.sleep(0.1)
    print(f"private memory of the master with 10 subscribers: {most:.0f} MiB")
    replica = folder / "replica"
    print(f"first synchronisation: {asyncio.run(followed(replica)):.2f} s")
    print(f"restart on an identical list: {asyncio.run(followed(replica)):.3f} s")
    generate(OURS, ["activate", "--number", "1000", "--pipeline", "100"], 2 * 10**8)
    print(f"resume after 1,000 changes: {asyncio.run(followed(replica)):.3f} s")
    latency = generate(OURS, ["latency", "--number", "300"], 3 * 10**8)
    print(f"from sending a change until a subscriber has it: {latency['median_ms']:.2f} ms, median")


def fill(folder: Path, entries: int) -> None:
    mailboxes = MailboxList.open(folder)
    rows = (
        MailboxEntry(
            MailboxName(b"user.load%06d.box%d" % (i // 10, i % 10)),
            EntryState.ACTIVE,
            b"be%d.murder.test!default" % (i % 2 + 1),
            b"load%06d\tlrswipkxtecdan\t" % (i // 10),
        )
        for i in range(entries)
    )
    load(mailboxes, rows, replace=True)
    mailboxes.close()


@contextmanager
def cyrus_master() -> Iterator[bool]:
    """A Cyrus master, if the lab is installed."""
    root = Path(os.environ.get("LAB_ROOT", "/tmp/murder-cyrus-lab"))
    if os.geteuid() or not (root / "pkg/usr/lib/cyrus/bin/mupdate").exists():
        yield False
        return
    for words in (["setup"], ["reset"], ["start", "mupdate"]):
        subprocess.run(["bash", str(LAB), *words], check=True, stdout=subprocess.DEVNULL)
    try:
        yield True
    finally:
        subprocess.run(["bash", str(LAB), "stop"], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--entries", type=int, default=1_000_000, help="ours, for the large list")
    parser.add_argument("--cyrus-entries", type=int, default=20_000, help="both, for the table")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {"ours": OURS}
        if stack.enter_context(cyrus_master()):
            servers["cyrus"] = CYRUS
        else:
            print("no Cyrus lab here: only ours is measured")
        with our_node(folder / "small", "mupdate.murder.test", *OURS):
            words = ["activate", "--number", str(given.cyrus_entries), "--pipeline", "500"]
            for address in servers.values():
                generate(address, words, 0)
            compare(servers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "large" / "data" / "mupdate" / "mailboxes", given.entries)
        with our_node(folder / "large", "mupdate.murder.test", *OURS):
            at_scale(folder, given.entries)


if __name__ == "__main__":
    main()
