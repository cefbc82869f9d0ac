"""Clients that keep count while mailboxes move and processes die: what was acknowledged, with UID and flags.

Every client appends, flags and expunges by UID through the frontend, in an INBOX or in a mailbox of a shared hierarchy;
beside each, deliveries come in. What nobody answered may have happened or not.
"""

import contextlib
import hashlib
import imaplib
import os
import random
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.kit.demo import Demo
from tests.kit.process import ROOT, murder_command
from tests.kit.waiting import pause, until
from tests.load.processes import tree

KEEP: Final = 30  # messages of a client above which it expunges
WAIT_S: Final = 60.0


@dataclass
class Mail:
    """A message, and what is known of it. `flags` are all that it may have."""

    mailbox: str
    digest: str
    acknowledged: bool = False
    uid: str = ""
    flags: list[frozenset[str]] = field(default_factory=list)
    gone: bool = False  # acknowledged as expunged
    going: bool = False  # an EXPUNGE was not answered


class Clients:
    """Everybody's mail. `mailboxes`: name -> the user who works there."""

    def __init__(self, demo: Demo, mailboxes: dict[str, str]) -> None:
        self.demo = demo
        self.mailboxes = mailboxes
        self.mail: dict[str, Mail] = {}
        self.wrong: list[str] = []  # answers that no server may give
        self.stopping = threading.Event()
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(mailbox, user))
            for mailbox, user in mailboxes.items()
        ] + [
            threading.Thread(target=self._deliver, args=(user,))
            for mailbox, user in mailboxes.items()
            if mailbox.endswith("INBOX")
        ]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _new(self, mailbox: str, flags: frozenset[str]) -> tuple[str, bytes, Mail]:
        with self._lock:
            number = next(self._numbers)
            identifier = f"m{number}z"
            size = 40_000 if number % 5 == 0 else 300
            body = f"{identifier} " * (size // 8) + "\r\n"
            mail = Mail(mailbox, hashlib.sha256(body.encode()).hexdigest(), flags=[flags])
            self.mail[identifier] = mail
        head = f"From: a@example.org\r\nSubject: {identifier}\r\nX-Id: {identifier}\r\n\r\n"
        return identifier, (head + body).encode(), mail

    # --- what they do

    def _deliver(self, user: str) -> None:
        while not self.stopping.is_set():
            _, octets, mail = self._new(f"{user}/INBOX", frozenset())
            said = self.demo.deliver(self.demo.frontend, user, octets)
            mail.acknowledged = said.startswith("250")
            if said.startswith("5"):
                self.wrong.append(f"delivery to {user}: {said}")
            pause(0.05, "a queue's: the storm is in the moves and the kills")

    def _work(self, mailbox: str, user: str) -> None:
        chance = random.Random(mailbox)
        client: imaplib.IMAP4 | None = None
        mine: list[str] = []
        while not self.stopping.is_set():
            try:
                if client is None:
                    client = self.demo.imap(self.demo.frontend, user)
                    if client.select(self._place(mailbox))[0] != "OK":
                        client.logout()
                        client = None
                        pause(0.1, "a client's, before it tries again")
                        continue
                self._once(client, mailbox, mine, chance)
            except (OSError, imaplib.IMAP4.error):
                client = None
            pause(0.02, "a client's")
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            if client is not None:
                client.logout()

    def _place(self, mailbox: str) -> str:
        return "INBOX" if mailbox.endswith("/INBOX") else mailbox

    def _once(
        self, client: imaplib.IMAP4, mailbox: str, mine: list[str], chance: random.Random
    ) -> None:
        some = [self.mail[one] for one in mine]
        known = [one for one in some if one.uid and not one.gone and not one.going]
        if len(known) > KEEP:
            self._expunge(client, chance.choice(known))
        elif known and chance.random() < 0.4:
            self._flag(client, chance.choice(known), chance)
        else:
            flags = frozenset({r"\Flagged"}) if chance.random() < 0.5 else frozenset[str]()
            identifier, octets, mail = self._new(mailbox, flags)
            mine.append(identifier)
            told = client.append(self._place(mailbox), f"({' '.join(flags)})", "", octets)
            mail.acknowledged = told[0] == "OK"
            found = re.search(rb"APPENDUID \d+ (\d+)", told[1][0] or b"")
            if mail.acknowledged and found:
                mail.uid = found[1].decode()

    def _flag(self, client: imaplib.IMAP4, mail: Mail, chance: random.Random) -> None:
        sign, flag = chance.choice("+-"), chance.choice((r"\Answered", "$Storm", r"\Flagged"))
        after = [one | {flag} if sign == "+" else one - {flag} for one in mail.flags]
        before, mail.flags = mail.flags, [*dict.fromkeys([*mail.flags, *after])]
        said = _stored(client, mail.uid, f"{sign}FLAGS", flag)
        if said == "OK":
            mail.flags = [*dict.fromkeys(after)]
        else:
            mail.flags = [*dict.fromkeys([*before, *after])]

    def _expunge(self, client: imaplib.IMAP4, mail: Mail) -> None:
        mail.going = True
        if _stored(client, mail.uid, "+FLAGS", r"\Deleted") == "OK":
            mail.gone = client._simple_command("UID", "EXPUNGE", mail.uid)[0] == "OK"

    # --- what must be there

    def check(self) -> None:
        """Every acknowledged message is there once, whole, with its UID and flags; nothing else is there twice."""
        assert not self.wrong
        assert sum(mail.acknowledged for mail in self.mail.values()) > len(self.mailboxes)
        faults: list[str] = []
        for mailbox, user in self.mailboxes.items():
            found = self._stored(mailbox, user)
            for identifier, mail in self.mail.items():
                if mail.mailbox == mailbox:
                    faults += _faults(identifier, mail, found.pop(identifier, []))
            faults += [f"{mailbox}: {one} belongs elsewhere" for one in found]
        assert not faults, "\n".join(faults[:20])

    def _stored(self, mailbox: str, user: str) -> dict[str, list[tuple[str, str, frozenset[str]]]]:
        found: dict[str, list[tuple[str, str, frozenset[str]]]] = {}
        with self.demo.imap(self.demo.frontend, user) as client:
            place = self._place(mailbox)
            # a frontend tries a backend that was down every few seconds
            until(lambda: client.select(place, readonly=True)[0] == "OK", place, WAIT_S, 0.1)
            for part in client.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[])")[1]:
                if not isinstance(part, tuple):
                    continue
                uid = re.search(rb"UID (\d+)", part[0])
                flags = re.search(rb"FLAGS \(([^)]*)\)", part[0])
                identifier = re.search(rb"X-Id: (\S+)", part[1])
                assert uid and flags
                if identifier is None:
                    continue  # another test's
                named = frozenset(flags[1].decode().split()) - {r"\Recent", r"\Seen"}
                digest = hashlib.sha256(part[1].partition(b"\r\n\r\n")[2]).hexdigest()
                entry = (uid[1].decode(), digest, named)
                found.setdefault(identifier[1].decode(), []).append(entry)
        return found


