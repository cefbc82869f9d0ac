"""How long nothing can be changed when something fails, and how many changes a second there are when nothing does:
`python -m tests.ha.outage [--turns 20] [--only rates|outages]`. Beside the masters' changes stand etcd's own single puts,
and those of a Cyrus master where the lab is installed (tests/cyrus/lab.sh, root). Medians; told as they are, of this host,
where everything shares its processors.
"""

import argparse
import asyncio
import itertools
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from murder.errors import Refusal, UpstreamFailure
from murder.roles.mupdate.remote.client import MasterClient
from murder.roles.mupdate.remote.link import Target
from plugins.list_etcd.client import TXN
from plugins.list_etcd.client import Cluster as Client
from plugins.list_etcd.etcd_pb2 import TxnRequest
from plugins.list_etcd.operations import putting
from plugins.list_etcd.settings import Settings
from tests.bench.mupdate import CYRUS, cyrus_master
from tests.cyrus.our_nodes import our_node
from tests.ha.masters import HOST, Master, logged_in, masters
from tests.kit.ports import free_port
from tests.kit.programs.etcd import Cluster, cluster
from tests.kit.waiting import pause_here, until

MOST_RATES: Final = 5  # turns of all rates
AGAIN_S: Final = 0.05  # until who was refused asks again


class Writer(threading.Thread):
    """Changes all the time, as a backend makes them, at one master or the next; when each was done."""

    def __init__(self, found: Sequence[Master]) -> None:
        super().__init__(daemon=True)
        self._masters = found
        others = tuple((HOST, one.port) for one in found[1:])
        self._client = MasterClient(
            Target(HOST, found[0].port, None, "murder", "secret", others=others)
        )
        self.done: list[float] = []
        self.is_over = False

    @property
    def master(self) -> Master:
        """Whom it asks now."""
        link = self._client._link
        port = link.target.port if link is not None else self._masters[0].port
        return next(one for one in self._masters if one.port == port)

    def run(self) -> None:
        asyncio.run(self._write())

    async def _write(self) -> None:
        number = 0
        while not self.is_over:
            number += 1
            try:
                await self._client.activate(b"user.o%d" % number, b"be1.test!p", b"anna\tlrs\t")
                self.done.append(time.monotonic())
            except (UpstreamFailure, Refusal):
                await pause_here(AGAIN_S, "who was refused asks again a moment later")
        await self._client.close()

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


def puts(etcd: Cluster, clients: int, number: int) -> float:
    """Single puts a second of etcd itself, by so many who each wait for their answer, with the client that masters use."""

    async def put_some(which: int) -> None:
        client = Client(Settings(etcd.endpoints))
        for n in range(number):
            request = TxnRequest(success=[putting(b"/puts/%d/%d" % (which, n), bytes(100))])
            await client.call(TXN, request, 10)
        client.close()

    async def put_all() -> float:
        begin = time.monotonic()
        await asyncio.gather(*(put_some(which) for which in range(clients)))
        return clients * number / (time.monotonic() - begin)

    return asyncio.run(put_all())


def rate(
    port: int, connections: int, number: int, pipeline: int = 1, host: str = HOST, turn: int = 0
) -> float:
    """Changes a second."""
    peers = [logged_in(host, port, 60) for _ in range(connections)]

    def write(which: int) -> None:
        peer = peers[which]
        for first in range(0, number, pipeline):
            lines = [
                f't ACTIVATE "user.r{turn}x{which}x{pipeline}x{n}" "be1.test!p" "anna\tlrs\t"\r\n'
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


def rates(port: int, label: str, turn: int, host: str = HOST) -> dict[str, float]:
    figures = {
        "1 connection": rate(port, 1, 200, host=host, turn=turn),
        "8 connections": rate(port, 8, 100, host=host, turn=turn),
        "pipelined": rate(port, 1, 4000, 1000, host=host, turn=turn),
    }
    return {f"{label}, {what}": figure for what, figure in figures.items()}


def all_rates(folder: Path, turns: int) -> None:
    """In turns, so that all have the same neighbours."""
    found: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        port = free_port()
        stack.enter_context(our_node(folder / "alone", "alone.test", HOST, port))
        etcd = stack.enter_context(cluster(folder / "etcd-rates"))
        some = stack.enter_context(masters(folder / "masters-rates", etcd))
        has_cyrus = stack.enter_context(cyrus_master())
        for turn in range(turns):
            told = rates(port, "embedded", turn)
            told |= rates(some[0].port, "three members of etcd", turn)
            if has_cyrus:
                told |= rates(CYRUS[1], "Cyrus", turn, CYRUS[0])
            told["etcd's own single puts, 1 client"] = puts(etcd, 1, 300)
            told["etcd's own single puts, 8 clients"] = puts(etcd, 8, 100)
            for what, figure in told.items():
                found[what].append(figure)
    for what, figures in found.items():
        print(f"{what}: {statistics.median(figures):.0f}/s, {turns} turns", flush=True)


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

    def both_frozen() -> Callable[[], None]:
        heals = [freeze_leader(), freeze_master()]

        def heal() -> None:
            for one in heals:
                one()

        return heal

    for fail in (kill_master, freeze_master, kill_leader, freeze_leader, both, both_frozen):
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
    parser.add_argument("--only", choices=("rates", "outages"))
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="murder-outage-") as name:
        folder = Path(name)
        if words.only != "outages":
            all_rates(folder, min(words.turns, MOST_RATES))
        if words.only != "rates":
            with cluster(folder / "etcd") as etcd, masters(folder / "masters", etcd) as found:
                outages(etcd, found, words.turns)


if __name__ == "__main__":
    main()
