"""The backend beside Cyrus 3.6 and Dovecot 2.3 as backends, in one run: `build.py bench backend [--rows WORD] [--turns N]`.

All keep mail durably: Cyrus with its flushes, Dovecot on Maildir with `mail_fsync=always`. Workers of ours are as many as
there are cores; Cyrus and Dovecot have a process for each client. Every figure is the median of turns in which each
server has its go, so that all meet the same disk and the same neighbours. `ROWS` has what is measured, and the goal.
"""

import argparse
import functools
import imaplib
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.kit.waiting import pause
from tests.load import dovecot, imap, lmtp, mix, proxies, results
from tests.load.imap import Server
from tests.load.our_murder import Murder, clients_at, following, listening_at, upstream
from tests.load.processes import cpu_s, pss_kib

PROJECT = Path(__file__).parent.parent.parent

LAB: Final = PROJECT / "tests" / "cyrus" / "lab.sh"
LAB_ROOT: Final = Path(os.environ.get("LAB_ROOT", "/tmp/murder-cyrus-lab"))
OUR_MASTER, OURS, OUR_FRONTEND = "127.0.0.40", "127.0.0.41", "127.0.0.42"
CYRUS, CYRUS_FRONTEND = "127.0.0.11", "127.0.0.20"
DOVECOT: Final = "127.0.0.50"
USERS: Final = 60  # every other one on the backend under test
CLIENTS_AT_ONCE: Final = 10
DELIVERED_TO: Final = [f"user{number}" for number in range(21, 41, 2)]
READER: Final = 41  # who has the large mailbox and the large message
MANY: Final = 10_000
BOXES: Final = 10  # mailboxes of each who is asked for by STATUS
LARGE_OCTETS: Final = 10 * 1024 * 1024


@dataclass(frozen=True)
class Peer:
    """A server under test: its root process, where it listens, and its frontend if it has one, with that one's."""

    name: str
    process: int
    host: str
    frontend: str = ""
    frontend_process: int = 0
    frontend_port: int = 143

    @property
    def clients(self) -> Server:
        """Who play mail clients."""
        return Server(self.host, 143, first=1, step=2, users=CLIENTS_AT_ONCE)

    @property
    def behind(self) -> Server:
        """The same through the frontend."""
        return replace(self.clients, host=self.frontend, port=self.frontend_port)

    @property
    def processes(self) -> list[int]:
        """All that a command through the frontend costs."""
        return [self.process, self.frontend_process]

    @property
    def reader(self) -> Server:
        return Server(self.host, 143, first=READER, users=1)

    @property
    def askers(self) -> Server:
        """Who have many mailboxes: they are those whom mail is delivered to."""
        return Server(self.host, 143, first=21, step=2, users=CLIENTS_AT_ONCE)

    @property
    def idlers(self) -> Server:
        return Server(self.host, 143, first=43, step=2, users=8)


@dataclass(frozen=True)
class Amount:
    """How long, how often, how many."""

    turns: int
    seconds: float
    idle: int


# --- one figure of one server


def deliveries(peer: Peer, amount: Amount) -> float:
    return lmtp.deliver_for((peer.host, 24), DELIVERED_TO, CLIENTS_AT_ONCE, amount.seconds)


def mixed(peer: Peer, amount: Amount) -> float:
    return mix.run(peer.clients, CLIENTS_AT_ONCE, amount.seconds)


def mixed_through_frontend(peer: Peer, amount: Amount) -> float:
    return mix.run(peer.behind, CLIENTS_AT_ONCE, amount.seconds)


def mixed_per_cpu_s(peer: Peer, amount: Amount) -> float:
    """Commands for each second of processor time of frontend and backend."""
    mix.run(peer.behind, CLIENTS_AT_ONCE, 0.2)
    before, began = cpu_s(peer.processes), time.perf_counter()
    rate = mix.run(peer.behind, CLIENTS_AT_ONCE, amount.seconds)
    elapsed_s = time.perf_counter() - began
    pause(0.2, "processes end that the sessions had")
    return rate * elapsed_s / (cpu_s(peer.processes) - before)


def open_large(peer: Peer, amount: Amount) -> float:
    """Milliseconds of SELECT and FETCH FLAGS of all."""
    with imap.open_session(peer.reader) as sock:
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            imap.ask(sock, b"s SELECT INBOX/many\r\n", b"s")
            imap.ask(sock, b"f FETCH 1:* (FLAGS)\r\n", b"f")
            taken.append(1000 * (time.perf_counter() - began))
            imap.ask(sock, b"c CLOSE\r\n", b"c")
    return statistics.median(taken)


