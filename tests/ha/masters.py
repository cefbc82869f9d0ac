"""Masters as processes of `murder serve` on real members of etcd, and clients that ask them."""

import os
import signal
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.cyrus.our_nodes import parsed, serving
from tests.kit.peer import BlockingPeer
from tests.kit.ports import free_port
from tests.kit.process import Program, descendants
from tests.kit.programs.etcd import Cluster
from tests.kit.waiting import until
from tests.kit.wires import Wire, Wires

HOST: Final = "127.0.0.1"
ASKING_S: Final = 20.0
# how long a change waits for etcd: an election on a machine that does much else
ENGINE_S: Final = 8.0


class Master:
    """One of several."""

    def __init__(
        self, name: str, folder: Path, cluster: Cluster, wires: Wires | None = None
    ) -> None:
        """`wires`: it speaks with the members over these, one each."""
        self.name = name
        self.folder = folder / name
        self.port = free_port()
        at = int(name[1:]) % len(cluster.members)
        self.wires: list[Wire] = []
        every = cluster.endpoints
        if wires is not None:
            self.wires = [wires.to(member.client_port) for member in cluster.members]
            every = tuple(f"http://{HOST}:{wire.port}" for wire in self.wires)
        endpoints = [*every[at:], *every[:at]]  # each has its nearest
        self.sections = {
            "mupdate": {
                "listen": [f"{HOST}:{self.port}"],
                "users": ["murder"],
                "admins": ["cyrus"],
                "allow_plaintext": True,
                "engine": "etcd",
            },
            "plugins.list_etcd": {"endpoints": endpoints, "timeout_s": ENGINE_S},
        }
        self.program: Program | None = None
        self._running = ExitStack()

    def start(self) -> "Master":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.program = self._running.enter_context(
            serving(self.folder, f"{self.name}.test", "mupdate", self.sections)
        )
        self.program.until_open(HOST, self.port)
        return self

    def stop(self) -> None:
        self.thaw()
        self._running.close()

    def kill(self) -> None:
        """-9, all of it at once."""
        assert self.program is not None
        self.program.kill()

    def again(self) -> None:
        """Start it as it was, after `kill`."""
        assert self.program is not None
        self.program.start().until_open(HOST, self.port)

    def _signal(self, number: signal.Signals) -> None:
        assert self.program is not None
        if self.program.lives:
            for pid in [self.program.pid, *descendants(self.program.pid)]:
                os.kill(pid, number)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self.program is not None:
            self._signal(signal.SIGCONT)

    def log(self) -> str:
        assert self.program is not None
        return self.program.said()

    def ask(self, limit_s: float = ASKING_S, user: str = "murder") -> BlockingPeer:
        """A connection that is logged in."""
        return logged_in(HOST, self.port, limit_s, user)

    def names(self) -> dict[str, str]:
        """What it has at present, with servers."""
        return names_at(HOST, self.port)


def names_at(host: str, port: int) -> dict[str, str]:
    """What a server of the list has, with the servers of the mailboxes."""
    with logged_in(host, port, ASKING_S) as peer:
        rows = peer.ok("LIST")
    found = {}
    for kind, *strings in map(parsed, rows):
        if kind == b"MAILBOX":
            found[strings[0].decode()] = strings[1].decode().partition("!")[0]
    return found


def logged_in(host: str, port: int, limit_s: float, user: str = "murder") -> BlockingPeer:
    peer = BlockingPeer(host, port, limit_s)
    peer.until("* OK")
    response = b64encode(f"\0{user}\0secret".encode()).decode()
    peer.ok(f'AUTHENTICATE "PLAIN" "{response}"')
    return peer


@contextmanager
def masters(
    folder: Path, cluster: Cluster, count: int = 2, wires: Wires | None = None
) -> Iterator[Sequence[Master]]:
    """So many, running."""
    found = [Master(f"m{i + 1}", folder, cluster, wires) for i in range(count)]
    with ExitStack() as stack:
        for master in found:
            stack.callback(master.stop)
            master.start()
        yield found


def activate(peer: BlockingPeer, name: str, server: str = "be1.test") -> str:
    """The status of an ACTIVATE."""
    return peer.command(f'ACTIVATE "{name}" "{server}!p" "anna\tlrs\t"')[-1]


def until_all_have(found: Sequence[Master], name: str, server: str = "be1.test") -> None:
    for master in found:
        until(lambda: master.names().get(name) == server, f"{name} at {master.name}")  # noqa: B023
