"""Members of an etcd cluster beside the test: started, killed, frozen, put back from a snapshot. Debian's etcd-server and
etcd-client have the programs; without them such a test is skipped, and fails in CI."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from tests.conftest import cannot_run
from tests.kit.ports import free_ports
from tests.kit.process import END_S, Program
from tests.kit.waiting import until
from tests.kit.wires import Mode, Wire, Wires

PROGRAMS: Final = ("etcd", "etcdctl")
# As `murder help masters` tells an operator.
FLAGS: Final = (
    *("--heartbeat-interval", "50", "--election-timeout", "500"),
    *("--max-txn-ops", "2048", "--max-request-bytes", "8388608"),
    *("--auto-compaction-mode", "revision", "--auto-compaction-retention", "100000"),
)


def needs_etcd() -> None:
    """Skip the test where the programs are missing; in CI they are not."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        cannot_run(f"{', '.join(missing)}: not installed (apt install etcd-server etcd-client)")


class Member(Program):
    """One server of a cluster."""

    def __init__(
        self,
        name: str,
        folder: Path,
        client: int,
        peer: int,
        flags: Sequence[str],
        scheme: str = "http",
    ) -> None:
        self.name = name
        self.scheme = scheme
        self.folder = folder / name
        self.client_port = client
        self.peer_port = peer
        self.peer_at = peer  # where the others call it
        self._flags = flags
        super().__init__([], folder / f"{name}.log")

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_at}"

    def prepare(self, cluster: str, state: str = "new") -> None:
        """What it is started with; `cluster` is etcd's --initial-cluster."""
        words = ["etcd", "--name", self.name, "--data-dir", str(self.folder)]
        words += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        words += ["--listen-peer-urls", f"http://127.0.0.1:{self.peer_port}"]
        words += ["--initial-cluster", cluster]
        words += ["--initial-advertise-peer-urls", self.peer_url]
        words += ["--initial-cluster-state", state, "--logger", "zap", "--log-level", "error"]
        self.command = [*words, *self._flags]

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self, limit_s: float = END_S) -> int:
        self.thaw()
        return super().stop(limit_s)


class Cluster:
    """Members on this host; as a context manager they are started, and ended whatever has happened."""

    def __init__(
        self,
        folder: Path,
        count: int = 3,
        flags: Sequence[str] = (),
        scheme: str = "http",
        wires: Wires | None = None,
    ) -> None:
        """`wires`: members speak to each other over these."""
        needs_etcd()
        self._numbers: dict[str, str] = {}
        self.identify: Sequence[str] = ()  # how etcdctl shows who it is
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        ports = free_ports(2 * count)
        chosen = (*FLAGS, *flags)
        self.members = [
            Member(f"etcd{i + 1}", folder, ports[2 * i], ports[2 * i + 1], chosen, scheme)
            for i in range(count)
        ]
        self._wires = wires
        self._peer_wires: dict[str, Wire] = {}
        for member in self.members if wires is not None else ():
            assert wires is not None
            wire = wires.to(member.peer_port, names_callers=True)
            self._peer_wires[member.name] = wire
            member.peer_at = wire.port
        for member in self.members:
            member.prepare(self.layout)

    def between(self, one: Member, other: Member, mode: Mode) -> None:
        """What the wires between two members are like from here on, whoever calls."""
        assert self._wires is not None
        numbers = self.numbers()
        for called, caller in ((one, other), (other, one)):
            self._wires.set(self._peer_wires[called.name], mode, numbers[caller.name])

    def numbers(self) -> dict[str, str]:
        """What members call themselves among each other, by name."""
        if not self._numbers:
            rows = [row.split(", ") for row in self.ctl("member", "list").splitlines()]
            self._numbers = {row[2]: row[0] for row in rows}
        return self._numbers

    @property
    def layout(self) -> str:
        return ",".join(f"{one.name}={one.peer_url}" for one in self.members)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(one.url for one in self.members)

    def start(self) -> Self:
        for member in self.members:
            member.start()
        self.until_leader()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.kill()

    def ctl(self, *words: str, at: Sequence[Member] = (), code: int = 0) -> str:
        """What etcdctl says."""
        done = self._asked(at or self.members, "5s", words)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def _asked(
        self, members: Sequence[Member], within: str, words: Sequence[str]
    ) -> "subprocess.CompletedProcess[str]":
        endpoints = ",".join(one.url for one in members)
        where = ("--endpoints", endpoints, "--command-timeout", within)
        return subprocess.run(
            ["etcdctl", *self.identify, *where, *words],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def leader(self) -> Member | None:
        """As the members say it that answer."""
        for member in self.members:
            if member.lives:
                done = self._asked([member], "1s", ("endpoint", "status"))
                words = done.stdout.split(", ")
                if done.returncode == 0 and len(words) > 4 and words[4] == "true":
                    return member
        return None

    def until_leader(self, limit_s: float = 30.0) -> Member:
        found = until(
            self.leader,
            lambda: "a leader\n" + "\n".join(one.tail() for one in self.members),
            limit_s,
        )
        assert found is not None
        return found

    def replace(self, member: Member) -> None:
        """It is lost with its disk, and a new one takes its place."""
        others = [one for one in self.members if one is not member]
        rows = [row.split(", ") for row in self.ctl("member", "list", at=others).splitlines()]
        (number,) = (row[0] for row in rows if row[2] == member.name)
        member.kill()
        shutil.rmtree(member.folder)
        self.until_leader()
        self.ctl("member", "remove", number, at=others)

        def is_added() -> bool:
            """Refused ("unhealthy cluster") until the others have been connected for a while."""
            with contextlib.suppress(AssertionError):
                self.ctl("member", "add", member.name, f"--peer-urls={member.peer_url}", at=others)
                return True
            return False

        until(is_added, "the members take a new one", every_s=0.2)
        member.prepare(self.layout, "existing")
        member.start()

    def snapshot(self, file: Path) -> None:
        self.ctl("snapshot", "save", str(file), at=self.members[:1])

    def put_back(self, file: Path) -> None:
        """Stop all, and start them anew from a snapshot."""
        for member in self.members:
            member.kill()
            shutil.rmtree(member.folder)
            words = ["snapshot", "restore", str(file), "--name", member.name]
            words += ["--initial-cluster", self.layout, "--data-dir", str(member.folder)]
            words += ["--initial-advertise-peer-urls", member.peer_url]
            self.ctl(*words)
        self.start()


@contextmanager
def cluster(
    folder: Path, count: int = 3, flags: Sequence[str] = (), wires: Wires | None = None
) -> Iterator[Cluster]:
    with Cluster(folder, count, flags, wires=wires) as found:
        yield found