def fetch_large(peer: Peer, amount: Amount) -> float:
    """MB/s of one message of 10 MiB."""
    with imap.open_session(peer.reader, mailbox="INBOX/large") as sock:
        imap.ask(sock, b"f UID FETCH 1 BODY.PEEK[]\r\n", b"f")
        began = time.perf_counter()
        octets = imap.transfer(sock, b"UID FETCH 1 BODY.PEEK[]", amount.seconds / 2)
        return octets / 1e6 / (time.perf_counter() - began)


def cpu_us(command: bytes, peer: Peer, amount: Amount) -> float:
    """Of one such command, of sessions that have the like often."""
    return _cpu_us(peer, peer.clients, command, amount)


def status_cpu_us(peer: Peer, amount: Amount) -> float:
    """Of a STATUS that nobody has asked for before: of another mailbox, or for something else, each time."""
    return _cpu_us(peer, peer.askers, next(OTHER_QUESTIONS), amount)


def _cpu_us(peer: Peer, asked: Server, commands: bytes | Iterator[bytes], amount: Amount) -> float:
    sockets = [imap.open_session(asked, number) for number in range(CLIENTS_AT_ONCE)]
    imap.loop(sockets, commands, 0.2)
    before = cpu_s([peer.process])
    done = imap.loop(sockets, commands, amount.seconds)
    used_s = cpu_s([peer.process]) - before
    for sock in sockets:
        sock.close()
    return 1e6 * used_s / done


def other_questions() -> Iterator[Iterator[bytes]]:
    """STATUS of `BOXES` mailboxes for all that they can tell, in all orders, shuffled for each time that it is measured:
    more than any server keeps for all who ask."""
    words = (b"MESSAGES", b"UNSEEN", b"UIDNEXT", b"UIDVALIDITY", b"RECENT")
    orders = [asked for size in range(1, 6) for asked in itertools.permutations(words, size)]
    while True:
        random.shuffle(orders)
        yield (
            b"STATUS INBOX/box%d (%b)" % (number, b" ".join(asked))
            for asked in itertools.cycle(orders)
            for number in range(BOXES)
        )


def idle_kib(peer: Peer, amount: Amount) -> float:
    """Of each session more, once warm."""
    sockets = [imap.open_session(peer.idlers, number) for number in range(16)]
    pause(0.5, "the machine comes to rest")
    before = pss_kib([peer.process])
    sockets += [imap.open_session(peer.idlers, number) for number in range(amount.idle)]
    pause(0.5, "the machine comes to rest")
    used_kib = pss_kib([peer.process]) - before
    for sock in sockets:
        sock.close()
    pause(0.5, "the machine comes to rest")
    return used_kib / amount.idle


STALLING: Final = (  # exchanges in which a small write behind another waits for a delayed ACK, if Nagle is on
    b"t NOOP\r\n",
    b"x NOOP\r\nt UID FETCH 1 (FLAGS)\r\n",
    b"t UID FETCH 1:5 BODY.PEEK[]\r\n",
    b"t STATUS INBOX (MESSAGES UNSEEN)\r\n",
    b't LIST "" *\r\n',
    b"t SELECT INBOX\r\n",
)


def slowest_ms(peer: Peer, amount: Amount) -> float:
    """The slowest kind of exchange, by its median: a stall of 40 ms cannot hide in it."""
    with imap.open_session(peer.clients) as sock:
        found = [imap.latencies_ms({"": sock}, octets, b"t", 40)[""] for octets in STALLING]
    return max(found)


OTHER_QUESTIONS: Final = other_questions()


@dataclass(frozen=True)
class Row:
    """What is measured, and the goal: ours against Cyrus' (`ratio`), against Dovecot's (`dovecot`), or by itself
    (`limit`)."""

    title: str
    measure: Callable[[Peer, Amount], float]
    more_is_better: bool = True
    ratio: float = 0.0
    dovecot: float = 0.0
    limit: float = 0.0
    turns: int = 0  # 0: as many as asked for
    needs_frontend: bool = False
    needs_boxes: bool = False  # `BOXES` mailboxes of each client
    needs_large: bool = False  # mailboxes: it takes a while to fill them

    def verdict(self, figures: dict[str, float]) -> str:
        ours = figures["ours"]
        words, well = [], True
        sign = ">=" if self.more_is_better else "<="
        for name, wanted in (("cyrus", self.ratio), ("dovecot", self.dovecot)):
            if wanted and name in figures:
                ratio = ours / figures[name]
                well = well and (ratio >= wanted if self.more_is_better else ratio <= wanted)
                words.append(f"{ratio:.2f} x {name.title()} (wanted {sign} {wanted:g})")
        if self.limit:
            well = well and (ours >= self.limit if self.more_is_better else ours <= self.limit)
            words.append(f"wanted {sign} {self.limit:g}")
        return f"{'ok  ' if well else 'MISS'} {', '.join(words)}"


