"""Clients of several masters while masters and members of etcd are killed, frozen and cut off from each other, and a checker
of what they saw: `python -m tests.ha.history [--faults 300] [--masters 3] [--seed N]`.

What runs between masters, members and the replica runs over wires (`kit.wires`), which are cut, hold what is on them in both
directions or in one, or are slow: of a master to all members or to one; of a member, or of the leader, to the other members,
while masters still reach it; of the replica to the masters.

Each client notes what it asked, when, and how it was answered: done, refused, or not known (no answer, or "temporary
failure"). At the end all masters and a replica have one list, and for each name there is one order of all that was asked
which explains every answer: so nothing acknowledged was lost, no name was ever active at two places, and a read behind a
NOOP was of the present.
"""

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.cyrus.our_nodes import following, serving
from tests.ha.linear import Operation, Outcome, State, Verb, is_linear
from tests.ha.masters import HOST, Master, masters, names_at
from tests.kit.peer import BlockingPeer
from tests.kit.ports import free_port
from tests.kit.programs.etcd import Cluster, Member, cluster
from tests.kit.waiting import pause, until
from tests.kit.wires import Mode, Wire, Wires

CLIENTS: Final = 4
NAMES: Final = 5  # at a time; new ones every
PERIOD_S: Final = 1.5
PATIENCE_S: Final = 8.0  # with an answer
LONGEST_S: Final = 2.5  # a fault
BETWEEN_S: Final = 1.5  # two faults, at most
TEMPORARY: Final = "[UNAVAILABLE]"
FAILING: Final = (Mode.CUT, Mode.HOLD, Mode.DEAF, Mode.SLOW)


