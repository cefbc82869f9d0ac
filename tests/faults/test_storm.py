"""Mixed load through a frontend while its backends, the master, its follower and its workers are killed and frozen.

No wrong answer: what is refused is refused as "not now", what exists is never denied, what was acknowledged is there,
once. No hang beyond the timeouts. No octet of another user: every octet that a user's connections bring is looked through
for another's name, and all that is theirs is made of theirs.

MURDER_STORM_S is how long it goes on (default 25 s); MURDER_STORM_SEED makes it another.
"""

import contextlib
import os
import random
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.kit.demo import Demo, reconfigure, running_demo
from tests.kit.waiting import pause, until

STORM_S = float(os.environ.get("MURDER_STORM_S", "25"))
SEED = int(os.environ.get("MURDER_STORM_SEED", "7"))
USERS = 6
PATIENCE_S = 25.0  # more than all timeouts below and a frozen worker's time together
TIMEOUTS = """
connect_timeout_s = 2.0
upstream_timeout_s = 4.0
upstream_login_timeout_s = 3.0
breaker_retry_s = 0.3
"""
NAME = re.compile(rb"user([0-9]+)")
# the second: a LIST that says what is missing
NOT_NOW = re.compile(rb"\S+ NO (\[(UNAVAILABLE|INUSE|EXPUNGEISSUED)\]|Not all)")


class Gone(Exception):
    """The connection ended: a process was killed."""


class Storm:
    """What the clients share: what was acknowledged, and what went wrong."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.began = time.monotonic()
        self.stopping = threading.Event()
        self.wrong: list[str] = []
        self.numbers = count(1)
        self.lock = threading.Lock()
        self.kept: dict[int, dict[str, str]] = {n: {} for n in range(1, USERS + 1)}  # and how
        self.tried: dict[int, set[str]] = {n: set() for n in range(1, USERS + 1)}
        self.removed: dict[int, set[str]] = {n: set() for n in range(1, USERS + 1)}
        self.copied: dict[int, Counter[str]] = {n: Counter() for n in range(1, USERS + 1)}
        self.copies: dict[int, Counter[str]] = {n: Counter() for n in range(1, USERS + 1)}
        self.done: Counter[str] = Counter()

    def complain(self, text: str) -> None:
        with self.lock:
            self.wrong.append(text)

    def count(self, what: str) -> None:
        with self.lock:
            self.done[what] += 1

    def next_id(self, user: int) -> str:
        with self.lock:
            # none is a part of another: SEARCH finds parts
            identifier = f"m{next(self.numbers):06}"
        self.tried[user].add(identifier)
        return identifier

    def acknowledged(self, user: int, identifier: str, how: str, began: float) -> None:
        now = time.monotonic() - self.began
        self.kept[user][identifier] = f"{how} {began - self.began:.3f} to {now:.3f} s"


def message(user: int, identifier: str, large: bool) -> bytes:
    """Made of the user's name."""
    body = f"user{user} {identifier} ".encode() * (9000 if large else 20)
    lines = [body[at : at + 70] for at in range(0, len(body), 70)]
    return (
        f"From: user{user}\r\nSubject: {identifier}\r\n\r\n".encode()
        + b"\r\n".join(lines)
        + b"\r\n"
    )


class Wire:
    """A connection to the frontend as one user: all octets are looked at."""

    def __init__(self, storm: Storm, user: int, kind: str) -> None:
        frontend = storm.demo.frontend
        self.storm, self.user, self.kind = storm, user, kind
        self.began = time.monotonic()
        try:
            self.sock = socket.create_connection((frontend["host"], frontend[kind]), PATIENCE_S)
        except OSError as error:
            raise Gone from error
        self.stream: BinaryIO = self.sock.makefile("rb")
        self.seen = b""

    def line(self) -> bytes:
        return self._checked(lambda: self.stream.readline())

    def octets(self, size: int) -> bytes:
        return self._checked(lambda: self.stream.read(size), size)

    def _checked(self, read: Callable[[], bytes], size: int = 0) -> bytes:
        try:
            octets = read()
        except TimeoutError:
            self.storm.complain(f"user{self.user} {self.kind}: silent for {PATIENCE_S} s")
            raise Gone from None
        except OSError as error:
            raise Gone from error
        if len(octets) < size or (not size and not octets.endswith(b"\n")):
            raise Gone
        for found in NAME.finditer(octets):
            if int(found[1]) != self.user:
                self.storm.complain(f"user{self.user} got {octets[:300]!r} of another")
        return octets

    def send(self, octets: bytes) -> None:
        try:
            self.sock.sendall(octets)
        except OSError as error:
            raise Gone from error

    def close(self) -> None:
        self.stream.close()
        self.sock.close()


