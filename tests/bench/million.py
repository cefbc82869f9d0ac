"""One mailbox of a thousand, a hundred thousand, a million messages: what SELECT, STATUS and the rest take, and memory.

`build.py bench million`. The mailboxes are written into a spool directly; a backend of one worker then serves them.
"""

import argparse
import asyncio
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from murder.model.name import MailboxName
from plugins.store_spool.store import Settings, SpoolStore
from tests.faults.alone import Alone, answered

SIZES = (1_000, 100_000, 1_000_000)
BODY = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: number %d\r\n\r\nhello\r\n"
ROUNDS = 7


async def make(folder: Path) -> None:
    store = SpoolStore(Settings(), folder)
    await store.start()
    for size in SIZES:
        await store.create(MailboxName(b"user.u%d" % size), "default")
    await store.stop()


def fill(folder: Path, size: int) -> None:
    """Rows as deliveries would have left them; every tenth is unseen, and there are gaps."""
    (file,) = folder.glob(f"roots/*/user.u{size}/mail.db")
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    db.execute("BEGIN")
    octets = 0

    def rows(table: str) -> Iterator[tuple[object, ...]]:
        nonlocal octets
        for number in range(1, size + 1):
            body = BODY % number
            uid = number + number // 1000
            if table == "body":
                octets += len(body)
                yield number, 1, None, body, None
            else:
                seen = int(number % 10 != 0)
                date = 1_600_000_000 + number
                yield 1, uid, seen, "", date, 0, date, len(body), number + 1, f"id{number}", number

    db.executemany(
        "INSERT INTO body (id, copies, file, octets, summary) VALUES (?,?,?,?,?)", rows("body")
    )
    db.executemany("INSERT INTO message VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows("message"))
    last = size + size // 1000
    db.execute(
        "UPDATE mailbox SET uid_next=?, highest_modseq=?, recent_from=?, messages=?, unseen=?, octets=?",
        (last + 1, size + 1, last + 1, size, size // 10, octets),
    )
    db.execute("COMMIT")
    db.close()


def measure(server: Alone, size: int) -> dict[str, float]:
    """Milliseconds, the median of some rounds, each in a new session."""
    commands: dict[str, tuple[Any, ...]] = {
        "STATUS": ("status", "INBOX", "(MESSAGES UNSEEN UIDNEXT SIZE HIGHESTMODSEQ)"),
        "SELECT": ("select", "INBOX"),
        "NOOP": ("noop",),
        "FETCH last 10": ("fetch", f"{size - 9}:{size}", "(UID FLAGS ENVELOPE)"),
        "STORE one": ("store", str(size), "+FLAGS.SILENT", "(\\Flagged)"),
        "APPEND": ("append", "INBOX", "", "", BODY % 0),
        "SEARCH UNSEEN": ("search", None, "UNSEEN"),
        "EXPUNGE none": ("expunge",),
        "FETCH all FLAGS": ("fetch", "1:*", "(FLAGS)"),
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS if size < SIZES[-1] else 3):
        client = server.imap(f"u{size}")
        for name, (method, *arguments) in commands.items():
            began = time.perf_counter()
            answered(client, method, *arguments)
            found[name].append((time.perf_counter() - began) * 1000)
        client.logout()
    return {name: statistics.median(times) for name, times in found.items()}


def resident_mib(pid: int) -> tuple[float, float]:
    """Now, and at most."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return (
        int(status["VmRSS"].split()[0]) / 1024,
        int(status["VmHWM"].split()[0]) / 1024,
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="murder-million-") as name:
        folder = Path(name)
        asyncio.run(make(folder / "data" / "spool"))
        for size in SIZES:
            began = time.monotonic()
            fill(folder / "data" / "spool", size)
            print(f"{size} messages written in {time.monotonic() - began:.0f} s", file=sys.stderr)
        table: dict[str, list[float]] = {}
        memory = []
        for size in SIZES:
            with Alone(folder, workers=1) as server:
                for command, ms in measure(server, size).items():
                    table.setdefault(command, []).append(ms)
                memory.append(resident_mib(server.node.pid))
                server.stop()
        print(f"{'ms':18}" + "".join(f"{size:>12,}" for size in SIZES))
        for command, times in table.items():
            print(f"{command:18}" + "".join(f"{ms:12.2f}" for ms in times))
        print(f"{'MiB resident':18}" + "".join(f"{now:12.0f}" for now, _ in memory))
        print(f"{'MiB at most':18}" + "".join(f"{most:12.0f}" for _, most in memory))
        print(f"client at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
