"""The frontend beside other proxies in front of the same backend, in one run: `build.py bench frontend [--backend …]`.

Beside it stand a Cyrus frontend (tests/cyrus/lab.sh), nginx's mail module, Perdition and Dovecot's proxy, as far as they
are installed. All figures are medians of turns in which each proxy has its go, so that all meet the same neighbours; CPU
is that of a proxy's whole process tree. `WANTED` has what ours must reach, and what it should.
"""

import argparse
import functools
import imaplib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from murder.log import set_up
from tests.kit.waiting import pause
from tests.load import imap, large_list, lmtp, pop3, proxies, results
from tests.load.imap import Server
from tests.load.our_murder import DOMAIN, FRONTEND, FRONTEND_WITH_TLS, MULTIPLEXOR, Murder
from tests.load.processes import cpu_s, pss_kib, system_calls
from tests.rooms.frontend import test_calls

PROJECT = Path(__file__).parent.parent.parent

LAB = PROJECT / "tests" / "cyrus" / "lab.sh"
LAB_ROOT = Path(os.environ.get("LAB_ROOT", "/tmp/murder-cyrus-lab"))
BACKEND = ("127.0.0.11", 143)
CYRUS_FRONTEND = "127.0.0.20"
USERS = 20  # half of them on each backend
LARGE_OCTETS = 10 * 1024 * 1024
SMALL_OCTETS = 1400  # five of them make 7 kB
SESSIONS = 10
LATENCY_ROUNDS = 1500

COLUMNS = (
    "nginx",
    "dovecot",
    "cyrus",
    "ours",
    "ours, two",
    "ours, TLS behind",
    "ours, multiplexor",
)
WANTED: dict[str, tuple[float, float]] = {  # row → at least, aim
    "CPU us, NOOP, 10 sessions": (45, 30),
    "CPU us, LOGIN+SELECT+LOGOUT": (1100, 600),
    "CPU ms per MB, FETCH of 10 MiB": (1.1, 0.9),
    "KiB PSS per idle session": (25, 10),
    "KiB PSS per idle session, TLS": (90, 60),
    "ms added, NOOP": (0.15, 0.08),
    "ms, UID FETCH of 5 bodies, 7 kB": (0.5, 0.4),
    "ms, two commands in one packet": (0.4, 0.3),
    "LMTP deliveries/s, of direct": (0.8, 0.9),
    "ms, user's LIST among 1,000,000": (2, 0.5),
    "s, administrator's LIST of 100,000": (0.9, 0.3),
    "s, start with 1,000,000, on disk": (2, 0.5),
    "s, start with 1,000,000, empty": (10, 5),
}


@dataclass(frozen=True)
class Proxy:
    """One under test: its root process, and where it listens. `ours, two`: for users on two backends; `ours, TLS behind`:
    with TLS to them."""

    name: str
    process: int
    server: Server
    lmtp: tuple[str, int] | None = None
    has_tls: bool = True
    pop3: Server | None = None
    log: Path | None = None  # ours: what it says

    @property
    def tls_server(self) -> Server:
        port = 993 if self.server.port == 143 else self.server.port + 1
        return Server(self.server.host, port, True, step=self.server.step, users=self.server.users)


@dataclass(frozen=True)
class Amount:
    """How long, how often, how many."""

    turns: int
    seconds: float
    idle: int


Table = dict[str, dict[str, float]]  # row → proxy → figure
SHOWN: Table = {}  # of this run


class Behind:
    """What the rows of now are measured in front of, where it is not ours."""

    name = ""


# --- one figure of one proxy


def noop_us(proxy: Proxy, server: Server, amount: Amount) -> float:
    sockets = [imap.open_session(server, number) for number in range(SESSIONS)]
    imap.loop(sockets, b"NOOP", 0.2)
    before = cpu_s([proxy.process])
    done = imap.loop(sockets, b"NOOP", amount.seconds)
    used_s = cpu_s([proxy.process]) - before
    close(sockets)
    return 1e6 * used_s / done


def login_us(proxy: Proxy, server: Server, amount: Amount) -> float:
    imap.logins(server, 0.3)
    before = cpu_s([proxy.process])
    done = imap.logins(server, amount.seconds)
    proxies.settle(0.2)
    return 1e6 * (cpu_s([proxy.process]) - before) / done


def pop3_us(proxy: Proxy, server: Server, amount: Amount) -> float:
    pop3.sessions(server, 0.3)
    before = cpu_s([proxy.process])
    done = pop3.sessions(server, amount.seconds)
    proxies.settle(0.2)
    return 1e6 * (cpu_s([proxy.process]) - before) / done


