"""People at work while a murder is rebuilt beneath them: who delivers, who stores flags; and what each was told."""

import contextlib
import imaplib
import itertools
import random
import re
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.cyrus.our_roles import Imap, logged_in, message
from tests.kit.waiting import until

RETRY_S = 0.2
GIVE_UP_S = 60.0
TROUBLE = (OSError, AssertionError, imaplib.IMAP4.error, smtplib.SMTPException)


@dataclass(slots=True)
class Told:
    """What was acknowledged, by user."""

    delivered: dict[str, list[str]] = field(default_factory=dict)  # subjects
    flagged: dict[str, set[tuple[int, str]]] = field(default_factory=dict)  # UID and keyword
    bounced: list[str] = field(default_factory=list)
    waits: Counter[str] = field(default_factory=Counter)  # what was said when it did not go at once
    unsure: Counter[str] = field(default_factory=Counter)  # how often the text's answer was lost
    longest_s: float = 0.0  # from a first try to its acknowledgement

    def summary(self) -> str:
        """For whoever reads the test's output."""
        delivered = sum(map(len, self.delivered.values()))
        flagged = sum(map(len, self.flagged.values()))
        return f"{delivered} delivered, {flagged} flagged, longest {self.longest_s:.1f} s; {dict(self.waits)}"


class People:
    """See the module. `frontend` may change at any time; who is connected elsewhere connects anew."""

    def __init__(self, users: Sequence[str], frontend: str) -> None:
        self.users = list(users)
        self.frontend = frontend
        self.told = Told({user: [] for user in users}, {user: set() for user in users})
        self._stop = threading.Event()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(work, random.Random(seed)), daemon=True)
            for seed, work in enumerate((self._deliver, self._deliver, self._flag, self._flag))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> Told:
        self._stop.set()
        for thread in self._threads:
            thread.join(GIVE_UP_S)
            assert not thread.is_alive()
        return self.told

    def wait_for_some(self, most: int = 30) -> None:
        """Until so much more has been acknowledged: the murder works."""
        enough = self._count() + most
        until(lambda: self._count() >= enough, self.told.waits, GIVE_UP_S)

    def _count(self) -> int:
        told = self.told
        return sum(map(len, told.delivered.values())) + sum(map(len, told.flagged.values()))

    def _work(self, work: Callable[[random.Random, str], None], chance: random.Random) -> None:
        while not self._stop.is_set():
            work(chance, chance.choice(self.users))

    def _wait(self, why: object) -> None:
        with self._lock:
            self.told.waits[re.sub(r"\d{4,}|user\d+|\b[A-Z]{4}\d+\b", "_", str(why))[:110]] += 1
        self._stop.wait(RETRY_S)

    # --- deliveries

    def _deliver(self, _: random.Random, user: str) -> None:
        """As an MTA does it: again after a 4xx or a lost connection, never after a 250 or a 5xx."""
        subject, began = f"walk{next(self._numbers)}", time.monotonic()
        while time.monotonic() < began + GIVE_UP_S:
            code, text = self._offer(user, subject)
            if code == 250:
                with self._lock:
                    self.told.delivered[user].append(subject)
                    self.told.longest_s = max(self.told.longest_s, time.monotonic() - began)
                return
            if code >= 500:
                with self._lock:
                    self.told.bounced.append(f"{user} {subject} {code} {text!r}")
                return
            self._wait(text)

    def _offer(self, user: str, subject: str) -> tuple[int, object]:
        try:
            with smtplib.LMTP(self.frontend, 24, local_hostname="mta.test", timeout=20) as client:
                client.ehlo_or_helo_if_needed()
                if client.has_extn("auth"):
                    client.login("murder", "secret")
                client.mail("sender@example.org")
                code, text = client.rcpt(f"{user}@example.org")
                if code != 250:
                    return code, text
                client.putcmd("data")
                code, text = client.getreply()
                if code != 354:
                    return code, text
                client.send(message(subject) + b".\r\n")
                return self._verdict(client, subject)
        except TROUBLE as problem:
            return 451, problem

    def _verdict(self, client: smtplib.LMTP, subject: str) -> tuple[int, object]:
        """The answer to the text. Where a server has gone before it came, nobody knows whether the message is there
        (RFC 1047), and to try again may make a second one of it."""
        code, text = 451, b"4.4.2 lost"
        try:
            code, text = client.getreply()
        finally:
            if code < 0 or text.startswith(b"4.4."):
                with self._lock:
                    self.told.unsure[subject] += 1
        return code, text

    # --- flags

    def _flag(self, chance: random.Random, user: str) -> None:
        """A session: everything is looked at, a keyword goes to a few; what went wrong is tried in the next one."""
        word = f"k{next(self._numbers) % 50}"  # a Cyrus mailbox takes 128
        try:
            client = logged_in(self.frontend, user)
        except TROUBLE as problem:
            self._wait(problem)
            return
        with contextlib.suppress(*TROUBLE):
            self._store(client, chance, user, word)
        with contextlib.suppress(*TROUBLE):
            client.logout()

    def _store(self, client: Imap, chance: random.Random, user: str, word: str) -> None:
        answer = client.attempt("SELECT INBOX")
        if " OK " not in answer.splitlines()[-1]:
            self._wait(answer.splitlines()[-1])
            return
        uids = re.findall(r"UID (\d+)", client.ask("UID FETCH 1:* (UID)"))
        for uid in chance.sample(uids, min(3, len(uids))):
            done = client.attempt(f"UID STORE {uid} +FLAGS ({word})")
            if " OK " in done.splitlines()[-1] and f"UID {uid}" in done and word in done:
                with self._lock:
                    self.told.flagged[user].add((int(uid), word))
            else:
                self._wait(done.splitlines()[-1])
                return


def check(told: Told, frontend: str) -> None:
    """Every acknowledged message once (or once more for each lost answer), every acknowledged keyword where it was put;
    nothing sent back."""
    assert not told.bounced, told.bounced[:5]
    for user, subjects in told.delivered.items():
        client = logged_in(frontend, user)
        client.ask("EXAMINE INBOX")
        text = client.ask("UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        client.logout()
        there = Counter(re.findall(r"Subject: (walk\d+)", text))
        missing = [one for one in subjects if one not in there]
        assert not missing, (user, "missing", missing[:5])
        doubled = [one for one in subjects if there[one] > 1 + told.unsure[one]]
        assert not doubled, (user, "doubled", doubled[:5])
        flags = {
            (int(uid[1]), word)
            for row in text.split("\n* ")
            if (uid := re.search(r"UID (\d+)", row))
            and (words := re.search(r"FLAGS \((.*?)\)", row))
            for word in words[1].split()
        }
        assert told.flagged[user] <= flags, (user, sorted(told.flagged[user] - flags)[:5])
