"""A user with much mail: filled by MULTIAPPEND, told message by message, and worked with by a client that keeps count.

Any IMAP server will do. Sizes, flags and dates come from the message's number, so every run has the same mail.
"""

import hashlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.kit.waiting import pause

FOLDERS: Final = ("INBOX", "INBOX/Sent", "INBOX/Archive", "INBOX/Archive/2025", "INBOX/Lists")
SIZES: Final = (  # octets, of so many in 200: 21.5 KB on average, as mail goes
    *((2_000, 70), (4_000, 50), (9_000, 38), (30_000, 27), (120_000, 10), (200_000, 3)),
    *((500_000, 1), (1_000_000, 1)),
)
MIX: Final = tuple(size for size, count in SIZES for _ in range(count))
FLAGS: Final = ("\\Seen", "", "\\Seen $Work", "\\Seen \\Answered", "\\Flagged", "\\Seen", "\\Seen")
AT_ONCE: Final = 100  # messages of one MULTIAPPEND
GAP_EVERY: Final = 40  # so many messages, one is expunged again: UIDs are no simple row
TIMEOUT_S: Final = 900.0


def octets_of(folder: str, number: int) -> bytes:
    """A message like no other: its body repeats a line that its number makes."""
    size = MIX[number * 7919 % len(MIX)]
    seed = hashlib.sha256(f"{folder} {number}".encode()).hexdigest()
    head = (
        f"From: Ana <ana@example.org>\r\nTo: bob@example.org\r\nSubject: {folder} {number}\r\n"
        f"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{seed}@test.example>\r\n\r\n"
    )
    line = (seed + seed[::-1])[:76] + "\r\n"
    return (head + line * max(1, (size - len(head)) // len(line))).encode()


class Imap:
    """A connection that reads answers of any length as a stream of lines with their literals."""

    def __init__(
        self,
        host: str,
        user: str,
        password: str,
        timeout_s: float = TIMEOUT_S,
        *,
        tls: bool = False,
    ) -> None:
        self.sock = socket.create_connection((host, 993 if tls else 143), timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:  # whose certificate it is, is nothing to be measured
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)
        self.stream = self.sock.makefile("rb", 1 << 20)
        self.stream.readline()
        self._tags = 0
        self.ask(f"LOGIN {user} {password}")

    def lines(self, command: str | bytes) -> Iterator[tuple[bytes, bytes]]:
        """Each answer: its text and its last literal; the tagged line last. Raises EOFError."""
        self._tags += 1
        tag = b"t%d" % self._tags
        octets = command.encode() if isinstance(command, str) else command
        self.sock.sendall(tag + b" " + octets + b"\r\n")
        while True:
            text, literal = b"", b""
            while True:
                line = self.stream.readline()
                if not line:
                    raise EOFError("the server closed")
                text += line
                if not line.endswith(b"}\r\n"):
                    break
                literal = self.stream.read(int(line[line.rindex(b"{") + 1 : -3]))
            yield text, literal
            if text.startswith(tag + b" "):
                return

    def ask(self, command: str | bytes) -> list[bytes]:
        """All lines of an answer. Raises Refused where the last is not OK."""
        told = [text for text, _ in self.lines(command)]
        if told[-1].split(b" ", 2)[1] != b"OK":
            raise Refused(told[-1].decode("utf-8", "replace").strip())
        return told

    def close(self) -> None:
        self.stream.close()
        self.sock.close()


class Refused(Exception):
    """NO or BAD, as it was said."""


def fill(client: Imap, messages: int) -> None:
    """So many in all, over `FOLDERS`; some are expunged again."""
    each = messages // len(FOLDERS)
    for folder in FOLDERS:
        if folder != "INBOX":
            client.ask(f"CREATE {folder}")
            client.ask(f"SUBSCRIBE {folder}")
        more = each + each // GAP_EVERY
        for first in range(0, more, AT_ONCE):
            parts = [f"APPEND {folder}".encode()]
            for number in range(first, min(first + AT_ONCE, more)):
                octets = octets_of(folder, number)
                date = f"{number % 28 + 1:2d}-Nov-2025 12:{number % 60:02d}:00 +0100"
                flags = FLAGS[number % len(FLAGS)]
                parts.append(f'({flags}) "{date}" {{{len(octets)}+}}\r\n'.encode() + octets)
            octets = parts[0] + b"".join(b" " + part for part in parts[1:])
            client.ask(octets)
        client.ask(f"SELECT {folder}")
        gone = ",".join(map(str, range(GAP_EVERY, more + 1, GAP_EVERY + 1)))
        if gone:
            client.ask(f"UID STORE {gone} +FLAGS.SILENT (\\Deleted)")
            client.ask("EXPUNGE")
        client.ask("CLOSE")


@dataclass(frozen=True)
class Fact:
    """A message as a client sees it."""

    uid: int
    flags: frozenset[str]
    date: str
    modseq: int
    digest: str


@dataclass
class Seen:
    """A whole user."""

    folders: dict[str, dict[int, Fact]] = field(default_factory=dict)
    validity: dict[str, str] = field(default_factory=dict)
    octets: int = 0

    @property
    def messages(self) -> int:
        return sum(map(len, self.folders.values()))


_FACTS: Final = re.compile(rb'UID (\d+)|FLAGS \(([^)]*)\)|INTERNALDATE "([^"]*)"|MODSEQ \((\d+)\)')


def look(client: Imap) -> Seen:
    """All mailboxes, all messages, all octets."""
    seen = Seen()
    for folder in FOLDERS:
        told = b"".join(client.ask(f"EXAMINE {folder} (CONDSTORE)"))
        found = re.search(rb"UIDVALIDITY (\d+)", told)
        assert found, told
        seen.validity[folder] = found[1].decode()
        rows = seen.folders[folder] = {}
        command = "UID FETCH 1:* (UID FLAGS INTERNALDATE MODSEQ BODY.PEEK[])"
        for text, literal in client.lines(command):
            if b" FETCH (" not in text:
                continue
            facts = [b""] * 4
            for match in _FACTS.finditer(text):
                index = match.lastindex or 0
                facts[index - 1] = match[index]
            flags = frozenset(facts[1].decode().split()) - {"\\Recent"}
            uid = int(facts[0])
            digest = hashlib.sha256(literal).hexdigest()
            rows[uid] = Fact(uid, flags, facts[2].decode().strip(), int(facts[3]), digest)
            seen.octets += len(literal)
    return seen


class Worker(threading.Thread):
    """A client of the user who moves: it reads, appends and flags in INBOX, through a frontend, without a pause, and keeps
    what was acknowledged. `gaps_s` are the times in which it could not write, from the first refusal to the next OK."""

    def __init__(self, host: str, user: str, password: str) -> None:
        super().__init__(daemon=True)  # a benchmark that fails ends without it
        self._where = (host, user, password)
        self.stopping = threading.Event()
        self.appended: dict[int, tuple[str, frozenset[str]]] = {}  # uid -> digest, flags
        self.unsure: set[str] = set()  # digests of appends that nobody answered
        self.writes = self.reads = self.refusals = 0
        self.slowest_write_s = self.longest_gap_s = 0.0
        self.said: set[str] = set()
        self._client: Imap | None = None
        self._unable_since = 0.0

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            octets = octets_of("worker", number)[:3000] + b"\r\n"
            began = time.perf_counter()
            try:
                self._work(number, octets)
            except (Refused, EOFError, OSError) as problem:
                self.refusals += 1
                self.said.add(re.sub(r"^\S+ ", "", str(problem)).replace(str(number), "N"))
                if not isinstance(problem, Refused):
                    self._client = None
                    self.unsure.add(hashlib.sha256(octets).hexdigest())
                self._unable_since = self._unable_since or began
                pause(0.005, "a client's, before it tries again")

    def _work(self, number: int, octets: bytes) -> None:
        if self._client is None:
            self._client = Imap(*self._where, timeout_s=60)
            self._client.ask("SELECT INBOX")
        began = time.perf_counter()
        told = self._client.ask(b"APPEND INBOX (\\Seen) {%d+}\r\n%s" % (len(octets), octets))
        self._could_write(began)
        found = re.search(rb"APPENDUID \d+ (\d+)", told[-1])
        assert found, told
        uid, digest = int(found[1]), hashlib.sha256(octets).hexdigest()
        self.appended[uid] = (digest, frozenset({"\\Seen"}))
        self._client.ask(f"UID FETCH {number % 50 + 1} (FLAGS BODY.PEEK[HEADER])")
        self.reads += 1
        if number % 3 == 0:
            began = time.perf_counter()
            self.appended[uid] = (digest, frozenset())  # not known until it is answered
            self._client.ask(f"UID STORE {uid} +FLAGS (\\Flagged)")
            self._could_write(began)
            self.appended[uid] = (digest, frozenset({"\\Seen", "\\Flagged"}))

    def _could_write(self, began: float) -> None:
        now = time.perf_counter()
        self.writes += 1
        self.slowest_write_s = max(self.slowest_write_s, now - began)
        if self._unable_since:
            self.longest_gap_s = max(self.longest_gap_s, now - self._unable_since)
            self._unable_since = 0.0

    @property
    def pause_s(self) -> float:
        """The longest time in which it waited to write, refused or unanswered."""
        return max(self.slowest_write_s, self.longest_gap_s)


class Bystander(threading.Thread):
    """Other users of the same server: sessions that take turns with NOOP and FETCH, and how long the slowest took; and how
    much of a processor whichever of these `processes` used most while one of them waited, where other programs run beside
    it."""

    def __init__(
        self,
        host: str,
        users: list[str],
        password: str,
        *,
        tls: bool = False,
        processes: Sequence[int] = (),
    ) -> None:
        super().__init__(daemon=True)
        # of all threads of a process: as clock_getcpuclockid(3) makes it of its number
        self._clocks = [~process << 3 | 2 for process in processes]
        self._clients = [Imap(host, user, password, 60, tls=tls) for user in users]
        for client in self._clients:
            client.ask("SELECT INBOX")
        self.stopping = threading.Event()
        self.taken_s: list[float] = []
        self.used_s: list[float] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            for client in self._clients:
                for command in ("NOOP", "UID FETCH 1 (FLAGS BODY.PEEK[])"):
                    before = self._used_s()
                    began = time.perf_counter()
                    client.ask(command)
                    self.taken_s.append(time.perf_counter() - began)
                    used = zip(before, self._used_s(), strict=True)
                    self.used_s.append(max((after - was for was, after in used), default=0.0))
                pause(0.002, "a client's, before it tries again")

    def _used_s(self) -> list[float]:
        return [time.clock_gettime(clock) for clock in self._clocks]

    def end(self) -> tuple[float, float]:
        """The slowest and the 99th in 100, in milliseconds."""
        self.stopping.set()
        self.join()
        for client in self._clients:
            client.close()
        return _worst(self.taken_s)

    def used(self) -> tuple[float, float]:
        """As `end`, behind it: of the processor."""
        return _worst(self.used_s)


def beside(others: Sequence[Bystander], work: Callable[[], None]) -> list[tuple[float, float]]:
    """What each of them tells at its `end`, who go on while something else works."""
    for other in others:
        other.start()
    try:
        work()
    finally:
        ended = [other.end() for other in others]
    return ended


def _worst(taken_s: list[float]) -> tuple[float, float]:
    """The most and the 99th in 100, in milliseconds."""
    taken = sorted(taken_s)
    return 1000 * taken[-1], 1000 * taken[len(taken) * 99 // 100]


def faults(before: Seen, after: Seen, worker: Worker, *, modseqs: bool) -> list[str]:
    """What has not arrived as it was, or as it was acknowledged meanwhile; nothing is well."""
    told = []
    if before.validity != after.validity:
        told.append(f"UIDVALIDITY {before.validity} -> {after.validity}")
    for folder, was in before.folders.items():
        rows = dict(after.folders.get(folder, {}))
        new = {uid: rows.pop(uid) for uid in list(rows) if uid not in was}
        if not modseqs:
            was = {uid: _without_modseq(fact) for uid, fact in was.items()}
            rows = {uid: _without_modseq(fact) for uid, fact in rows.items()}
        if was != rows:
            wrong = [uid for uid, fact in was.items() if rows.get(uid) != fact]
            shown = [(was[uid], rows.get(uid)) for uid in wrong[:2]]
            told.append(f"{folder}: {len(wrong)} messages are lost or changed: {shown}")
        if folder == "INBOX":
            told += _faults_of_work(worker, new)
        elif new:
            told.append(f"{folder}: {len(new)} messages that nobody put there")
    return told


def _without_modseq(fact: Fact) -> Fact:
    return Fact(fact.uid, fact.flags, fact.date, 0, fact.digest)


def _faults_of_work(worker: Worker, new: dict[int, Fact]) -> list[str]:
    told = []
    for uid, (digest, flags) in worker.appended.items():
        fact = new.pop(uid, None)
        if fact is None or fact.digest != digest:
            told.append(f"INBOX: UID {uid} was acknowledged, and is {fact}")
        elif flags and fact.flags != flags:
            told.append(f"INBOX: UID {uid} has {set(fact.flags)}, not {set(flags)}")
    told += [
        f"INBOX: UID {uid} was never answered with OK"
        for uid, fact in new.items()
        if fact.digest not in worker.unsure
    ]
    return told
