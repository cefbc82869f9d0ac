"""A large user goes from a Cyrus backend to one of ours by Cyrus' own XFER, plain and over TLS, and back, beside the same
between two Cyrus backends: `build.py bench from_cyrus [--messages N] [--write]`.

Each has a user of their own with the same mail; meanwhile others of both servers go on with NOOP and FETCH. The master is
ours. Cyrus takes TLS where a server offers no mechanism without it, which makes the second of our backends one that asks for
it. Afterwards every message is compared: UID, flags, date, mod-sequence and octets.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.move import CYRUS, LAB_ROOT, PASSWORD, USERS, lab
from tests.kit.waiting import pause
from tests.load import results
from tests.load.large_user import Bystander, Imap, Refused, Seen, beside, fill, look
from tests.load.our_murder import DOMAIN, MASTER, Murder, clients_at, following
from tests.load.processes import cpu_s, pss_kib, tree

NAME: Final = f"be9.{DOMAIN}"  # the lab's name for a backend of ours
HOST: Final = "127.0.0.13"
SOURCE: Final = f"be1.{DOMAIN}"
# who goes on with their work at the source, and at the targets of either make
AT_SOURCE: Final = (7, 9, 11, 13)
AT_CYRUS: Final = (6, 8, 10, 12)
AT_OURS: Final = (14, 16, 18, 20)


@dataclass(frozen=True)
class Way:
    """From one host to a server at another, for one user; `ours`: which of the two is of ours; `has_tls`: that one takes
    nothing without."""

    title: str
    user: str
    hosts: tuple[str, str]
    target: str
    others: tuple[tuple[int, ...], tuple[int, ...]]  # who goes on with their work at either
    ours: int | None = None
    has_tls: bool = False

    def tls_at(self, side: int) -> bool:
        """Whether clients come by TLS there."""
        return self.has_tls and side == self.ours


WAYS: Final = (
    Way("Cyrus to Cyrus", "user1", CYRUS, f"be2.{DOMAIN}", (AT_SOURCE, AT_CYRUS)),
    Way("Cyrus to ours", "user3", (CYRUS[0], HOST), NAME, (AT_SOURCE, AT_OURS), ours=1),
    Way(
        *("Cyrus to ours, TLS", "user5", (CYRUS[0], HOST), NAME, (AT_SOURCE, AT_OURS)),
        ours=1,
        has_tls=True,
    ),
    Way("ours to Cyrus", "user3", (HOST, CYRUS[0]), SOURCE, (AT_OURS, AT_SOURCE), ours=0),
)
FROM_CYRUS: Final = [way for way in WAYS if way.ours != 0]


@contextmanager
def backend(murder: Murder, has_tls: bool) -> Iterator[int]:
    """Ours, which takes what Cyrus sends."""
    proxy = {"auth": "plain", "tls": "none", "proxy_user": "murder", "proxy_password": PASSWORD}
    own = {**clients_at(HOST, 0), "proxies": ["murder"], "takes_xfer_from": ["murder"]}
    own["allow_plaintext"] = not has_tls
    sections = {
        "mupdate": following(*MASTER),
        "backend": own,
        f'servers."{SOURCE}"': {"address": CYRUS[0], **proxy},
    }
    node = murder.write(NAME, "backend", sections)
    with murder.serving(node, HOST, 143) as process:
        yield process


def move(way: Way, source: int, target: int) -> dict[str, float]:
    """One XFER. Raises AssertionError where anything is not as it was."""
    with contextlib.closing(Imap(way.hosts[0], way.user, PASSWORD)) as client:
        before = look(client)
    for side, host in enumerate(way.hosts):
        furnish_others(host, way.others[side], tls=way.tls_at(side))
    # of a Cyrus, each session has a process of its own
    ours = [] if way.ours is None else sorted(tree([(source, target)[way.ours]]))
    calm = watched(way, ours, lambda: pause(3, "nothing moves: what there is to compare with"))
    used = cpu_s([source]), cpu_s([target])
    seconds = 0.0

    def xfer() -> None:
        nonlocal seconds
        began = time.perf_counter()
        with contextlib.closing(Imap(way.hosts[0], "cyrus", PASSWORD)) as admin:
            said = admin.ask(f"XFER user/{way.user} {way.target}")
        seconds = time.perf_counter() - began
        assert any(line.startswith(b"* OK USER") for line in said), said

    meanwhile = watched(way, ours, xfer)
    with contextlib.closing(Imap(way.hosts[1], way.user, PASSWORD, tls=way.tls_at(1))) as client:
        check(before, look(client))
    return {
        "messages": before.messages,
        "MB": before.octets / 1e6,
        "seconds": seconds,
        "MB/s": before.octets / 1e6 / seconds,
        "CPU s of the source": cpu_s([source]) - used[0],
        "CPU s of the target, with the look at it all": cpu_s([target]) - used[1],
        "MiB PSS of the target behind it": pss_kib([target]) / 1024,
        **{
            f"ms, others' commands at the {side}, {share}, {when}": figures[which][place]
            for which, side in enumerate(("source", "target"))
            for place, share in ((1, "99 %"), (0, "the longest"))
            for when, figures in (("before", calm), ("meanwhile", meanwhile))
        },
        **{
            f"ms of CPU within one of those at ours, {share}, {when}": figures[2][place]
            for place, share in ((1, "99 %"), (0, "the most"))
            for when, figures in (("before", calm), ("meanwhile", meanwhile))
            if ours
        },
    }


def watched(
    way: Way, ours: Sequence[int], work: Callable[[], None]
) -> tuple[tuple[float, float], ...]:
    """The slowest and the 99th in 100 of others' commands at the source and at the target, in milliseconds; and, of what is
    ours, how much of a processor a process used within one of them."""
    others = [
        Bystander(
            host,
            [f"user{number}" for number in way.others[side]],
            PASSWORD,
            tls=way.tls_at(side),
            processes=ours if side == way.ours else (),
        )
        for side, host in enumerate(way.hosts)
    ]
    return (*beside(others, work), others[way.ours or 0].used())


def furnish_others(host: str, numbers: Sequence[int], *, tls: bool = False) -> None:
    """With a message each."""
    octets = b"Subject: one\r\n\r\n" + b"x" * 70 + b"\r\n"
    with contextlib.closing(Imap(host, "cyrus", PASSWORD, tls=tls)) as admin:
        for number in numbers:
            with contextlib.suppress(Refused):  # it is there from the way before
                admin.ask(f"CREATE user/user{number}")
    for number in numbers:
        with contextlib.closing(Imap(host, f"user{number}", PASSWORD, tls=tls)) as client:
            client.ask(b"APPEND INBOX {%d+}\r\n%s" % (len(octets), octets))


def check(before: Seen, after: Seen) -> None:
    """Whether it is the same to a client."""
    assert before.validity == after.validity, "UIDVALIDITY"
    for folder, rows in before.folders.items():
        now = after.folders[folder]
        assert rows.keys() == now.keys(), f"UIDs of {folder}"
        wrong = [uid for uid, fact in rows.items() if now[uid] != fact]
        assert not wrong, f"{folder}: {len(wrong)} messages, as {rows[wrong[0]]} {now[wrong[0]]}"


def furnish(messages: int) -> None:
    with contextlib.closing(Imap(CYRUS[0], "cyrus", PASSWORD)) as admin:
        for way in FROM_CYRUS:
            admin.ask(f"CREATE user/{way.user}")
    for way in FROM_CYRUS:
        with contextlib.closing(Imap(CYRUS[0], way.user, PASSWORD)) as client:
            fill(client, messages)


def process_of(name: str) -> int:
    return int((LAB_ROOT / name / "master.pid").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=20_000, help="21.5 kB each on average")
    parser.add_argument("--write", action="store_true", help="write the table into the manual")
    given = parser.parse_args()
    if os.geteuid() or not (LAB_ROOT / "pkg/usr/lib/cyrus/bin/master").exists():
        sys.exit("this needs root, and the Cyrus lab: tests/cyrus/lab.sh install")
    shown: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        Path(name).chmod(0o755)
        murder = Murder(Path(name) / "murder", USERS)
        murder.prepare()
        murder.issue(NAME, "backend")
        for words in (["setup"], ["reset"]):
            lab(*words)
        stack.callback(lab, "stop")
        stack.enter_context(murder.master())
        lab("start", "be1", "be2")
        furnish(given.messages)
        for way in WAYS:
            with ExitStack() as inner:
                processes = [process_of("be1"), process_of("be2")]
                if way.ours is not None:
                    processes[1] = inner.enter_context(backend(murder, way.has_tls))
                if way.ours == 0:
                    processes.reverse()
                for row, figure in move(way, *processes).items():
                    shown.setdefault(row, {})[way.title] = figure
            told = ", ".join(
                f"{row} {figures[way.title]:,.1f}"
                for row, figures in shown.items()
                if way.title in figures
            )
            print(f"{way.title}: {told}", flush=True)
    if given.write:
        method = (
            "One user each with the same mail, by XFER at a Cyrus backend; every message was compared behind it. In "
            "brackets how many times the figure between two Cyrus backends it is: other programs ran on the machine and "
            "its disk."
        )
        who = [way.title for way in WAYS]
        results.write("from_cyrus", shown, who, method, base=who[0])


if __name__ == "__main__":
    main()
