"""kill -9 of any one process in the middle of deliveries and appends: what was acknowledged is there, once, whole."""

import base64
import hashlib
import imaplib
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.kit.demo import Demo, running_demo
from tests.kit.waiting import pause, until

USERS = 6
BEFORE, AFTER = 40, 20  # acknowledged messages before the kill and after the restart


@pytest.fixture(scope="module")
def demo(archive: Path) -> Iterator[Demo]:
    with running_demo("--users", str(USERS), "--no-tls-required") as running:
        yield running


class Load:
    """Deliveries by LMTP and appends by IMAP through the frontend, and what of them was acknowledged."""

    def __init__(self, demo: Demo, label: str) -> None:
        self.demo = demo
        self.label = label
        self.acknowledged: dict[str, tuple[int, str, bool]] = {}  # id -> user, digest, flagged
        self.bounced: list[str] = []  # deliveries refused for good: none may be
        self.stopping = threading.Event()
        self.lock = threading.Condition()
        self.numbers = count(1)
        self.threads = [
            threading.Thread(target=work, args=(user,))
            for user in range(1, USERS + 1)
            for work in (self.deliver, self.append)
        ]

    def octets(self, identifier: str) -> bytes:
        size = 200 if len(identifier) % 2 else 90_000  # inline in the store, and in a file
        return (
            f"From: a@example.org\r\nSubject: {identifier}\r\nX-Id: {identifier}\r\n\r\n"
            + f"{identifier} " * (size // len(identifier))
            + "\r\n"
        ).encode()

    def next_id(self, kind: str) -> str:
        with self.lock:
            number = next(self.numbers)
        return f"{self.label}-{kind}-{number}" + "x" * (number % 2)

    def note(self, identifier: str, user: int, octets: bytes, flagged: bool) -> None:
        body = octets.partition(b"\r\n\r\n")[2]
        with self.lock:
            self.acknowledged[identifier] = (user, hashlib.sha256(body).hexdigest(), flagged)
            self.lock.notify_all()

    def deliver(self, user: int) -> None:
        while not self.stopping.is_set():
            identifier = self.next_id("deliver")
            octets = self.octets(identifier)
            said = self.demo.deliver(self.demo.frontend, self.demo.user(user), octets)
            if said.startswith("250"):
                self.note(identifier, user, octets, False)
            else:
                if said.startswith("5"):
                    self.bounced.append(said)
                pause(0.02, "a queue's, before it tries the next")

    def append(self, user: int) -> None:
        client: imaplib.IMAP4 | None = None
        while not self.stopping.is_set():
            identifier = self.next_id("append")
            octets = self.octets(identifier)
            try:
                client = client or self.demo.imap(self.demo.frontend, self.demo.user(user))
                if client.append("INBOX", r"(\Flagged)", "", octets)[0] == "OK":
                    self.note(identifier, user, octets, True)
            except (OSError, imaplib.IMAP4.error):
                client = None
                pause(0.02, "a client's, before it connects again")
        if client is not None:
            try:
                client.logout()
            except (OSError, imaplib.IMAP4.error):
                pass

    def wait_for(self, more: int) -> None:
        with self.lock:
            goal = len(self.acknowledged) + more
            assert self.lock.wait_for(lambda: len(self.acknowledged) >= goal, 90), (
                f"only {len(self.acknowledged)} of {goal} were acknowledged"
            )


def stored(demo: Demo, user: int) -> dict[str, list[tuple[str, bool]]]:
    """Every message of a user's INBOX by its X-Id: digest of its body, and whether it is flagged."""
    found: dict[str, list[tuple[str, bool]]] = {}
    with demo.imap(demo.frontend, demo.user(user)) as client:
        # a frontend tries a backend that was down every few seconds
        until(lambda: client.select("INBOX", readonly=True)[0] == "OK", "INBOX is there")
        for part in client.fetch("1:*", "(FLAGS BODY.PEEK[])")[1]:
            if isinstance(part, tuple):
                head, _, body = part[1].partition(b"\r\n\r\n")
                match = re.search(rb"X-Id: (\S+)", head)
                if match is None:
                    continue  # another test's
                seen = (hashlib.sha256(body).hexdigest(), rb"\Flagged" in part[0])
                found.setdefault(match.group(1).decode(), []).append(seen)
    return found


def names_at_master(demo: Demo) -> dict[str, str]:
    """The master's list by MUPDATE: name -> server."""
    return names_at(demo.info["mupdate"]["port"])


def names_at(port: int) -> dict[str, str]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        stream = sock.makefile("rb")
        while not stream.readline().startswith(b"* OK"):
            pass
        plain = base64.b64encode(b"\0admin\0secret").decode()
        sock.sendall(f'A AUTHENTICATE "PLAIN" "{plain}"\r\nL LIST\r\nZ LOGOUT\r\n'.encode())
        octets = stream.read()
    rows = re.findall(
        rb'L MAILBOX (?:"([^"]*)"|\{\d+\+?\}\r\n([^ ]*)) (?:"([^"]*)"|\{\d+\+?\}\r\n([^ ]*))',
        octets,
    )
    return {
        (row[0] or row[1]).decode(): (row[2] or row[3]).decode().partition("!")[0] for row in rows
    }


def names_seen(demo: Demo, server: dict[str, object]) -> set[str]:
    with demo.imap(server, "admin") as client:
        lines = client.list()[1]
    return {
        line.decode().rsplit(" ", 1)[1].replace("/", ".")
        for line in lines
        if isinstance(line, bytes)
    }


def differences(demo: Demo) -> str:
    """What the lists of master, backends and frontend have apart, as they are read one after the other."""
    # what was deleted and is kept for a time is in the list, and no LIST tells it
    found = names_at_master(demo)
    master = {name: server for name, server in found.items() if not name.startswith("DELETED.")}
    if not master:
        return "the master's list is empty"
    by_server = {backend["name"]: names_seen(demo, backend) for backend in demo.backends}
    for name, server in master.items():
        if name not in by_server[server]:
            return f"{name} is not at {server}"
    counted = Counter(name for names in by_server.values() for name in names)
    if counted != Counter(master.keys()):
        return f"{counted} at the backends, {master} at the master"
    apart = set(master) ^ names_seen(demo, demo.frontend)
    return f"the frontend has apart {apart}" if apart else ""


def check_lists_agree(demo: Demo) -> None:
    """They do so soon: what a backend owes its master behind a failure it pays within seconds, a replica catches up, and
    nobody outside is told when."""
    until(lambda: not differences(demo), lambda: differences(demo), every_s=0.1)


def check_mail(demo: Demo, load: Load) -> None:
    """What was acknowledged is there, once, whole, with its flags; nothing was refused for good."""
    assert not load.bounced
    found = {user: stored(demo, user) for user in range(1, USERS + 1)}
    for identifier, (user, digest, flagged) in load.acknowledged.items():
        copies = found[user].get(identifier, [])
        assert copies == [(digest, flagged)], f"{identifier}: {copies}"
    for user, messages in found.items():
        for identifier, copies in messages.items():
            assert len(copies) == 1, f"{identifier} of user {user} is there {len(copies)} times"


@pytest.mark.parametrize("victim", ["be1", "be2", "fe1", "mupdate"])
def test_nothing_acknowledged_is_lost_doubled_or_damaged(demo: Demo, victim: str) -> None:
    load = Load(demo, victim)
    for thread in load.threads:
        thread.start()
    try:
        load.wait_for(BEFORE)
        demo.node("kill", victim)
        pause(0.3, "the others go on without it")
        demo.node("start", victim)
        load.wait_for(AFTER)
    finally:
        load.stopping.set()
        for thread in load.threads:
            thread.join(60)
    check_mail(demo, load)
    check_lists_agree(demo)
