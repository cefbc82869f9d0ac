"""Deliveries with users' scripts over several backends, which die and come back.

    python -m tests.faults.filter_storm SECONDS [SEED]

Each user's script redirects a copy, and keeps one and files one beside, or files into a mailbox on another backend; so does
a shared mailbox's, which is nobody's. A sender repeats a message until it hears OK, as mail servers do. In the end each
message is where it belongs, and once: only where a sender had no answer may it have come again (RFC 1047: the answer was
lost behind the last step), and what is redirected may be sent again where the backend died between the mail server's deed
and the reading of its word; a notification is not sent again then, and may be lost.
"""

import contextlib
import random
import re
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.kit.demo import Demo, message, reconfigure, running_demo
from tests.kit.managesieve import ManageSieve
from tests.kit.threads import in_a_thread
from tests.kit.waiting import pause, until

USERS: Final = 6
BACKENDS: Final = 3
SHARED: Final = "list"
PLACES: Final = {"near": ("", "/near"), "far": ("/far",)}  # by subject, below the mailbox
SCRIPT: Final = """require ["fileinto", "copy", "enotify", "variables"];
if header :matches "message-id" "<*>" {{ set "id" "${{1}}"; }}
notify :message "told of <${{id}}>" "mailto:{name}.note@elsewhere.example";
redirect :copy "{name}@elsewhere.example";
if header "subject" "near" {{ fileinto :copy "{mailbox}/near"; }} else {{ fileinto "{mailbox}/far"; }}
"""
NAMED: Final = "/shared/vendor/cmu/cyrus-imapd/sieve"
_ID: Final = re.compile(rb"(?im)^message-id: <([^>]+)>")
_TOLD: Final = re.compile(rb"(?im)^subject: told of <([^>]+)>")  # a notification, and of what


class Sink(socketserver.ThreadingTCPServer):
    """A mail server: which messages it has taken, by recipient and Message-ID; `deeds`: what is done, once, behind taking a
    message for this recipient and before its word; `says`: what those are told that it does not take, `tries`: how often."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.taken: Counter[tuple[str, str]] = Counter()
        self.deeds: dict[str, Callable[[], object]] = {}
        self.says: dict[str, bytes] = {}
        self.tries: Counter[str] = Counter()


class _Session(socketserver.StreamRequestHandler):
    server: Sink

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a backend that dies
            self._speak()

    def _speak(self) -> None:
        self.wfile.write(b"220 sink\r\n")
        recipient = ""
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"RCPT":
                recipient = line.split(b"<")[1].split(b">")[0].decode()
                if said := self.server.says.get(recipient):
                    self.server.tries[recipient] += 1
                    self.wfile.write(said)
                    continue
            if word != b"DATA":
                self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
                continue
            self.wfile.write(b"354 go on\r\n")
            octets = b""
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                octets += line
            found = _TOLD.search(octets) or _ID.search(octets)
            if line and found is not None:
                self.server.taken[recipient, found[1].decode()] += 1
                if deed := self.server.deeds.pop(recipient, None):
                    deed()
                self.wfile.write(b"250 taken\r\n")


@dataclass
class Sender:
    """Mail for one mailbox, a user's or shared. `unanswered`: messages that were sent again because no answer came."""

    name: str
    address: str
    mailbox: str  # as its reader calls it
    reader: str
    acknowledged: list[str] = field(default_factory=list)
    unanswered: Counter[str] = field(default_factory=Counter)