class Imap(Wire):
    """IMAP by hand."""

    def __init__(self, storm: Storm, user: int) -> None:
        super().__init__(storm, user, "imap")
        self.tags = count(1)
        if not self.line().startswith(b"* OK"):
            raise Gone
        self.ask(f"LOGIN user{user} secret".encode(), is_login=True)

    def ask(
        self, command: bytes, literal: bytes | None = None, is_login: bool = False
    ) -> list[bytes]:
        """All responses, literals inside, the tagged one last; [] where it is refused as "not now"."""
        tag = b"t%d " % next(self.tags)
        if literal is not None:
            self.send(tag + command + b" {%d+}\r\n" % len(literal) + literal + b"\r\n")
        else:
            self.send(tag + command + b"\r\n")
        lines = []
        while True:
            line = self.line()
            while (announced := re.search(rb"\{([0-9]+)\}\r\n$", line)) is not None:
                line += self.octets(int(announced[1]))
                line += self.line()
            if line.startswith(b"* BYE"):
                raise Gone
            lines.append(line)
            if line.startswith(tag):
                break
            if not line.startswith(b"* "):
                self.storm.complain(f"user{self.user}: {line[:60]!r} while {tag!r} is awaited")
        verb = b" ".join(command.split()[:2] if command.startswith(b"UID") else command.split()[:1])
        self.storm.count(verb.decode())
        if lines[-1].startswith(tag + b"OK"):
            return lines
        if not NOT_NOW.match(lines[-1]) or is_login:
            self.storm.complain(f"user{self.user}: {command[:60]!r} -> {lines[-1]!r}")
        self.storm.count("refused")
        return []


def imap_life(storm: Storm, user: int, dice: random.Random) -> None:
    """One login's worth of work."""
    client = Imap(storm, user)
    try:
        for _ in range(dice.randrange(3, 12)):
            if storm.stopping.is_set():
                return
            dice.choice((append, look, copy, remove, listing))(storm, client, dice)
    finally:
        client.close()


def append(storm: Storm, client: Imap, dice: random.Random) -> None:
    identifier = storm.next_id(client.user)
    octets = message(client.user, identifier, dice.random() < 0.2)
    began = time.monotonic()
    if said := client.ask(b"APPEND INBOX", octets):
        storm.acknowledged(client.user, identifier, said[-1].decode().strip(), began)


def look(storm: Storm, client: Imap, dice: random.Random) -> None:
    """What is fetched is whole, and the user's own."""
    if not client.ask(b"SELECT INBOX"):
        return
    for line in client.ask(b"UID FETCH 1:20 (UID FLAGS BODY.PEEK[])"):
        found = re.search(rb"Subject: (m[0-9]+)\r\n", line)
        if line.startswith(b"* ") and b"BODY[]" in line:
            identifier = found[1].decode() if found else ""
            whole = (message(client.user, identifier, large) for large in (False, True))
            if not any(octets in line for octets in whole):
                storm.complain(f"user{client.user}: {line[:200]!r} is not what was sent")


def found_uids(client: Imap, identifier: str) -> list[bytes]:
    for line in client.ask(b"UID SEARCH SUBJECT " + identifier.encode()):
        if line.startswith(b"* SEARCH"):
            return line.split()[2:]
    return []


def some_kept(storm: Storm, client: Imap, dice: random.Random) -> str:
    known = sorted(set(storm.kept[client.user]) - storm.removed[client.user])
    return dice.choice(known) if known else ""