def delivery_us(proxy: Proxy, where: tuple[str, int], amount: Amount) -> float:
    users = [f"user{number}" for number in range(1, USERS + 1, 2)]
    lmtp.delivered(where, users, SESSIONS, 0.2)
    before = cpu_s([proxy.process])
    done, _ = lmtp.delivered(where, users, SESSIONS, amount.seconds)
    return 1e6 * (cpu_s([proxy.process]) - before) / done


def fetch_ms(proxy: Proxy, server: Server, amount: Amount) -> float:
    sock = imap.open_session(server)
    imap.ask(sock, b"l SELECT INBOX/large\r\n", b"l")
    before = cpu_s([proxy.process])
    octets = imap.transfer(sock, b"UID FETCH 1 BODY.PEEK[]", amount.seconds)
    used_s = cpu_s([proxy.process]) - before
    close([sock])
    return 1e9 * used_s / octets


def idle_kib(proxy: Proxy, amount: Amount) -> list[float]:
    """Without TLS, then with it beside these, so that nothing has become free that the others could take.

    Once warm: the first sessions also pay for what all share.
    """
    figures = []
    sockets = []
    for server in [proxy.server, proxy.tls_server] if proxy.has_tls else [proxy.server]:
        sockets += [imap.open_session(server, number) for number in range(20)]
        before = pss_kib([proxy.process])
        sockets += [imap.open_session(server, number) for number in range(amount.idle)]
        proxies.settle()
        figures.append((pss_kib([proxy.process]) - before) / amount.idle)
    close(sockets)
    proxies.settle(1)
    return figures


def memory(found: Sequence[Proxy], amount: Amount) -> Table:
    """Before all else: a process that has had much to do has room for idle sessions."""
    rows = ["KiB PSS per idle session", "KiB PSS per idle session, TLS"]
    table: Table = {row: {} for row in rows}
    for proxy in found:
        for row, figure in zip(rows, idle_kib(proxy, amount), strict=False):
            table[row][proxy.name] = figure
    for row, figures in table.items():
        show(row, figures)
    return table


def close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


# --- the tables


def costs(found: Sequence[Proxy], amount: Amount, rows: Sequence[str]) -> Table:
    """CPU, in turns."""
    kinds: dict[str, tuple[Callable[[Proxy, Server, Amount], float], bool]] = {
        "CPU us, NOOP, 10 sessions": (noop_us, False),
        "CPU us, NOOP, 10 sessions, TLS": (noop_us, True),
        "CPU us, LOGIN+SELECT+LOGOUT": (login_us, False),
        "CPU us, LOGIN+SELECT+LOGOUT, TLS": (login_us, True),
        "CPU ms per MB, FETCH of 10 MiB": (fetch_ms, False),
        "CPU ms per MB, FETCH of 10 MiB, TLS": (fetch_ms, True),
    }
    table: Table = {}
    for row, (measure, tls) in kinds.items():
        if not chosen(row, rows):
            continue
        taken: dict[str, list[float]] = {}
        for _ in range(amount.turns):
            for proxy in found:
                if tls and not proxy.has_tls:
                    continue
                server = proxy.tls_server if tls else proxy.server
                taken.setdefault(proxy.name, []).append(measure(proxy, server, amount))
        table[row] = {name: statistics.median(figures) for name, figures in taken.items()}
        show(row, table[row])
    return table


def other_costs(found: Sequence[Proxy], amount: Amount, rows: Sequence[str]) -> None:
    """CPU of POP3 sessions and deliveries, in turns, at whom speaks that."""
    kinds: dict[str, Callable[[Proxy], float | None]] = {
        "CPU us, POP3 session": lambda one: pop3_us(one, one.pop3, amount) if one.pop3 else None,
        "CPU us, LMTP delivery": lambda one: (
            delivery_us(one, one.lmtp, amount) if one.lmtp else None
        ),
    }
    for row, measure in kinds.items():
        if not chosen(row, rows):
            continue
        taken: dict[str, list[float]] = {}
        for _ in range(amount.turns):
            for proxy in found:
                if (figure := measure(proxy)) is not None:
                    taken.setdefault(proxy.name, []).append(figure)
        show(row, {name: statistics.median(figures) for name, figures in taken.items()})


