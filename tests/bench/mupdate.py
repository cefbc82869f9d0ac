"""The MUPDATE master beside the Cyrus master, in one run: `build.py bench mupdate [--entries N] [--cyrus-entries N]`.

Each figure is the median of three (`--turns`), taken in turns, so that both meet the same disk and neighbours. Without the
Cyrus lab (tests/cyrus/lab.sh, root) only ours is measured. What is compared, and how often ours should do it, stands in
`TARGETS`. `--write` puts the table into the manual. Ours is the archive on the system's Python, as an operator runs it (see
`our_murder.python`). Beside each rate stands what it cost: processor time of the server's process, and of the generator,
which has the same processors.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transfer import load
from murder.roles.mupdate.remote.link import Target
from murder.roles.mupdate.remote.replica import Replica
from tests.cyrus.our_nodes import our_node
from tests.kit.waiting import pause, pause_here, until
from tests.load import results
from tests.load.mupdate import activate, connect
from tests.load.our_murder import ARCHIVE, python

PROJECT = Path(__file__).parent.parent.parent

LAB = PROJECT / "tests" / "cyrus" / "lab.sh"
LOAD = ["-m", "tests.load.mupdate"]
CYRUS = ("127.0.0.10", 3905)
CYRUS_REPLICA = "127.0.0.20"
COMMAND = [python(), str(ARCHIVE)]
OURS = ("127.0.0.1", 13905)
OUR_REPLICA = ("127.0.0.1", 13906)
ROOT = Path(os.environ.get("LAB_ROOT", "/tmp/murder-cyrus-lab"))
TURNS = 3

# what → arguments of the generator, its figure, and how many times Cyrus' figure ours should be
TARGETS: dict[str, tuple[list[str], str, float]] = {
    "ACTIVATE/s, 1 connection": (["activate", "--number", "1000"], "per_s", 1.0),
    "ACTIVATE/s, 8 connections": (
        ["activate", "--number", "2000", "--connections", "8"],
        "per_s",
        5.0,
    ),
    "ACTIVATE/s, pipelined": (
        ["activate", "--number", "3000", "--pipeline", "500"],
        "per_s",
        10.0,
    ),
    "FIND per CPU second": (["find", "--number", "20000"], "per_cpu_s", 1.0),
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
    command = [sys.executable, *LOAD, words[0], address[0], str(address[1]), *words[1:]]
    process = listening(address)
    before = cpu_s(process)
    done = subprocess.run(
        [*command, "--first", str(first)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        cwd=PROJECT,
    )
    found: dict[str, float] = json.loads(done.stdout)
    used_s = cpu_s(process) - before
    number = int(words[words.index("--number") + 1]) if "--number" in words else 0
    if used_s:
        found["per_cpu_s"] = number / used_s
        found["cpu_us"] = 1e6 * used_s / number if number else 0.0
    return found


def compare(servers: dict[str, tuple[str, int]], turns: int) -> results.Rows:
    """The table of TARGETS."""
    shown: dict[str, dict[str, float]] = {}
    for title, (words, figure, target) in TARGETS.items():
        figures: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        for turn in range(turns):
            for name, address in servers.items():
                first = 0 if words[0] == "find" else 1_000_000 * (turn + 1) + hash(title) % 900_000
                figures[name].append(generate(address, words, first))
        medians = {name: median_of(found, figure) for name, found in figures.items()}
        shown[title] = medians
        line = "  ".join(f"{name} {median:9,.0f}" for name, median in medians.items())
        if medians.get("cyrus"):
            pairs = zip(figures["ours"], figures["cyrus"], strict=True)
            least = min(ours[figure] / cyrus[figure] for ours, cyrus in pairs)
            line += f"  ratio {medians['ours'] / medians['cyrus']:6.2f}, least {least:.2f} (wanted {target:g})"
        used = [f"{name} {median_of(found, 'cpu_us'):.0f}" for name, found in figures.items()]
        asking = median_of(figures["ours"], "generator_us")
        print(f"{title:26}{line}; CPU us each: {', '.join(used)}, asking {asking:.0f}", flush=True)
    return shown


def median_of(found: list[dict[str, float]], figure: str) -> float:
    return statistics.median(one.get(figure, 0.0) for one in found)


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


async def visible(folder: Path, first: int, number: int) -> float:
    """From sending a change to the master until another process finds it in a replica's file, which nobody has asked
    for; median of so many, in milliseconds."""
    given = argparse.Namespace(host=OURS[0], port=OURS[1], user="murder", password="secret")
    peer, mailboxes, waits = await connect(given), MailboxList.open(folder, read_only=True), []
    for i in range(first, first + number):
        began = time.perf_counter()
        answer = asyncio.ensure_future(peer.ask(activate(i)))
        name = b"user.load%06d.box%d" % (i // 10, i % 10)
        while mailboxes.row(name) is None:
            await pause_here(0.0002, "between two looks")
        waits.append(time.perf_counter() - began)
        await answer
    mailboxes.close()
    return 1000 * statistics.median(waits)


def tell(title: str, ours: list[float], cyrus: list[float], unit: str, target: str) -> None:
    """A line: medians, and how many times less ours is."""
    line = f"{title:44} ours {statistics.median(ours):10,.3f} {unit}"
    if cyrus:
        ratio = statistics.median(cyrus) / statistics.median(ours)
        line += f"  cyrus {statistics.median(cyrus):10,.3f} {unit}  ratio {ratio:8.2f}"
    print(f"{line}  (wanted {target})", flush=True)


def most_memory(address: tuple[str, int], subscribers: int) -> float:
    """The most private memory of a master while so many subscribers take the whole list and then follow changes."""
    words = ["latency", *map(str, address), "--number", "500", "--first"]
    running = [
        subprocess.Popen(
            [sys.executable, *LOAD, *words, str(10**8 + i * 10**4)],
            stdout=subprocess.DEVNULL,
            cwd=PROJECT,
        )
        for i in range(subscribers)
    ]
    most = 0.0
    while any(one.poll() is None for one in running):
        most = max(most, memory_mib(listening(address)))
        pause(0.1, "between two looks")
    return most


def at_scale(folder: Path, cyrus: "Cyrus | None") -> None:
    """Both with a large list: dumps, replicas, memory, and what others feel of it."""
    turns = range(TURNS)
    both: dict[str, tuple[list[float], list[float]]] = {}

    def measured(title: str, figure: str, words: list[str]) -> None:
        found: tuple[list[float], list[float]] = ([], [])
        for _ in turns:
            found[0].append(generate(OURS, words, 0)[figure])
            if cyrus:
                found[1].append(generate(CYRUS, words, 0)[figure])
        both[title] = found

    measured("dump", "elapsed_s", ["dump"])
    tell("UPDATE of the whole list", *both["dump"], "s", "1.0 × Cyrus")
    measured("stall", "longest_ms", ["stall"])
    tell("longest stop of others meanwhile", *both["stall"], "ms", "< 20 ms")
    first: list[float] = []
    restart: list[float] = []
    resume: list[float] = []
    theirs: dict[bool, list[float]] = {True: [], False: []}
    for turn in turns:
        replica = folder / f"replica{turn}"
        first.append(uvloop.run(followed(replica)))
        restart.append(uvloop.run(followed(replica)))
        generate(OURS, ["activate", "--number", "1000", "--pipeline", "100"], (20 + turn) * 10**7)
        resume.append(uvloop.run(followed(replica)))
        for empty in (True, False) if cyrus else ():
            theirs[empty].append(cyrus.followed(empty) if cyrus else 0.0)
    tell("first synchronisation of an empty replica", first, theirs[True], "s", "3 × faster")
    tell("restart of a replica on the same list", restart, theirs[False], "s", "< 1 s")
    tell("resume after 1,000 changes", resume, theirs[False], "s", "< 0.3 s")
    with our_node(folder / "follower", "replica.test", *OUR_REPLICA, OURS, COMMAND):
        path = folder / "follower" / "data" / "mupdate" / "mailboxes"
        until(lambda: MailboxList.open(path, read_only=True).synchronised, "in step", every_s=0.1)
        seen = [uvloop.run(visible(path, (40 + turn) * 10**7, 200)) for turn in turns]
    late = [generate(CYRUS, ["latency", "--number", "3"], 10**7)["median_ms"]] if cyrus else []
    tell("change at the master → found in a replica", seen, late, "ms", "< 3 ms")
    ours = [most_memory(OURS, 10)]
    tell("private memory, 10 subscribers", ours, [], "MiB", "≤ 100 MiB")
    if cyrus:
        print(f"private memory of Cyrus' after its dumps: {memory_mib(listening(CYRUS)):.0f} MiB")


class Cyrus:
    """A Cyrus master with a large list, and its frontend's replica."""

    def __init__(self, entries: int) -> None:
        lab("stop")
        batch = ROOT / "batch"
        with batch.open("wb") as file:
            file.write(b"BEGIN\n")
            for i in range(entries):
                owner = b"load%06d" % (i // 10)
                key = b"Nuser\x1f%b\x1fbox%d" % (owner, i % 10)
                row = b"%%(T er P default S be%d.murder.test M 1795442917 A %%(%b lrswipkxtecdan))"
                row %= (i % 2 + 1, owner)
                file.write(b"SET {%d+}\r\n%b {%d+}\r\n%b\n" % (len(key), key, len(row), row))
            file.write(b"COMMIT\n")
        conf = ROOT / "mupdate" / "conf" / "mailboxes.db"
        command = f"{ROOT}/pkg/usr/lib/cyrus/bin/cyr_dbtool -C {ROOT}/mupdate/imapd.conf {conf} twoskip batch < {batch}"
        libraries = f"export LD_LIBRARY_PATH=$(echo {ROOT}/pkg/usr/lib/*-linux-gnu)"
        batch.chmod(0o644)
        subprocess.run(
            ["su", "cyrus", "-s", "/bin/bash", "-c", f"{libraries}; {command}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        lab("start", "mupdate")

    def followed(self, empty: bool) -> float:
        """Seconds until its replica serves: it greets when it is in step."""
        lab("stop", "fe1")
        if empty:
            (ROOT / "fe1" / "conf" / "mailboxes.db").unlink(missing_ok=True)
        began = time.perf_counter()
        lab("start", "fe1")
        while True:
            try:
                with socket.create_connection((CYRUS_REPLICA, 3905), 120) as greeted:
                    if greeted.recv(4096):
                        return time.perf_counter() - began
            except OSError:
                pause(0.05, "between two looks")


def lab(*words: str) -> None:
    subprocess.run(["bash", str(LAB), *words], check=True, stdout=subprocess.DEVNULL)


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
    if os.geteuid() or not (ROOT / "pkg/usr/lib/cyrus/bin/mupdate").exists():
        yield False
        return
    for words in (["setup"], ["reset"], ["start", "mupdate"]):
        lab(*words)
    try:
        yield True
    finally:
        lab("stop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--entries", type=int, default=1_000_000, help="for the large list")
    parser.add_argument("--cyrus-entries", type=int, default=20_000, help="for the table")
    parser.add_argument("--only", choices=("table", "large"), help="One half of it.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write the table into the manual")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {"ours": OURS}
        if stack.enter_context(cyrus_master()):
            servers["cyrus"] = CYRUS
        else:
            print("no Cyrus lab here: only ours is measured")
        if given.only != "large":
            with our_node(folder / "small", "mupdate.murder.test", *OURS, command=COMMAND):
                words = ["activate", "--number", str(given.cyrus_entries), "--pipeline", "500"]
                for address in servers.values():
                    generate(address, words, 0)
                shown = compare(servers, given.turns)
            if given.write:
                method = (
                    f"Medians of {given.turns} turns, each master in each turn, {given.cyrus_entries:,} rows in each. In "
                    "brackets how many times Cyrus' figure it is, which is what counts: other programs ran on the machine "
                    "and its disk. Changes are durable before they are answered, at both."
                )
                results.write("mupdate", shown, ("cyrus", "ours"), method, base="cyrus")
        if given.only != "table":
            fill(folder / "large" / "data" / "mupdate" / "mailboxes", given.entries)
            cyrus = Cyrus(given.entries) if "cyrus" in servers else None
            with our_node(folder / "large", "mupdate.murder.test", *OURS, command=COMMAND):
                at_scale(folder, cyrus)


if __name__ == "__main__":
    main()