def copy(storm: Storm, client: Imap, dice: random.Random) -> None:
    """To a mailbox on the same backend, and to one on the other."""
    identifier = some_kept(storm, client, dice)
    if identifier and client.ask(b"SELECT INBOX"):
        uids = found_uids(client, identifier)
        if uids:
            target = dice.choice((b"INBOX/near", b"INBOX/far"))
            storm.copies[client.user][identifier] += 1
            said = client.ask(b"UID COPY " + uids[0] + b" " + target)
            if said and b"[COPYUID " in said[-1]:  # else it was gone by then
                storm.copied[client.user][identifier] += 1


def remove(storm: Storm, client: Imap, dice: random.Random) -> None:
    identifier = some_kept(storm, client, dice)
    if not identifier or dice.random() < 0.5 or not client.ask(b"SELECT INBOX"):
        return
    uids = found_uids(client, identifier)
    if uids:
        for line in client.ask(b"UID FETCH " + uids[0] + b" BODY.PEEK[HEADER.FIELDS (SUBJECT)]"):
            if b"Subject: " in line and f"Subject: {identifier}\r\n".encode() not in line:
                storm.complain(f"user{client.user}: {uids} were found for {identifier}: {line!r}")
        storm.removed[client.user].add(identifier)  # from here on it may be there or not
        if client.ask(b"UID STORE " + uids[0] + rb" +FLAGS.SILENT (\Deleted)"):
            client.ask(b"UID EXPUNGE " + uids[0])


def listing(storm: Storm, client: Imap, dice: random.Random) -> None:
    lines = client.ask(b'LIST "" *')
    names = {line.split()[-1].strip(b'"') for line in lines[:-1] if line.startswith(b"* LIST")}
    if lines and names != {b"INBOX", b"INBOX/near", b"INBOX/far"}:
        storm.complain(f"user{client.user}: LIST gives {names}")
    client.ask(b"STATUS INBOX/far (MESSAGES)")


def lmtp_life(storm: Storm, user: int, dice: random.Random) -> None:
    wire = Wire(storm, user, "lmtp")

    def reply() -> bytes:
        while (line := wire.line())[3:4] == b"-":
            pass
        if line.startswith(b"5"):
            storm.complain(f"user{user}: LMTP says {line!r}")
        if line.startswith(b"421"):
            raise Gone
        return line

    try:
        reply()
        wire.send(b"LHLO storm\r\n")
        reply()
        for _ in range(dice.randrange(1, 6)):
            identifier = storm.next_id(user)
            wire.send(f"MAIL FROM:<>\r\nRCPT TO:<user{user}@x>\r\n".encode())
            reply()
            storm.count("RCPT")
            if not reply().startswith(b"250"):
                wire.send(b"RSET\r\n")
                reply()
                continue
            wire.send(b"DATA\r\n")
            reply()
            began = time.monotonic()
            wire.send(message(user, identifier, dice.random() < 0.2) + b".\r\n")
            if reply().startswith(b"250"):
                storm.acknowledged(user, identifier, "LMTP", began)
                storm.count("DATA")
    finally:
        wire.close()


def pop3_life(storm: Storm, user: int, dice: random.Random) -> None:
    wire = Wire(storm, user, "pop3")
    try:
        wire.line()
        wire.send(f"USER user{user}\r\nPASS secret\r\n".encode())
        wire.line()
        said = wire.line()
        if not said.startswith(b"+OK"):
            if not said.startswith((b"-ERR [SYS/TEMP]", b"-ERR [IN-USE]")):
                storm.complain(f"user{user}: POP3 says {said!r}")
            return
        for command in (b"LIST\r\n", b"RETR 1\r\n", b"QUIT\r\n"):
            wire.send(command)
            said = wire.line()
            storm.count("POP3")
            if said.startswith(b"+OK") and not command.startswith(b"QUIT"):
                while wire.line() != b".\r\n":
                    pass
    finally:
        wire.close()


def live(storm: Storm, user: int, life: Callable[[Storm, int, random.Random], None]) -> None:
    dice = random.Random(f"{SEED} {user} {life.__name__}")
    while not storm.stopping.is_set():
        try:
            life(storm, user, dice)
        except Gone:
            storm.count("gone")
        storm.stopping.wait(0.05 if life is not pop3_life else 0.5)


