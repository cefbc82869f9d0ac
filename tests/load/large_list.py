"""A murder of very many mailboxes without any mail: what a frontend does with its list alone.

The list is in our master; a Cyrus frontend may follow it as well. Of `user1` there are ten mailboxes, and ten of others
that they may read; all the rest is other people's.
"""

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transfer import load
from tests.kit.waiting import pause
from tests.load.imap import Server, connect, last_line
from tests.load.our_murder import BACKENDS

OWN: Final = 10
SHARED: Final = 10
BOXES: Final = 10  # of everyone
ROUNDS: Final = 51
READ_OCTETS: Final = 1 << 20
RIGHTS: Final = b"lrswipkxtecdan"


def rows(entries: int) -> Iterator[MailboxEntry]:
    """So many, half of them on each backend."""
    locations = [name.encode() + b"!default" for name in BACKENDS]
    for number in range(entries - OWN):
        owner = b"load%06d" % (number // BOXES)
        acl = b"%s\t%s\t" % (owner, RIGHTS)
        if number % BOXES == 1 and number < SHARED * BOXES:
            acl += b"user1\tlrs\t"
        yield MailboxEntry(
            MailboxName(b"user.%s.box%d" % (owner, number % BOXES)),
            EntryState.ACTIVE,
            locations[number % 2],
            acl,
        )
    for number in range(OWN):
        name = b"user.user1.box%d" % number if number else b"user.user1"
        acl = b"user1\t%s\t" % RIGHTS
        yield MailboxEntry(MailboxName(name), EntryState.ACTIVE, locations[0], acl)


def fill(master: Path, entries: int) -> None:
    """Into the folder of a master that does not run."""
    mailboxes = MailboxList.open(master / "data" / "mupdate" / "mailboxes")
    load(mailboxes, rows(entries), replace=True)
    mailboxes.close()


def until_listed(server: Server, expected: int, timeout_s: float = 120) -> float:
    """Seconds until user1 can log in and sees so many mailboxes."""
    began = time.perf_counter()
    while True:
        try:
            with connect(server) as sock:
                log_in(sock, server, "user1")
                if list_all(sock)[0] == expected:
                    return time.perf_counter() - began
        except (OSError, EOFError, RuntimeError):
            pass
        if time.perf_counter() - began > timeout_s:
            return float("inf")
        pause(0.02, "between two looks")


def log_in(sock: socket.socket, server: Server, user: str) -> None:
    exchange(sock, f"a LOGIN {user} {server.password}\r\n".encode(), b"a")


def list_all(sock: socket.socket) -> tuple[int, float]:
    """How many mailboxes a LIST of all shows, and how many seconds it takes."""
    began = time.perf_counter()
    said = exchange(sock, b't LIST "" "*"\r\n', b"t")
    return said.count(b"* LIST "), time.perf_counter() - began


def exchange(sock: socket.socket, octets: bytes, tag: bytes) -> bytes:
    sock.sendall(octets)
    pieces = [b""]
    while not last_line((pieces[-1])[-4096:]).startswith(tag + b" "):
        piece = sock.recv(READ_OCTETS)
        if not piece:
            raise EOFError("the server closed")
        if len(piece) < 4096:
            piece = pieces.pop() + piece
        pieces.append(piece)
    said = b"".join(pieces)
    if not last_line(said[-4096:]).startswith(tag + b" OK"):
        raise RuntimeError(last_line(said[-4096:]))
    return said


def user_list_ms(servers: dict[str, Server]) -> dict[str, float]:
    """The median of a user's LIST, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in servers}
    with ExitStack() as stack:
        opened = {name: stack.enter_context(connect(server)) for name, server in servers.items()}
        for name, sock in opened.items():
            log_in(sock, servers[name], "user1")
            list_all(sock)
        for turn in range(ROUNDS):
            for name, sock in opened.items():
                if turn < 3 or statistics.median(taken[name]) < 0.5:
                    taken[name].append(list_all(sock)[1])
    return {name: 1000 * statistics.median(figures) for name, figures in taken.items()}


def admin_list_s(servers: dict[str, Server], entries: int) -> dict[str, float]:
    """The median of an administrator's LIST of everything, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in servers}
    with ExitStack() as stack:
        opened = {name: stack.enter_context(connect(server)) for name, server in servers.items()}
        for name, sock in opened.items():
            log_in(sock, servers[name], "cyrus")
        for _ in range(5):
            for name, sock in opened.items():
                found, seconds = list_all(sock)
                if found < entries:
                    raise RuntimeError(f"{name} shows {found} of {entries}")
                taken[name].append(seconds)
    return {name: statistics.median(figures) for name, figures in taken.items()}