def counts(found: Sequence[Proxy], rows: Sequence[str]) -> None:
    """What no neighbour changes: system calls of each proxy's processes; of ours lines of log, and calls in Python, tasks
    and timers, as tests/rooms/frontend/test_calls.py has them."""
    kinds: dict[str, Callable[[Server], int]] = {
        "system calls, NOOP": some_noops,
        "system calls, LOGIN+SELECT+LOGOUT": lambda server: imap.logins(server, 1.0),
    }
    for row, work in kinds.items():
        figures: dict[str, float] = {}
        for proxy in found if chosen(row, rows) else ():
            calls = system_calls([proxy.process], functools.partial(work, proxy.server))
            if calls is not None:
                figures[proxy.name] = calls
        if figures:
            show(row, figures)
    row = "lines of log, LOGIN+SELECT+LOGOUT"
    for proxy in found:
        if proxy.log is not None and chosen(row, rows):
            before = proxy.log.read_bytes().count(b"\n")
            done = imap.logins(proxy.server, 0.5)
            show(row, {proxy.name: (proxy.log.read_bytes().count(b"\n") - before) / done})
            break
    for operation, scene in test_calls.SCENES.items() if not Behind.name else ():
        row = f"Python calls, {operation}"
        if chosen(row, rows):
            with tempfile.TemporaryDirectory() as name, silence():
                set_up("info", "json", node="fe1.test")
                count = test_calls.counted(Path(name), scene)
            show(row, {"ours": count.calls(test_calls.TIMES)})
            for made in ("task", "timer"):
                show(f"{made}s made, {operation}", {"ours": count.per_operation(made)})


@contextmanager
def silence() -> Iterator[None]:
    """What a node in this process logs goes nowhere."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def some_noops(server: Server) -> int:
    with imap.open_session(server) as sock:
        return imap.loop([sock], b"NOOP", 0.5)


def latencies(found: Sequence[Proxy], direct: Server, amount: Amount, rows: Sequence[str]) -> Table:
    """In turns, one exchange at a time; NOOP as what the proxy adds to it."""
    table: Table = {}
    both = b"x NOOP\r\nt UID FETCH 1 (FLAGS)\r\n"
    exchanges = {
        "ms added, NOOP": b"t NOOP\r\n",
        "ms, UID FETCH of 5 bodies, 7 kB": b"t UID FETCH 1:5 BODY.PEEK[]\r\n",
        "ms, two commands in one packet": both,
    }
    for tls in (False, True):
        with ExitStack() as stack:
            sockets = {"direct": stack.enter_context(imap.open_session(direct))}
            for proxy in found:
                if not tls:
                    sockets[proxy.name] = stack.enter_context(imap.open_session(proxy.server))
                elif proxy.has_tls:
                    sockets[proxy.name] = stack.enter_context(imap.open_session(proxy.tls_server))
            for title, octets in exchanges.items():
                row = f"{title}, TLS" if tls else title
                if not chosen(row, rows):
                    continue
                rounds = LATENCY_ROUNDS if "NOOP" in title else LATENCY_ROUNDS // 5
                figures = imap.latencies_ms(sockets, octets, b"t", rounds)
                if "added" in row:
                    base = figures["direct"]
                    figures = {name: found - base for name, found in figures.items()}
                    figures["direct"] = base
                table[row] = figures
                show(row, figures)
    del amount
    return table


def deliveries(found: Sequence[Proxy], direct: tuple[str, int], amount: Amount) -> Table:
    """LMTP through the proxy, as a part of what goes directly, each pair of runs back to back."""
    users = [f"user{number}" for number in range(1, USERS + 1, 2)]
    taken: dict[str, list[float]] = {"direct": []}
    for _ in range(amount.turns):
        base = lmtp.deliver_for(direct, users, SESSIONS, amount.seconds)
        taken["direct"].append(base)
        for proxy in found:
            if proxy.lmtp is not None:
                rate = lmtp.deliver_for(proxy.lmtp, users, SESSIONS, amount.seconds)
                taken.setdefault(proxy.name, []).append(rate / base)
    row = "LMTP deliveries/s, of direct"
    table = {row: {name: statistics.median(figures) for name, figures in taken.items()}}
    show(row, table[row])
    return table


def chosen(row: str, words: Sequence[str]) -> bool:
    return not words or any(word.lower() in row.lower() for word in words)


def show(row: str, figures: dict[str, float]) -> None:
    SHOWN[f"{row}{Behind.name}"] = figures
    least, aim = WANTED.get(row, (0, 0)) if not Behind.name else (0, 0)
    wanted = f"  (wanted {least:g}, aim {aim:g})" if least else ""
    line = "  ".join(f"{name} {figure:,.3f}" for name, figure in figures.items())
    print(f"{row:36}{line}{wanted}", flush=True)


# --- what is measured against what


@contextmanager
def cyrus_backends() -> Iterator[None]:
    """The lab's master and backends, with users."""
    for words in (["setup"], ["reset"], ["start", "mupdate", "be1", "be2"], ["populate"]):
        lab(*words)
    try:
        yield
    finally:
        lab("stop")