class Client(threading.Thread):
    """One that asks one master, and another one when that fails."""

    def __init__(self, run: "Run", number: int) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self._run = run
        self._server = f"be{number}.test"
        self._random = random.Random(f"{run.seed} {number}")
        self._at = number
        self._peer: BlockingPeer | None = None
        self.operations: list[Operation] = []

    def run(self) -> None:
        while not self._run.is_over.is_set():
            period = int((time.monotonic() - self._run.began) / PERIOD_S)
            name = f"user.h{period}x{self._random.randrange(NAMES)}"
            verb = self._random.choice([Verb.ACTIVATE, Verb.ACTIVATE, Verb.DELETE, Verb.READ])
            self._do(verb, name)

    def _do(self, verb: Verb, name: str) -> None:
        peer = self._connected()
        if peer is None:
            pause(0.05, "a client that finds no master tries again a moment later")
            return
        invoked = time.monotonic()
        server: State = self._server
        try:
            match verb:
                case Verb.ACTIVATE:
                    said = peer.command(f'ACTIVATE "{name}" "{server}!p" ""')[-1]
                case Verb.DELETE:
                    said = peer.command(f'DELETE "{name}"')[-1]
                case Verb.READ:
                    said, server = self._read(peer, name)
        except (OSError, AssertionError):  # no answer, or the end of the connection
            said = TEMPORARY
            self._leave()
        outcome = Outcome.OK if said.startswith("t OK") else Outcome.FAIL
        if TEMPORARY in said:
            outcome = Outcome.UNKNOWN
        self.operations.append(Operation(verb, name, server, outcome, invoked, time.monotonic()))
        if outcome is Outcome.OK and verb is not Verb.READ:
            self._run.done_at = time.monotonic()

    def _read(self, peer: BlockingPeer, name: str) -> tuple[str, State]:
        """What there is at present."""
        said = peer.command("NOOP")[-1]
        if not said.startswith("t OK"):
            return TEMPORARY, None
        lines = peer.command(f'FIND "{name}"')
        if not lines[-1].startswith("t OK"):
            return TEMPORARY, None
        return lines[-1], lines[0].split('"')[3].partition("!")[0] if len(lines) > 1 else None

    def _connected(self) -> BlockingPeer | None:
        """To a master that answers. A connection claims a server with its first ACTIVATE."""
        if self._peer is None:
            self._at += 1
            master = self._run.masters[self._at % len(self._run.masters)]
            try:
                self._peer = master.ask(PATIENCE_S)
                self._peer.command(f'RESERVE "user.own.{self._server}" "{self._server}!p"')
            except (OSError, AssertionError):
                self._leave()
        return self._peer

    def _leave(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._peer = None


class Run:
    """Everything of one run."""

    def __init__(
        self, etcd: Cluster, found: Sequence[Master], seed: int, wires: Wires, mine: Sequence[Wire]
    ) -> None:
        """`mine`: the replica's wires to the masters."""
        self.etcd = etcd
        self.wires = wires
        self._replicas = mine
        self.masters = found
        self.seed = seed
        self.began = time.monotonic()
        self.done_at = self.began
        self.is_over = threading.Event()
        self.faults: Counter[str] = Counter()
        self._random = random.Random(seed)
        self.clients = [Client(self, number) for number in range(CLIENTS)]

    def disturb(self) -> None:
        """One fault, and its end."""
        chosen = self._random.choice(
            [
                *(self._kill_master, self._freeze_master, self._kill_member, self._freeze_member),
                *(self._kill_leader, self._freeze_leader, self._both, self._both_frozen),
                *(self._cut_master, self._cut_from_one, self._cut_member, self._cut_leader),
                *(self._cut_replica, self._cut_master),
            ]
        )
        self.faults[chosen.__name__.strip("_")] += 1
        heal = chosen()
        pause(self._random.uniform(0.2, LONGEST_S), "what is down stays so for a while")
        heal()
        pause(self._random.uniform(0.1, BETWEEN_S), "between two faults all is well for a while")

    def _kill_master(self) -> Callable[[], None]:
        master = self._random.choice(self.masters)
        master.kill()
        return master.again

    def _freeze_master(self) -> Callable[[], None]:
        master = self._random.choice(self.masters)
        master.freeze()
        return master.thaw

    def _kill_member(self) -> Callable[[], None]:
        member = self._random.choice(self.etcd.members)
        member.kill()
        return self._starting(member)

    def _freeze_member(self) -> Callable[[], None]:
        member = self._random.choice(self.etcd.members)
        member.freeze()
        return member.thaw

    def _kill_leader(self) -> Callable[[], None]:
        leader = self.etcd.until_leader()
        leader.kill()
        return self._starting(leader)

    def _starting(self, member: Member) -> Callable[[], None]:
        def heal() -> None:
            member.start()

        return heal

    def _freeze_leader(self) -> Callable[[], None]:
        leader = self.etcd.until_leader()
        leader.freeze()
        return leader.thaw

    def _both(self) -> Callable[[], None]:
        heals = [self._kill_leader(), self._freeze_master()]

        def heal() -> None:
            for one in heals:
                one()

        return heal

    def _both_frozen(self) -> Callable[[], None]:
        heals = [self._freeze_leader(), self._freeze_master()]

        def heal() -> None:
            for one in heals:
                one()

        return heal

    def _failing(self, wires: Sequence[Wire]) -> Callable[[], None]:
        """All of them in one way."""
        mode = self._random.choice(FAILING)
        self.faults[f"wire {mode.value}"] += 1
        for wire in wires:
            self.wires.set(wire, mode)

        def heal() -> None:
            for wire in wires:
                self.wires.set(wire, Mode.OPEN)

        return heal

    def _cut_master(self) -> Callable[[], None]:
        return self._failing(self._random.choice(self.masters).wires)

    def _cut_from_one(self) -> Callable[[], None]:
        return self._failing([self._random.choice(self._random.choice(self.masters).wires)])

    def _cut_replica(self) -> Callable[[], None]:
        return self._failing(self._replicas)

    def _cut_leader(self) -> Callable[[], None]:
        return self._alone(self.etcd.until_leader())

    def _cut_member(self) -> Callable[[], None]:
        return self._alone(self._random.choice(self.etcd.members))

    def _alone(self, member: Member) -> Callable[[], None]:
        """The others do not reach it, nor it them; masters do."""
        mode = self._random.choice(FAILING)
        self.faults[f"wire {mode.value}"] += 1
        others = [one for one in self.etcd.members if one is not member]
        for other in others:
            self.etcd.between(member, other, mode)

        def heal() -> None:
            for other in others:
                self.etcd.between(member, other, Mode.OPEN)

        return heal

    def settle(self) -> None:
        """All is well, and every client has had its last answer."""
        self.etcd.until_leader()
        for master in self.masters:

            def is_well(master: Master = master) -> bool:
                with master.ask() as peer:
                    return peer.command("NOOP")[-1].startswith("t OK")

            until(is_well, f"{master.name} is well", every_s=0.1)
        self.is_over.set()
        for client in self.clients:
            client.join(4 * PATIENCE_S)
            assert not client.is_alive(), f"{client.name} hangs"

    def check(self) -> list[str]:
        """What is wrong."""
        wrong: list[str] = []
        by_name: dict[str, list[Operation]] = defaultdict(list)
        for operation in itertools.chain.from_iterable(one.operations for one in self.clients):
            by_name[operation.name].append(operation)
        for master in self.masters:
            begin = time.monotonic()
            names = master.names()
            end = time.monotonic()
            for name, found in by_name.items():
                found.append(Operation(Verb.READ, name, names.get(name), Outcome.OK, begin, end))
        for name, found in by_name.items():
            if not is_linear(found):
                told = sorted(found, key=lambda one: one.invoked)
                wrong.append(f"{name}: no order explains\n" + "\n".join(map(str, told)))
        return wrong


def run(folder: Path, faults: int, count: int, seed: int, most_s: float = 1e9) -> list[str]:
    """One run; what was wrong. Prints what was done."""
    with ExitStack() as stack:
        wires = stack.enter_context(Wires())
        etcd = stack.enter_context(cluster(folder / "etcd", wires=wires))
        etcd.numbers()  # while all of them answer
        found = stack.enter_context(masters(folder / "masters", etcd, count, wires))
        port = free_port()
        mine = [wires.to(master.port) for master in found]
        targets = [f"{HOST}:{wire.port}" for wire in mine]
        keys = {**following(HOST), "master": targets, "listen": [f"{HOST}:{port}"]}
        keys |= {"users": ["murder"], "allow_plaintext": True, "ping_interval_s": 1.0}
        keys["command_timeout_s"] = 3.0
        replica = stack.enter_context(
            serving(folder / "replica", "replica.test", "mupdate", {"mupdate": keys})
        )
        replica.until_open(HOST, port)
        this = Run(etcd, found, seed, wires, mine)
        for client in this.clients:
            client.start()
        for _ in range(faults):
            this.disturb()
            if time.monotonic() - this.began > most_s:
                break
        this.settle()
        wrong = this.check()
        outcomes = Counter(
            (one.verb.value, one.outcome.value) for c in this.clients for one in c.operations
        )
        shown = ", ".join(f"{verb} {what} {n}" for (verb, what), n in sorted(outcomes.items()))
        print(f"seed {seed}: faults {dict(this.faults)}; {shown}", flush=True)
        lists = [master.names() for master in found]
        if any(one != lists[0] for one in lists):
            wrong.append("the masters' lists differ")
        until(
            lambda: names_at(HOST, port) == lists[0],
            lambda: f"the replica has the masters' list\n{replica.tail()}",
            every_s=0.2,
        )
        if not any(one.outcome is Outcome.OK for c in this.clients for one in c.operations):
            wrong.append("nothing was done")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--masters", type=int, default=3)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    words = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="murder-history-"))
    wrong = run(folder, words.faults, words.masters, words.seed)
    for one in wrong:
        print(one)
    if not wrong:
        shutil.rmtree(folder)
    print(f"{len(wrong)} wrong" + (f"; see {folder}" if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