class Storm:
    """See the module."""

    def __init__(self, demo: Demo, sink: Sink, seed: int) -> None:
        self.demo = demo
        self.sink = sink
        self._chance = random.Random(seed)
        users = [demo.user(number) for number in range(1, USERS + 1)]
        self._senders = [Sender(user, user, "INBOX", user) for user in users]
        self._senders.append(Sender(SHARED, f"+{SHARED}", SHARED, users[0]))
        self._stopping = threading.Event()
        self.kills = 0

    def prepare(self) -> None:
        """Mailboxes and scripts; backends know where to send mail."""
        host, port = self.sink.server_address[:2]
        folder = self.demo.folder / "named"
        folder.mkdir()
        script = SCRIPT.format(name=SHARED, mailbox=SHARED)
        (folder / "sort.sieve").write_text(script)
        section = (
            f'[sieve]\nfolder = "{folder}"\n'
            f'[backend.submission]\nserver = "{host!s}:{port}"\ntls = "none"\nretry_s = 0.2\n'
        )
        for backend in self.demo.backends:
            reconfigure(self.demo, backend["node"], "[backend]", f"{section}\n[backend]")
        names = [backend["name"] for backend in self.demo.backends]
        with self.demo.imap(self.demo.frontend, "admin") as admin:

            def ok(*words: str) -> None:
                assert admin._simple_command(*words)[0] == "OK", words

            ok("CREATE", SHARED, f"{names[0]}!default")
            for number, sender in enumerate(self._senders, 1):
                is_user = sender.name != SHARED
                home = names.index(self.demo.home(number)["name"]) if is_user else 0
                root = f"user/{sender.name}" if is_user else SHARED
                for place, where in (("near", home), ("far", (home + 1) % len(names))):
                    ok("CREATE", f"{root}/{place}", f"{names[where]}!default")
            for place in ("", "/near", "/far"):
                ok("SETACL", f"{SHARED}{place}", "anyone", "lrsp")
            assert admin.xatom("SETMETADATA", SHARED, f'({NAMED} "sort")')[0] == "OK"
        for sender in self._senders[:USERS]:
            with ManageSieve(self.demo.frontend["host"], self.demo.frontend["sieve"]) as client:
                assert client.login(sender.name, self.demo.password).is_ok
                script = SCRIPT.format(name=sender.name, mailbox="INBOX")
                client.ask('PUTSCRIPT "all"', script.encode())
                client.ask('SETACTIVE "all"')

    def rage(self, seconds: float, most_kills: int = sys.maxsize) -> None:
        """Deliver, while backends die and come back."""
        threads = [threading.Thread(target=self._send, args=(one,)) for one in self._senders]
        for thread in threads:
            thread.start()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end and self.kills < most_kills:
                pause(self._chance.uniform(0.5, 2.0), "when one dies is chance")
                node = self._chance.choice(self.demo.backends)["node"]
                self.demo.node("kill", node)
                self.demo.node("start", node)
                self.kills += 1
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join(120)

    def _send(self, sender: Sender) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            subject = "near" if number % 2 else "far"
            identifier = f"{subject}.{sender.name}.{number}@storm.example"
            octets = message(subject, message_id=identifier)
            end = time.monotonic() + 90
            while True:
                said = self.demo.deliver(self.demo.frontend, sender.address, octets)
                if said.startswith("250"):
                    sender.acknowledged.append(identifier)
                    break
                assert said[:1] in ("", "4"), said
                sender.unanswered[identifier] += 1
                assert time.monotonic() < end, said
                pause(0.1, "a mail server waits before it tries again")

    def check(self) -> str:
        """Raises AssertionError; else what has been counted."""
        faults: list[str] = []
        again = 0
        for sender in self._senders:
            for subject, place in ((one, place) for one in PLACES for place in PLACES[one]):
                found = self.found(sender.reader, sender.mailbox + place)
                for identifier in sender.acknowledged:
                    if not identifier.startswith(subject):
                        continue
                    copies, excused = found[identifier], sender.unanswered[identifier]
                    again += max(0, copies - 1)
                    if not 1 <= copies <= 1 + excused:
                        faults.append(f"{identifier} is {copies} times in {sender.mailbox}{place}")
        wanted = {
            (f"{sender.name}@elsewhere.example", identifier)
            for sender in self._senders
            for identifier in sender.acknowledged
        }
        until(lambda: wanted <= self.sink.taken.keys(), "all is redirected", 60)
        sent_again = sum(self.sink.taken[one] - 1 for one in wanted)
        if sent_again > 4 * self.kills:  # as many as a backend sends at once
            faults.append(f"{sent_again} redirects were sent again, with {self.kills} kills")
        notes = {one: n for one, n in self.sink.taken.items() if ".note@" in one[0]}
        faults += [f"{n} notifications of {one}" for one, n in notes.items() if n > 1]

        def unsent() -> int:
            return sum(
                (to.replace("@", ".note@"), one) not in self.sink.taken for to, one in wanted
            )

        until(lambda: unsent() <= 4 * self.kills, "others are notified", 60)
        assert not faults, "\n".join(faults[:20])
        return (
            f"{self.kills} kills, {len(wanted)} messages acknowledged, "
            f"{sum(sum(one.unanswered.values()) for one in self._senders)} attempts without an OK; "
            f"{again} copies, {sent_again} redirects and no notification came again; {unsent()} notifications were not sent"
        )

    def found(self, user: str, place: str) -> Counter[str]:
        """How often each message is there."""
        with self.demo.imap(self.demo.frontend, user) as client:
            until(lambda: client.select(place, readonly=True)[0] == "OK", place, 60, 0.1)
            parts = client.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")[1]
            heads = [part[1] for part in parts if isinstance(part, tuple)]
        return Counter(found[1].decode() for one in heads if (found := _ID.search(one)))


@contextmanager
def storm(seed: int) -> Iterator[Storm]:
    """One that is ready."""
    options = ("--backends", str(BACKENDS), "--users", str(USERS), "--no-tls-required")
    with in_a_thread(Sink()) as sink, running_demo(*options) as demo:
        made = Storm(demo, sink, seed)
        made.prepare()
        yield made


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1, 10**6)
    print(f"seed {chosen}", flush=True)
    with storm(chosen) as one:
        one.rage(float(sys.argv[1]))
        print(one.check())