ROWS: Final = (
    Row("PSS of an idle session, KiB", idle_kib, more_is_better=False, limit=100, turns=1),
    Row("mixed clients, commands/s", mixed, ratio=0.8),
    Row(
        "mixed through a frontend, commands/s",
        mixed_through_frontend,
        ratio=1.5,
        needs_frontend=True,
    ),
    Row(
        "SELECT + FETCH FLAGS of 10,000, ms",
        open_large,
        more_is_better=False,
        ratio=2.0,
        needs_large=True,
    ),
    Row("FETCH of 10 MiB, MB/s", fetch_large, ratio=0.7, needs_large=True),
    Row(
        "mixed through a frontend, commands per CPU second",
        mixed_per_cpu_s,
        ratio=1.0,
        dovecot=0.7,
        needs_frontend=True,
    ),
    *(
        Row(
            f"CPU us, {title}",
            functools.partial(cpu_us, command),
            more_is_better=False,
            ratio=1.0,
            dovecot=1.5,
        )
        for title, command in {
            "NOOP": b"NOOP",
            "LIST": b'LIST "" *',
            "STATUS": b"STATUS INBOX (MESSAGES UNSEEN UIDNEXT)",
            "FETCH FLAGS": b"FETCH 1:* (FLAGS)",
        }.items()
    ),
    *(  # in a spelling that no client has, which our backend does not answer from memory
        Row(f"CPU us, {title}, read anew", functools.partial(cpu_us, command), more_is_better=False)
        for title, command in {
            "NOOP": b"Noop",
            "LIST": b'List "" *',
            "STATUS": b"Status INBOX (MESSAGES UNSEEN UIDNEXT)",
            "FETCH FLAGS": b"Fetch 1:* (FLAGS)",
        }.items()
    ),
    Row(
        "CPU us, STATUS, never asked before",
        status_cpu_us,
        more_is_better=False,
        dovecot=1.5,
        needs_boxes=True,
    ),
    Row("slowest exchange, ms", slowest_ms, more_is_better=False, limit=10),
    Row("LMTP deliveries/s, 10 connections", deliveries, ratio=1.0),
)


SHOWN: dict[str, dict[str, float]] = {}  # of this run


def chosen(words: list[str]) -> list[Row]:
    return [row for row in ROWS if not words or any(w.lower() in row.title.lower() for w in words)]


def compare(peers: list[Peer], amount: Amount, rows: list[Row]) -> int:
    """The table; how many rows miss their goal."""
    missed = 0
    print(f"{'':50}" + "".join(f"{peer.name:>10}" for peer in peers), flush=True)
    for row in rows:
        taken: dict[str, list[float]] = {}
        for _ in range(row.turns or amount.turns):
            for peer in peers:
                if peer.frontend or not row.needs_frontend:
                    taken.setdefault(peer.name, []).append(row.measure(peer, amount))
        figures = {name: statistics.median(found) for name, found in taken.items()}
        shown = "".join(
            f"{figures[peer.name]:10,.1f}" if peer.name in figures else f"{'-':>10}"
            for peer in peers
        )
        verdict = row.verdict(figures)
        missed += verdict.startswith("MISS")
        SHOWN[row.title] = figures
        print(f"{row.title:50}{shown}  {verdict}", flush=True)
    return missed


# --- the servers


@contextmanager
def ours(folder: Path, frontend: bool) -> Iterator[Peer]:
    """A master, a backend with a worker for each core, and a frontend that logs in as Cyrus' does."""
    murder = Murder(folder, USERS)
    murder.prepare()
    name = "be1.murder.test"
    master = {"mupdate": listening_at(OUR_MASTER, 3905)}
    backend = {
        "mupdate": following(OUR_MASTER, 3905),
        "backend": {**clients_at(OURS, 0), "proxies": ["murder"], "create_inbox": True},
    }
    proxy = {
        "mupdate": following(OUR_MASTER, 3905),
        "frontend": {**clients_at(OUR_FRONTEND, 0), **upstream("none", "plain")},
        f'servers."{name}"': {"address": OURS},
    }
    with ExitStack() as stack:
        node = murder.write("mupdate.murder.test", "mupdate", master)
        stack.enter_context(murder.serving(node, OUR_MASTER, 3905))
        node = murder.write(name, "backend", backend)
        peer = Peer("ours", stack.enter_context(murder.serving(node, OURS, 143)), OURS)
        if frontend:
            node = murder.write("fe.murder.test", "frontend", proxy)
            own = stack.enter_context(murder.serving(node, OUR_FRONTEND, 143))
            peer = replace(peer, frontend=OUR_FRONTEND, frontend_process=own)
        yield peer