# --- the faults


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def strike(demo: Demo, dice: random.Random, nodes: list[str]) -> str:
    """One fault from its beginning to its end."""
    kind = dice.choice(("kill node", "freeze node", "kill worker", "freeze worker"))
    if kind.endswith("node"):
        node = dice.choice(nodes)
        verb = kind.split()[0]
        demo.node(verb, node)
        pause(dice.choice((0.3, 1.5, 6.0)), "as long as the fault lasts")
        demo.node("start" if verb == "kill" else "thaw", node)
        return f"{kind} {node}"
    worker = dice.choice(children(int(demo.frontend["pid"])))
    if kind == "kill worker":
        os.kill(worker, signal.SIGKILL)
        pause(0.5, "without that worker")
    else:
        os.kill(worker, signal.SIGSTOP)
        pause(dice.choice((0.5, 4.0)), "as long as it is frozen")
        os.kill(worker, signal.SIGCONT)
    return f"{kind} {worker}"


@contextmanager
def load(storm: Storm, users: int = USERS) -> Iterator[None]:
    threads = [
        threading.Thread(target=live, args=(storm, user, life))
        for user in range(1, users + 1)
        for life in (imap_life, imap_life, lmtp_life, pop3_life)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        storm.stopping.set()
        for thread in threads:
            thread.join(PATIENCE_S * 3)


def subjects(demo: Demo, user: int, mailbox: str) -> Counter[str]:
    """What is there, when all is calm again."""
    found: Counter[str] = Counter()

    def is_back() -> bool:
        with contextlib.suppress(OSError, EOFError):
            with demo.imap(demo.frontend, f"user{user}") as client:
                if client.select(mailbox, readonly=True)[0] == "OK":
                    item = "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])"
                    parts: list[Any] = client.fetch("1:*", item)[1]
                    text = b"".join(part[1] for part in parts if isinstance(part, tuple))
                    found.update(one.decode() for one in re.findall(rb"Subject: (m[0-9]+)", text))
                    return True
        return False

    until(is_back, f"user{user}'s {mailbox} comes back", every_s=0.2)
    return found


def prepare(demo: Demo) -> None:
    """Short timeouts, taken by SIGHUP; and for each user a mailbox on their backend and one on the other."""
    reconfigure(demo, "fe1", "[frontend]\n", "[frontend]" + TIMEOUTS)
    for user in range(1, USERS + 1):
        with demo.imap(demo.frontend, f"user{user}") as client:
            assert client.create("INBOX/near")[0] == "OK"
        home = demo.home(user)["name"]
        other = next(one for one in demo.backends if one["name"] != home)
        with demo.imap(other, "admin") as admin:
            assert admin.create(f"user/user{user}/far")[0] == "OK"
            assert admin.setacl(f"user/user{user}/far", f"user{user}", "lrswipkxtea")[0] == "OK"


@pytest.fixture
def demo(archive: Path) -> Iterator[Demo]:
    with running_demo("--users", str(USERS), "--workers", "2", "--no-tls-required") as running:
        yield running


def test_nothing_wrong_is_said_and_nothing_lost_in_a_storm(demo: Demo) -> None:
    prepare(demo)
    storm, dice = Storm(demo), random.Random(SEED)
    faults = []
    end = time.monotonic() + STORM_S
    with load(storm):
        while time.monotonic() < end and not storm.wrong:
            faults.append(strike(demo, dice, ["be1", "be2", "mupdate"]))
            pause(0.5, "between two faults")
    told = f"seed {SEED}; {faults}; {dict(storm.done)}"
    print(told)
    assert not storm.wrong, "\n".join([told, *storm.wrong[:20]])
    for user in range(1, USERS + 1):
        inbox = subjects(demo, user, "INBOX")
        doubled = {one for one, times in inbox.items() if times > 1}
        gone = set(storm.kept[user]) - storm.removed[user] - set(inbox)
        lost = {one: storm.kept[user][one] for one in gone}
        assert not doubled and not lost, f"user{user}: doubled {doubled}, lost {lost}; {told}"
        assert set(inbox) <= storm.tried[user]
        copies = subjects(demo, user, "INBOX/near") + subjects(demo, user, "INBOX/far")
        for identifier, times in storm.copied[user].items():
            assert times <= copies[identifier] <= storm.copies[user][identifier], (identifier, told)