@contextmanager
def our_backends(murder: Murder) -> Iterator[None]:
    """Ours in their place."""
    lab("setup")
    lab("reset")
    with murder.master(), murder.backends():
        subprocess.run(
            [sys.executable, LAB.with_name("populate.py"), "--users", str(USERS)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        yield


def lab(*words: str) -> None:
    environment = os.environ | {"LAB_USERS": str(USERS)}
    subprocess.run(
        ["bash", str(LAB), *words], check=True, stdout=subprocess.DEVNULL, env=environment
    )


@contextmanager
def cyrus_frontend() -> Iterator[int]:
    lab("start", "fe1")
    try:
        yield int((LAB_ROOT / "fe1" / "master.pid").read_text())
    finally:
        lab("stop", "fe1")


def fill(host: str) -> None:
    """Five small messages for everyone on this backend, a large one for each of the first."""
    for number in range(1, USERS + 1, 2):
        client = imaplib.IMAP4(host, timeout=60)
        client.login(f"user{number}", "secret")
        for _ in range(5):
            client.append("INBOX", "", "", message(SMALL_OCTETS))
        if number == 1:
            client.create("INBOX/large")
            client.append("INBOX/large", "", "", message(LARGE_OCTETS))
        client.logout()


def message(octets: int) -> bytes:
    head = b"From: a@x.test\r\nTo: b@x.test\r\nSubject: load\r\n\r\n"
    return head + (b"x" * 70 + b"\r\n") * ((octets - len(head)) // 72)


def start_proxies(
    stack: ExitStack, folder: Path, murder: Murder, given: argparse.Namespace, kind: str
) -> list[Proxy]:
    """Those that are wanted and can run here."""
    certificate, key = proxies.make_certificate(folder)
    one = functools.partial(Server, step=2)  # the users on the first backend
    found = []
    for name in proxies.installed():
        if name in given.without:
            continue
        start, port = proxies.PROXIES[name]
        own = folder / name
        own.mkdir()
        own.chmod(0o755)
        process = stack.enter_context(start(own, BACKEND, certificate, key))
        speaks = proxies.dovecot_speaks() if name == "dovecot" else ["pop3"]
        proxy = Proxy(name, process, one(proxies.HOST, port), has_tls=name != "perdition")
        if name in ("dovecot", "nginx") and "pop3" in speaks:
            proxy = replace(proxy, pop3=one(proxies.HOST, port + proxies.POP3_STEP))
        if "lmtp" in speaks and kind == "ours":  # it cannot say who it is, which a Cyrus wants
            proxy = replace(proxy, lmtp=(proxies.HOST, port + proxies.LMTP_STEP))
        found.append(proxy)
    if "cyrus" not in given.without:
        process = stack.enter_context(cyrus_frontend())
        where = (CYRUS_FRONTEND, 24)
        server = one(CYRUS_FRONTEND, 143)
        until_it_has_the_list(server)
        its_pop3 = one(CYRUS_FRONTEND, 110)
        found.append(Proxy("cyrus", process, server, where, has_tls=False, pop3=its_pop3))
    if kind == "ours":
        host = FRONTEND_WITH_TLS
        process = stack.enter_context(
            murder.frontend(tls="starttls", auth="external", workers=given.workers, host=host)
        )
        with_tls = Proxy("ours, TLS behind", process, one(host, 143))
        found.append(with_tls)
    process = stack.enter_context(murder.frontend(workers=given.workers))
    log = murder.folder / f"fe.{DOMAIN}" / "log"
    ours = Proxy("ours", process, one(FRONTEND, 143), (FRONTEND, 24), log=log)
    found.append(replace(ours, pop3=one(FRONTEND, 110)))
    found.append(Proxy("ours, two", process, Server(FRONTEND, 143), None))
    if "ours, multiplexor" not in given.without:
        process = stack.enter_context(murder.multiplexor(workers=given.workers))
        found.append(Proxy("ours, multiplexor", process, one(MULTIPLEXOR, 143)))
    return found


def until_it_has_the_list(server: Server) -> None:
    """A Cyrus frontend that has just been started follows the master some seconds later."""
    for _ in range(60):
        try:
            imap.open_session(server).close()
        except (RuntimeError, OSError, EOFError):
            pause(0.5, "a Cyrus frontend has not come to its master yet")
        else:
            return
    raise TimeoutError("the Cyrus frontend does not get the list")


def measure(kind: str, given: argparse.Namespace) -> None:
    """All rows, in front of one kind of backend."""
    amount = Amount(given.turns, given.seconds, given.idle)
    print(f"\nin front of {kind}:", flush=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        murder = Murder(folder / "murder", USERS)
        murder.prepare()
        stack.enter_context(cyrus_backends() if kind == "cyrus" else our_backends(murder))
        fill(BACKEND[0])
        found = start_proxies(stack, folder, murder, given, kind)
        Behind.name = "" if kind == "ours" else f", before {kind.capitalize()}"
        pause(1, "the machine comes to rest")
        if chosen("KiB PSS per idle session", given.rows):
            memory([proxy for proxy in found if proxy.name != "ours, two"], amount)
        costs(found, amount, given.rows)
        other_costs(found, amount, given.rows)
        counts(found, given.rows)
        latencies(found, Server(*BACKEND, step=2), amount, given.rows)
        if chosen("LMTP deliveries/s, of direct", given.rows):
            deliveries(found, (BACKEND[0], 24), amount)


def measure_large(given: argparse.Namespace) -> None:
    """What needs a list and no mail. The Cyrus frontend follows our master."""
    print("\nwith a large list:", flush=True)
    for entries, row in ((given.entries, "user"), (given.admin_entries, "admin")):
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            folder = Path(name)
            folder.chmod(0o755)
            murder = Murder(folder / "murder", USERS)
            murder.prepare()
            lab("setup")
            lab("reset")
            large_list.fill(murder.master_folder, entries)
            stack.enter_context(murder.master())
            measure_one_list(stack, murder, given, entries, row)


def measure_one_list(
    stack: ExitStack, murder: Murder, given: argparse.Namespace, entries: int, row: str
) -> None:
    expected = large_list.OWN + large_list.SHARED
    servers = {"ours": Server(FRONTEND, 143)}
    starts: dict[str, dict[str, float]] = {"empty": {}, "on disk": {}}
    for case, figures in starts.items():
        began = time.perf_counter()
        keep = case == "on disk"
        with murder.frontend(workers=given.workers, keep_list=keep):
            large_list.until_listed(servers["ours"], expected)
            figures["ours"] = time.perf_counter() - began
    stack.enter_context(murder.frontend(workers=given.workers, keep_list=True))
    large_list.until_listed(servers["ours"], expected)
    if "cyrus" not in given.without:
        for figures in starts.values():
            began = time.perf_counter()
            subprocess.run(["bash", LAB, "start", "fe1"], check=False, capture_output=True)
            large_list.until_listed(Server(CYRUS_FRONTEND, 143), expected)
            figures["cyrus"] = time.perf_counter() - began
            if figures is starts["empty"]:
                lab("stop", "fe1")
        stack.callback(lab, "stop", "fe1")
        servers["cyrus"] = Server(CYRUS_FRONTEND, 143)
    if row == "admin":
        show(f"s, administrator's LIST of {entries:,}", large_list.admin_list_s(servers, entries))
        return
    for case, figures in starts.items():
        show(f"s, start with {entries:,}, {case}", figures)
    show(f"ms, user's LIST among {entries:,}", large_list.user_list_ms(servers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    kinds = ["cyrus", "ours", "none"]
    parser.add_argument("--backend", choices=kinds, action="append", default=[])
    parser.add_argument("--entries", type=int, default=1_000_000, help="of the large list")
    parser.add_argument("--admin-entries", type=int, default=100_000, help="of the other one")
    parser.add_argument("--without", action="append", default=[], help="leave a proxy out")
    parser.add_argument("--rows", action="append", default=[], help="only rows with this word")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--idle", type=int, default=200, help="idle sessions")
    parser.add_argument("--workers", type=int, default=0, help="of our frontend; 0: its default")
    parser.add_argument("--write", action="store_true", help="write the table into the manual")
    given = parser.parse_args()
    if os.geteuid() or not (LAB_ROOT / "pkg/usr/lib/cyrus/bin/master").exists():
        sys.exit(f"this needs root, and the Cyrus lab: {LAB} install")
    for kind in given.backend or ["cyrus", "ours", "none"]:
        if kind == "none":
            measure_large(given)
        else:
            measure(kind, given)
    if given.write:
        method = (
            f"Medians of {given.turns} turns of {given.seconds:g} s, each proxy in each turn, in front of the same "
            f"backend ({', '.join(given.backend) or 'several'}); CPU is that of a proxy's whole process tree, beside "
            "nginx' in brackets. Other programs ran on the machine: the ratios count, not the figures."
        )
        results.write("frontend", SHOWN, COLUMNS, method)


if __name__ == "__main__":
    main()
