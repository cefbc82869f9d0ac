"""What a user's mail must be after a crash: every change that was acknowledged, of each other the whole or nothing.

`World` is mailboxes with their messages; a `Change` makes one of another. A `User` does random changes by IMAP, one after
the other, while mail comes in by LMTP, and knows at each moment which worlds the disk may hold.
"""

import imaplib
import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations

from tests.faults.alone import Alone, Refused, answered

INBOX = "INBOX"
SIZES = (150, 150, 150, 60_000)  # inline in the spool, and in files
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "work")
MOST = 40  # messages in one mailbox: then some are expunged
Mail = tuple[str, frozenset[str]]  # X-Id and flags
World = dict[str, Counter[Mail]]
Change = Callable[[World], World]


def octets_of(identifier: str) -> bytes:
    size = SIZES[sum(identifier.encode()) % len(SIZES)]
    head = f"From: a@example.org\r\nSubject: {identifier}\r\nX-Id: {identifier}\r\n\r\n"
    return (head + f"{identifier}\r\n" * (size // len(identifier))).encode()


def copied(world: World) -> World:
    return {name: Counter(mail) for name, mail in world.items()}


@dataclass
class Pending:
    """A change that has been asked for and not answered."""

    change: Change
    label: str


@dataclass
class User:
    """One user's load. `pending` holds at most one change by IMAP and one delivery."""

    server: Alone
    name: str
    seed: int
    world: World = field(default_factory=lambda: {INBOX: Counter()})
    pending: list[Pending] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)
    count: int = 0
    threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.client: imaplib.IMAP4 | None = None
        self.selected = ""
        self.messages: dict[str, Mail] = {}  # of the selected mailbox, by UID

    # --- the load

    def start(self) -> None:
        self.stopping.clear()
        self.threads = [
            threading.Thread(target=self._keep, args=(work,))
            for work in (self._change, self._deliver)
        ]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), f"{self.name}: a command hangs"
        self.client = None

    def _keep(self, work: Callable[[], None]) -> None:
        """Until the server goes away."""
        try:
            while not self.stopping.is_set():
                work()
        except (OSError, EOFError, imaplib.IMAP4.abort):
            return
        except Exception as error:  # noqa: BLE001 - the end of a thread: told by `check`
            self.failures.append(f"{self.name}: {error!r}")

    def next_id(self, kind: str) -> str:
        with self.lock:
            self.count += 1
            return f"{self.name}-{kind}-{self.count}"

    def _do(self, label: str, change: Change, act: Callable[[], bool]) -> None:
        """Ask for a change; `act` tells whether it was done."""
        pending = Pending(change, label)
        with self.lock:
            self.pending.append(pending)
        done = act()  # raises where the server went away: then it stays pending
        with self.lock:
            self.pending.remove(pending)
            if done:
                self.world = change(self.world)
                self.done[label] += 1

    def _deliver(self) -> None:
        with self.lock:
            is_full = self.world[INBOX].total() > MOST
        if is_full:
            self.stopping.wait(0.02)  # until the other thread has made room
            return
        identifier = self.next_id("lmtp")

        def act() -> bool:
            said = self.server.deliver(self.name, octets_of(identifier))
            if not said:
                raise EOFError
            return said.startswith("250")

        self._do("deliver", _added(INBOX, [(identifier, frozenset())]), act)

    def _change(self) -> None:
        if self.client is None:
            self.client = self.server.imap(self.name)
            self.selected = ""
        with self.lock:
            names = list(self.world)
        if not self.selected or self.selected not in names or self.random.random() < 0.2:
            self._select(self.random.choice(names))
        if len(self.messages) > MOST:
            self._expunge(list(self.messages)[: MOST // 2])
            return
        actions = [self._append, self._append, self._store, self._copy, self._move, self._one_out]
        if len(names) < 3 or self.random.random() < 0.3:
            actions = [self._create, self._rename, self._delete]
        self.random.choice(actions)()

    def _select(self, name: str) -> None:
        assert self.client is not None
        answered(self.client, "select", name)
        self.selected = name
        self.messages = {
            uid: (identifier, flags) for uid, identifier, flags, _ in listed(self.client)
        }

    def _some(self) -> list[str]:
        uids = list(self.messages)
        return self.random.sample(uids, min(len(uids), self.random.randint(1, 4)))

    def _other(self) -> str:
        with self.lock:
            return self.random.choice(list(self.world))

    def _command(self, label: str, change: Change, name: str, *arguments: object) -> bool:
        assert self.client is not None
        client, outcome = self.client, [False]

        def act() -> bool:
            try:
                answered(client, name, *arguments)
            except Refused:
                return False
            outcome[0] = True
            return True

        self._do(label, change, act)
        return outcome[0]

    def _append(self) -> None:
        assert self.client is not None
        identifier, flags = self.next_id("append"), frozenset(self.random.sample(FLAGS, 2))
        where = self._other()
        told = f"({' '.join(sorted(flags))})"
        change = _added(where, [(identifier, flags)])
        self._command("append", change, "append", where, told, "", octets_of(identifier))
        if where == self.selected:
            self.selected = ""

    def _store(self) -> None:
        chosen, flag = self._some(), self.random.choice(FLAGS)
        add = self.random.random() < 0.6
        self._flag(chosen, flag, add)

    def _flag(self, chosen: list[str], flag: str, add: bool) -> bool:
        if not chosen:
            return False
        before = [self.messages[uid] for uid in chosen]
        after = [
            (identifier, flags | {flag} if add else flags - {flag}) for identifier, flags in before
        ]
        change = _replaced(self.selected, before, after)
        told = ("STORE", ",".join(chosen), "+FLAGS" if add else "-FLAGS", f"({flag})")
        if self._command("store", change, "uid", *told):
            self.messages.update(zip(chosen, after, strict=True))
            return True
        return False

    def _one_out(self) -> None:
        self._expunge(self._some()[:2])

    def _expunge(self, chosen: list[str]) -> None:
        if not self._flag(chosen, "\\Deleted", True):
            return
        gone = [self.messages[uid] for uid in chosen]
        change = _replaced(self.selected, gone, [])
        if self._command("expunge", change, "uid", "EXPUNGE", ",".join(chosen)):
            for uid in chosen:
                del self.messages[uid]

    def _copy(self) -> None:
        self._carry("COPY")

    def _move(self) -> None:
        self._carry("MOVE")

    def _carry(self, verb: str) -> None:
        chosen, where = self._some(), self._other()
        if not chosen or where == self.selected:
            return
        mail, source = [self.messages[uid] for uid in chosen], self.selected
        add, remove = _added(where, mail), _replaced(source, mail, [])
        change = add if verb == "COPY" else lambda world: add(remove(world))
        if self._command(verb.lower(), change, "uid", verb, ",".join(chosen), where):
            if verb == "MOVE":
                for uid in chosen:
                    del self.messages[uid]

    def _create(self) -> None:
        if len(self.world) < 6:
            name = self.next_id("box")
            self._command(
                "create", lambda world: {**copied(world), name: Counter()}, "create", name
            )

    def _rename(self) -> None:
        old, new = self._other(), self.next_id("box")
        if old == INBOX:  # RFC 3501 §6.3.5: its messages move, it stays
            return

        def change(world: World) -> World:
            after = copied(world)
            after[new] = after.pop(old)
            return after

        self._command("rename", change, "rename", old, new)
        self.selected = ""

    def _delete(self) -> None:
        name = self._other()
        if name == INBOX or len(self.world) < 4:
            return
        self._leave(name)
        change = _without(name)
        self._command("delete", change, "delete", name)

    def _leave(self, name: str) -> None:
        if self.selected == name:
            self._select(INBOX)

    # --- what must be there

    def check(self, attempt: str) -> None:
        """Raises AssertionError where the server's mail is none of the worlds that may be."""
        assert not self.failures, self.failures
        seen = seen_world(self.server, self.name)
        possible = []
        for number in range(len(self.pending) + 1):
            for chosen in combinations(self.pending, number):
                world = self.world
                for one in chosen:
                    world = one.change(world)
                possible.append(without_zeros(world))
        if seen not in possible:
            raise AssertionError(
                f"{attempt}, {self.name}: {difference(possible, seen, self.pending)}"
            )
        self.world, self.pending = seen, []


def without_zeros(world: World) -> World:
    return {name: Counter({one: n for one, n in mail.items() if n}) for name, mail in world.items()}


def difference(possible: list[World], seen: World, pending: list[Pending]) -> str:
    """In words, against the nearest of the possible worlds."""

    def faults(world: World) -> list[str]:
        told = [f"mailbox {name} is missing" for name in world.keys() - seen.keys()]
        told += [f"mailbox {name} should not be" for name in seen.keys() - world.keys()]
        for name in world.keys() & seen.keys():
            told += [f"{name} lacks {mail} x{n}" for mail, n in (world[name] - seen[name]).items()]
            told += [
                f"{name} has too much: {mail} x{n}"
                for mail, n in (seen[name] - world[name]).items()
            ]
        return told

    nearest = min((faults(world) for world in possible), key=len)
    return f"in flight: {[one.label for one in pending]}; " + "; ".join(nearest[:10])


def _added(name: str, mail: list[Mail]) -> Change:
    def change(world: World) -> World:
        after = copied(world)
        after[name].update(mail)
        return after

    return change


def _replaced(name: str, before: list[Mail], after: list[Mail]) -> Change:
    def change(world: World) -> World:
        result = copied(world)
        # below zero where its delivery has been seen, and not yet been answered
        result[name].subtract(before)
        result[name].update(after)
        return result

    return change


def _without(name: str) -> Change:
    def change(world: World) -> World:
        after = copied(world)
        del after[name]
        return after

    return change


def listed(client: imaplib.IMAP4) -> list[tuple[str, str, frozenset[str], bytes]]:
    """UID, X-Id, flags and octets (if asked for) of the selected mailbox's messages."""
    found = []
    for part in answered(client, "uid", "FETCH", "1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (X-Id)])"):
        if isinstance(part, tuple):
            found.append((*_parsed(part), b""))
    return found


def _parsed(part: tuple[bytes, bytes]) -> tuple[str, str, frozenset[str]]:
    uid = re.search(rb"UID (\d+)", part[0])
    flags = re.search(rb"FLAGS \(([^)]*)\)", part[0])
    identifier = re.search(rb"X-Id: (\S+)", part[1])
    assert uid and flags and identifier, part
    named = frozenset(flags.group(1).decode().split()) - {"\\Recent"}
    return uid.group(1).decode(), identifier.group(1).decode(), named


def seen_world(server: Alone, user: str) -> World:
    """All of a user's mail, each message compared with what was sent."""
    world: World = {}
    client = server.imap(user)
    for line in answered(client, "list"):
        if not isinstance(line, bytes):
            continue
        name = line.decode().rsplit(" ", 1)[1].strip('"')
        answered(client, "select", name, True)
        world[name] = Counter()
        for part in answered(client, "uid", "FETCH", "1:*", "(FLAGS BODY.PEEK[])"):
            if isinstance(part, tuple):
                _, identifier, flags = _parsed(part)
                sent = octets_of(identifier)
                assert part[1].endswith(sent), f"{identifier} is damaged in {name}"
                world[name][identifier, flags] += 1
    client.logout()
    return world
