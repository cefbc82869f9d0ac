"""How long nothing can be changed when something fails, and how many changes a second there are when nothing does:
`python -m tests.ha.outage [--turns 20]`. Medians; told as they are, of this host, where everything shares its processors.
"""

import argparse
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.cyrus.our_nodes import our_node
from tests.ha.masters import HOST, Master, activate, logged_in, masters
from tests.kit.etcd import Cluster, cluster
from tests.kit.peer import BlockingPeer
from tests.kit.ports import free_port
from tests.kit.waiting import until

TRY_S: Final = 1.0  # how long a writer waits for a master that says nothing, before it asks another


class Writer(threading.Thread):
    """Changes all the time, at one master or the next; when each was done."""

    def __init__(self, found: Sequence[Master]) -> None:
        super().__init__(daemon=True)
        self._masters = found
        self._at = 0
        self._peer: BlockingPeer | None = None
        self.done: list[float] = []
        self.is_over = False

    @property
    def master(self) -> Master:
        return self._masters[self._at % len(self._masters)]

    def run(self) -> None:
        number = 0
        while not self.is_over:
            number += 1
            try:
                if self._peer is None:
                    self._peer = self.master.ask(TRY_S)
                if activate(self._peer, f"user.o{number}").startswith("t OK"):
                    self.done.append(time.monotonic())
            except (OSError, AssertionError):
                self._peer = None
                self._at += 1

    def longest_since(self, begin: float) -> float:
        """The longest time without a change behind that moment."""
        times = [begin, *(one for one in self.done if one > begin)]
        return max(after - before for before, after in itertools.pairwise(times))


def outage(writer: Writer, fail: Callable[[], Callable[[], None]]) -> float:
    """Of one failure, which the function returned by `fail` ends."""
    count = len(writer.done)
    until(lambda: len(writer.done) > count + 20, "changes")
    begin = time.monotonic()
    heal = fail()
    count = len(writer.done)
    until(lambda: len(writer.done) > count + 20, "changes again")
    longest = writer.longest_since(begin)
    heal()
    return longest


def rate(port: int, connections: int, number: int, pipeline: int = 1) -> float:
    """Changes a second."""
    peers = [logged_in(HOST, port, 60) for _ in range(connections)]

    def write(which: int) -> None:
        peer = peers[which]
        for first in range(0, number, pipeline):
            lines = [
                f't ACTIVATE "user.r{which}x{pipeline}x{n}" "be1.test!p" "anna\tlrs\t"\r\n'
                for n in range(first, first + pipeline)
            ]
            peer.send("".join(lines))
            for _ in lines:
                assert peer.line().startswith("t OK")

    threads = [threading.Thread(target=write, args=(which,)) for which in range(connections)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.monotonic() - begin
    for peer in peers:
        peer.close()
    return connections * number / took_s


def rates(port: int, label: str) -> None:
    figures = {
        "1 connection": rate(port, 1, 200),
        "8 connections": rate(port, 8, 100),
        "pipelined": rate(port, 1, 4000, 1000),
    }
    print(label, {what: round(figure) for what, figure in figures.items()}, flush=True)


def outages(etcd: Cluster, found: Sequence[Master], turns: int) -> None:
    writer = Writer(found)
    writer.start()

    def kill_master() -> Callable[[], None]:
        master = writer.master
        master.kill()
        return master.again

    def freeze_master() -> Callable[[], None]:
        master = writer.master
        master.freeze()
        return master.thaw

    def kill_leader() -> Callable[[], None]:
        leader = etcd.until_leader()
        leader.kill()

        def heal() -> None:
            leader.start()
            etcd.until_leader()

        return heal

    def freeze_leader() -> Callable[[], None]:
        leader = etcd.until_leader()
        leader.freeze()
        return leader.thaw

    def both() -> Callable[[], None]:
        heals = [kill_leader(), kill_master()]

        def heal() -> None:
            for one in heals:
                one()

        return heal

    for fail in (kill_master, freeze_master, kill_leader, freeze_leader, both):
        seconds = [outage(writer, fail) for _ in range(turns)]
        print(
            f"{fail.__name__}: median {statistics.median(seconds):.2f} s, "
            f"longest {max(seconds):.2f} s of {turns}",
            flush=True,
        )
    writer.is_over = True
    writer.join(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory(prefix="murder-outage-") as name:
        folder = Path(name)
        port = free_port()
        with our_node(folder / "alone", "alone.test", HOST, port):
            rates(port, "embedded, changes/s")
        with cluster(folder / "etcd") as etcd:
            with masters(folder / "masters", etcd) as found:
                rates(found[0].port, "three members of etcd, changes/s")
                outages(etcd, found, turns)


if __name__ == "__main__":
    main()
