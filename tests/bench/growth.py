"""What a user costs a frontend as the murder grows: `build.py bench growth [--mailboxes N ...] [--write]`.

One small murder for each size, all at once, with the same users; the rest of its list are other people's mailboxes, on a
backend that nobody asks. Each figure is CPU of the frontend's whole process tree for each operation, the median of turns in
which every size has its go, so that all meet the same neighbours. What a user does must cost the same, within `WITHIN`.
"""

import argparse
import socket
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transfer import load
from tests.kit.demo import Demo, running_demo
from tests.kit.waiting import until
from tests.load import results
from tests.load.imap import Server as Imap
from tests.load.imap import ask, connect
from tests.load.processes import ran_s

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
WITHIN: Final = 0.10
ELSEWHERE: Final = b"far.example.org!default"
BOXES: Final = 10  # of everyone else
USERS: Final = 4
LISTED_S: Final = 300.0


class Sized:
    """A murder of so many mailboxes, as one user after the other meets it."""

    def __init__(self, demo: Demo, size: int) -> None:
        self.size = size
        frontend = demo.frontend
        self.process = int(frontend["pid"])
        self.imap = Imap(frontend["host"], frontend["imap"], password=demo.password)
        self.lmtp = (str(frontend["host"]), int(frontend["lmtp"]))
        self.users = [demo.user(number + 1) for number in range(USERS)]
        self.session = self.log_in(self.users[0])
        self.delivery = socket.create_connection(self.lmtp)
        self.deliver(b"LHLO load.test")

    def log_in(self, user: str) -> socket.socket:
        sock = connect(self.imap)
        ask(sock, f"a LOGIN {user} {self.imap.password}\r\n".encode(), b"a")
        return sock

    def deliver(self, line: bytes) -> None:
        self.delivery.sendall(line + b"\r\n")
        said = b""
        while not said.endswith(b"\r\n") or said[said.rfind(b"\n", 0, -1) + 1 :][3:4] != b" ":
            said += self.delivery.recv(65536)
        if said[:1] != b"2":
            raise RuntimeError(said)

    # What is measured, once

    def noop(self, _: int) -> None:
        ask(self.session, b"n NOOP\r\n", b"n")

    def login(self, number: int) -> None:
        with self.log_in(self.users[number % USERS]) as sock:
            ask(sock, b"z LOGOUT\r\n", b"z")

    def list_own(self, _: int) -> None:
        ask(self.session, b'l LIST "" "*"\r\n', b"l")

    def select(self, _: int) -> None:
        ask(self.session, b"s SELECT INBOX\r\n", b"s")
        ask(self.session, b"u UNSELECT\r\n", b"u")

    def recipient(self, number: int) -> None:
        self.deliver(b"MAIL FROM:<a@x.test>")
        self.deliver(b"RCPT TO:<%s>" % self.users[number % USERS].encode())
        self.deliver(b"RSET")


ROWS: Final[dict[str, Callable[[Sized, int], None]]] = {
    "CPU us, NOOP": Sized.noop,
    "CPU us, LOGIN+LOGOUT": Sized.login,
    "CPU us, LIST of one's own": Sized.list_own,
    "CPU us, SELECT+UNSELECT": Sized.select,
    "CPU us, LMTP MAIL+RCPT+RSET": Sized.recipient,
}


def others(number: int) -> Iterator[MailboxEntry]:
    for i in range(number):
        owner = b"load%06d" % (i // BOXES)
        name = MailboxName(b"user.%b.box%d" % (owner, i % BOXES))
        yield MailboxEntry(name, EntryState.ACTIVE, ELSEWHERE, owner + b"\tlrswipkxtecdan\t")


def grown(stack: ExitStack, folder: Path, size: int) -> Sized:
    """Started once without, so that there are users and nodes; then with all the others."""
    options = ("--backends", "1", "--users", str(USERS), "--no-tls-required", "--workers", "1")
    with running_demo(*options, folder=folder, keep=True) as demo:
        master = demo.folder / str(demo.info["mupdate"]["node"])
        frontend = demo.folder / str(demo.frontend["node"])
    mailboxes = MailboxList.open(list_in(master))
    load(mailboxes, others(size - mailboxes.count()), replace=False)
    expected = mailboxes.count()
    mailboxes.close()
    demo = stack.enter_context(running_demo(*options, folder=folder, keep=True))

    def is_there() -> bool:
        followed = MailboxList.open(list_in(frontend), read_only=True)
        count = followed.count()
        followed.close()
        return count >= expected

    until(is_there, f"the frontend has {expected} rows", LISTED_S, every_s=0.1)
    return Sized(demo, size)


def list_in(node: Path) -> Path:
    return next(path.parent for path in node.rglob("mailboxes/data.mdb"))


def measure(sizes: list[Sized], turns: int, times: int) -> results.Rows:
    shown: dict[str, dict[str, float]] = {}
    for row, act in ROWS.items():
        figures: dict[int, list[float]] = {one.size: [] for one in sizes}
        for turn in range(turns + 1):
            for one in sizes:
                before = ran_s([one.process])
                for number in range(times):
                    act(one, number)
                if turn:  # the first one warms up
                    figures[one.size].append(1e6 * (ran_s([one.process]) - before) / times)
        shown[row] = {f"{size:,}": statistics.median(found) for size, found in figures.items()}
        tell(row, list(shown[row].values()))
    return shown


def tell(row: str, medians: list[float]) -> None:
    told = "  ".join(f"{median:8,.0f}" for median in medians)
    worst = max(abs(median / medians[0] - 1) for median in medians)
    mark = "" if worst <= WITHIN else f"  more than {WITHIN:.0%}"
    print(f"{row:30}{told}  largest difference {worst:.0%}{mark}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mailboxes", type=int, action="append", default=[], help="of a murder")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--times", type=int, default=300, help="an operation in each turn")
    parser.add_argument("--write", action="store_true", help="write the table into the manual")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        sizes = [
            grown(stack, Path(name) / str(size), size) for size in given.mailboxes or list(SIZES)
        ]
        shown = measure(sizes, given.turns, given.times)
    if given.write:
        method = (
            f"Medians of {given.turns} turns of {given.times} operations, each size in each turn, one murder for each "
            "at once on one machine; CPU is that of the frontend's whole process tree, beside that of the smallest "
            "murder in brackets. Other programs ran on the machine: the ratios count, not the figures."
        )
        who = [f"{one.size:,}" for one in sizes]
        results.write("growth", shown, who, method, base=who[0])


if __name__ == "__main__":
    main()