@contextmanager
def cyrus(frontend: bool) -> Iterator[Peer]:
    """The lab's master, first backend and frontend."""
    names = ["mupdate", "be1", *(["fe1"] if frontend else [])]
    for words in (["setup"], ["reset"], ["start", *names]):
        lab(*words)
    try:
        client = imaplib.IMAP4(CYRUS, timeout=30)
        client.login("cyrus", "secret")
        for number in range(1, USERS + 1, 2):
            client.create(f"user/user{number}")
        client.logout()
        process, *own = (int((LAB_ROOT / name / "master.pid").read_text()) for name in names[1:])
        peer = Peer("cyrus", process, CYRUS)
        if frontend:
            peer = replace(peer, frontend=CYRUS_FRONTEND, frontend_process=own[0])
        yield peer
    finally:
        lab("stop")


def lab(*words: str) -> None:
    environment = os.environ | {"LAB_USERS": str(USERS)}
    subprocess.run(
        ["bash", str(LAB), *words], check=True, stdout=subprocess.DEVNULL, env=environment
    )


def start(stack: ExitStack, folder: Path, given: argparse.Namespace) -> list[Peer]:
    """Ours, and those of the others that can run here and are wanted."""
    folder.chmod(0o755)
    frontend = any(row.needs_frontend for row in chosen(given.rows))
    peers = [stack.enter_context(ours(folder / "ours", frontend))]
    if (LAB_ROOT / "pkg/usr/lib/cyrus/bin/imapd").exists() and "cyrus" not in given.without:
        peers.append(stack.enter_context(cyrus(frontend)))
    if dovecot.is_installed() and "dovecot" not in given.without:
        process = stack.enter_context(dovecot.dovecot(folder / "dovecot", DOVECOT, USERS))
        peer = Peer("dovecot", process, DOVECOT)
        if frontend:
            own = folder / "proxy"
            own.mkdir()
            own.chmod(0o755)
            files = proxies.make_certificate(own)
            process = stack.enter_context(proxies.dovecot(own, (DOVECOT, 143), *files))
            port = proxies.DOVECOT_PORT
            peer = replace(
                peer, frontend=proxies.HOST, frontend_process=process, frontend_port=port
            )
        peers.append(peer)
    return peers


# --- what is in the mailboxes


def fill(peer: Peer, large: bool = True, boxes: bool = True) -> None:
    """Some messages for every client; a mailbox of many and a message of many octets; mailboxes to ask for."""
    mix.fill(peer.clients, CLIENTS_AT_ONCE)
    for number in range(CLIENTS_AT_ONCE) if boxes else ():
        with imap.open_session(peer.askers, number) as sock:
            for box in range(BOXES):
                imap.ask(sock, b"c CREATE INBOX/box%d\r\n" % box, b"c")
    for number in (READER, *range(43, 59, 2), *(int(user[4:]) for user in DELIVERED_TO)):
        client = imaplib.IMAP4(peer.host, timeout=120)
        client.login(f"user{number}", "secret")
        if number == READER and large:
            client.create("INBOX/large")
            client.append("INBOX/large", "", "", mix.message(LARGE_OCTETS))
            client.create("INBOX/many")
            mix.append_many(client, "INBOX/many", MANY)
        client.append("INBOX", "", "", mix.message(1000))
        client.logout()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", action="append", default=[], help="only rows with this word")
    parser.add_argument("--without", action="append", default=[], help="cyrus or dovecot")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--idle", type=int, default=200, help="idle sessions")
    parser.add_argument("--write", action="store_true", help="write the table into the manual")
    given = parser.parse_args()
    if os.geteuid():
        sys.exit("this needs root: the servers listen on ports 24 and 143")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        peers = start(stack, Path(name), given)
        rows = chosen(given.rows)
        for peer in peers:
            fill(peer, any(row.needs_large for row in rows), any(row.needs_boxes for row in rows))
        amount = Amount(given.turns, given.seconds, given.idle)
        missed = compare(peers, amount, rows)
    if given.write:
        method = (
            f"Medians of {given.turns} turns of {given.seconds:g} s, each server in each turn; CPU is that of the whole "
            "process tree. All keep mail durably. In brackets how many times Dovecot's figure it is: other programs ran on "
            "the machine and its disk."
        )
        results.write("backend", SHOWN, [peer.name for peer in peers], method, base="dovecot")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