def _stored(client: imaplib.IMAP4, uid: str, how: str, flag: str) -> str:
    """OK where the message is told of with its new flags: a session that has not been told of a UID may be answered with a
    mere OK for it (RFC 3501 §6.4.8)."""
    said, rows = client.uid("STORE", uid, how, f"({flag})")
    is_told = any(row and b"UID %s" % uid.encode() in row for row in rows if isinstance(row, bytes))
    return "OK" if said == "OK" and is_told else "NO"


def _faults(
    identifier: str, mail: Mail, copies: list[tuple[str, str, frozenset[str]]]
) -> Iterator[str]:
    where = f"{mail.mailbox}: {identifier}"
    if len(copies) > 1:
        yield f"{where} is there {len(copies)} times: {copies}"
    elif not copies:
        if mail.acknowledged and not mail.going:
            yield f"{where} was acknowledged as UID {mail.uid or '?'}, and is not there"
    else:
        uid, digest, flags = copies[0]
        if mail.gone:
            yield f"{where} was expunged, and is there as UID {uid}"
        if mail.uid and uid != mail.uid:
            yield f"{where} was acknowledged as UID {mail.uid}, and is UID {uid}"
        if digest != mail.digest:
            yield f"{where} is damaged"
        if not mail.going and flags not in mail.flags:
            yield f"{where} has {set(flags)}, may have {mail.flags}"


# --- who dies


def kill_something(demo: Demo, chance: random.Random) -> str:
    """A node as a whole, started again, or one of its processes, which its supervisor starts again; what it was."""
    backends = [backend["node"] for backend in demo.backends]
    victim = chance.choice([*backends, *backends, "mupdate", "fe1"])
    if chance.random() < 0.4:
        pids = processes(demo, victim)
        if len(pids) > 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(pids[1:]), signal.SIGKILL)
            return f"a process of {victim}"
    demo.node("kill", victim)
    demo.node("start", victim)
    return str(victim)


def processes(demo: Demo, node: str) -> list[int]:
    """The process of a node, then those below it."""
    config = f"{demo.folder / node / 'murder.toml'}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if config in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    roots = [pid for pid in found if not any(pid in tree([other]) - {other} for other in found)]
    return [*roots, *sorted(tree(roots) - set(roots))] if roots else []


# --- who moves what


def run_ctl(demo: Demo, *words: str) -> tuple[int, str]:
    """`murder ctl WORDS`: exit code and output."""
    done = subprocess.run(
        [*murder_command(), "ctl", *words, "--config", str(demo.info["operator"])],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        timeout=WAIT_S,
    )
    return done.returncode, done.stdout + done.stderr


def home_of(demo: Demo, name: str) -> dict[str, Any] | None:
    """The backend that shows this mailbox; nobody while it is on its way."""
    for backend in demo.backends:
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            with demo.imap(backend, "admin") as admin:
                if admin.list('""', name)[1] != [None]:
                    return backend
    return None
