"""A disk that is full, read-only, failing; a lack of open files; a clock that jumps: at a backend that runs.

What cannot be done is refused in words (IMAP NO, LMTP 4xx) and logged, what can be read goes on, nothing acknowledged is
lost, and once the trouble is over all works again in the same processes and connections.
"""

import contextlib
import imaplib
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.faults.alone import Alone, Refused, answered
from tests.faults.oracle import octets_of, seen_world
from tests.kit import disks
from tests.kit.waiting import until

STORES = ("store_spool", "store_maildir")
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
Start = Callable[[Alone], Alone]
LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 60_000


class Client:
    """A session that selected INBOX, and what was acknowledged to it."""

    def __init__(self, server: Alone, user: str = "ana") -> None:
        self.server, self.user = server, user
        self.client = server.imap(user)
        answered(self.client, "select", "INBOX")
        self.kept: list[str] = []
        self.count = 0

    def append(self) -> None:
        self.count += 1
        identifier = f"{self.user}-{self.count}"
        answered(self.client, "append", "INBOX", "", "", octets_of(identifier))
        self.kept.append(identifier)

    def deliver(self) -> str:
        self.count += 1
        identifier = f"{self.user}-{self.count}"
        said = self.server.deliver(self.user, octets_of(identifier))
        if said.startswith("250"):
            self.kept.append(identifier)
        return said

    def refused(self, name: str, *arguments: object) -> str:
        with pytest.raises(Refused) as told:
            answered(self.client, name, *arguments)
        assert "SERVERBUG" not in str(told.value), told.value
        return str(told.value)

    def read_all(self) -> None:
        """Everything that was acknowledged is there, once, whole."""
        answered(self.client, "noop")
        found = answered(self.client, "fetch", "1:*", "(FLAGS BODY.PEEK[])")
        octets = [part[1] for part in found if isinstance(part, tuple)]
        for identifier in self.kept:
            assert sum(one.endswith(octets_of(identifier)) for one in octets) == 1, identifier

    def works(self) -> None:
        """All kinds of changes, in the connection that there was."""
        self.append()
        assert self.deliver().startswith("250")
        answered(self.client, "store", "1", "+FLAGS", "(\\Flagged word)")
        name = f"box{time.monotonic_ns()}"
        answered(self.client, "create", name)
        answered(self.client, "copy", "1", name)
        answered(self.client, "rename", name, name + "x")
        answered(self.client, "delete", name + "x")
        self.read_all()


@pytest.fixture
def started() -> Iterator[Start]:
    """Starts servers; ends those that a failed test leaves."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def ended_well(server: Alone, workers: list[int]) -> None:
    """The same processes to the end, without a traceback, and a clean store."""
    assert children(server) == workers, server.said()
    assert server.stop() == 0, server.said()
    log = server.log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in log, log[log.index("Traceback") - 1000 :][:4000]
    assert "worker.died" not in log
    checked = server.control("store", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def children(server: Alone) -> list[int]:
    """The processes that serve: with one worker it is the supervisor itself."""
    return server.node.children() or [server.node.pid]


# --- full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", "12m") as disk:
        yield disk


@pytest.mark.parametrize("store", STORES)
def test_a_full_disk_refuses_and_recovers(
    started: Start, store: str, tmp_path: Path, small_disk: Path
) -> None:
    server = started(Alone(tmp_path, store, workers=1, data=small_disk / "data"))
    workers = children(server)
    client = Client(server)
    for _ in range(5):
        client.append()
        client.deliver()
    ballast = small_disk / "ballast"
    fill(ballast)
    while True:  # until what SQLite had in reserve is used up
        try:
            client.append()
        except Refused as refused:
            assert "OVERQUOTA" in str(refused) and "full" in str(refused)
            break
    assert "full" in client.refused("append", "INBOX", "", "", LARGE)
    kind, answer = server.imap("admin").xatom("XFER", '"Other Users/ana"', "be2.test")
    assert kind == "NO" and b"full" in answer[0], answer
    said = client.deliver()
    assert said.startswith(("452", "451")), said
    for name, *arguments in (("create", "new"), ("setacl", "INBOX", "bob", "lr")):
        with contextlib.suppress(Refused):  # the list has its file's size in advance
            answered(client.client, name, *arguments)
    client.read_all()
    until(lambda: "The disk of this server is full" in server.node.said(), server.said)
    ballast.unlink()
    client.works()
    ended_well(server, workers)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 1 << 12, 1 << 8):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass


# --- read-only, failing


class Injected:
    """System calls of a running server that fail, until the end of the block."""

    def __init__(self, server: Alone, error: str) -> None:
        if shutil.which("strace") is None:
            cannot_run("strace is not installed")
        calls = (
            "pwrite64,fsync,fdatasync,ftruncate,link,linkat,rename,renameat,mkdir,unlink,unlinkat"
        )
        self.command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
        self.command += ["-e", f"inject={calls}:error={error}"]
        for pid in children(server):
            self.command += ["-p", str(pid)]
        self.traced = children(server)

    def __enter__(self) -> None:
        self.process = subprocess.Popen(self.command)
        until(self._has_attached, "strace has attached")

    def _has_attached(self) -> bool:
        assert self.process.poll() is None
        return all("TracerPid:\t0" not in status_of(pid) for pid in self.traced)

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


def status_of(pid: int) -> str:
    return "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))


@pytest.mark.parametrize(
    ("store", "error"),
    [("store_spool", "EROFS"), ("store_spool", "EIO"), ("store_maildir", "EROFS")],
)
def test_a_disk_that_takes_nothing_refuses_and_recovers(
    started: Start, store: str, error: str, tmp_path: Path
) -> None:
    server = started(Alone(tmp_path, store, workers=1))
    workers = children(server)
    client = Client(server)
    for _ in range(5):
        client.append()
        client.deliver()
    with Injected(server, error):
        client.refused("append", "INBOX", "", "", octets_of("lost"))
        client.refused("append", "INBOX", "", "", LARGE)
        client.refused("store", "1", "+FLAGS", "(\\Seen)")
        client.refused("create", "new")
        assert client.deliver().startswith("45")
        client.read_all()
    client.works()
    assert "The disk of this server" in server.log.read_text(), server.said()
    ended_well(server, workers)


# --- gone


@pytest.mark.parametrize("store", STORES)
def test_a_store_that_is_gone_is_not_taken_for_an_empty_one(
    started: Start, store: str, tmp_path: Path
) -> None:
    """As where its file system is not mounted any more: a client that hears "no such mailbox" forgets what it has, and
    what is made in its place would be hidden when it is back."""
    server = started(Alone(tmp_path, store, workers=1))
    workers = children(server)
    bob = server.imap("bob")
    answered(bob, "create", "box")
    client = Client(server)
    client.append()
    client.deliver()
    spool, away = tmp_path / "data" / store.removeprefix("store_"), tmp_path / "away"
    spool.rename(away)
    for name, *arguments in (("select", "box"), ("append", "box", "", "", LARGE)):
        with pytest.raises(Refused) as told:
            answered(bob, name, *arguments)
        assert "[UNAVAILABLE] The mail of this server cannot be reached now" in str(told.value)
    eve = server.imap("eve")
    for name, *arguments in (("select", "INBOX"), ("create", "box")):
        with pytest.raises(Refused) as told:
            answered(eve, name, *arguments)
        assert "SERVERBUG" not in str(told.value)
    client.refused("append", "INBOX", "", "", LARGE)
    assert server.deliver("bob", octets_of("lost")).startswith("45")
    assert not spool.exists()
    until(lambda: "see whether its file system is mounted" in server.node.said(), server.said)
    away.rename(spool)
    client.works()
    answered(bob, "select", "box")
    ended_well(server, workers)


# --- too many open files


@pytest.mark.parametrize("store", STORES)
def test_a_lack_of_open_files_refuses_and_recovers(
    started: Start, store: str, tmp_path: Path
) -> None:
    server = started(Alone(tmp_path, store, workers=1))
    workers = children(server)
    client = Client(server)
    client.append()
    (pid,) = workers
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    held = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (held, before[1]))
    if store == "store_spool":  # whose files are open; a maildir opens one for each message
        client.read_all()
    else:
        assert "too many files open" in client.refused("fetch", "1", "(BODY.PEEK[])")
    refused = client.refused("append", "INBOX", "", "", LARGE)
    assert "too many files open" in refused, refused
    assert client.deliver() == ""  # the connection is not even taken
    answered(client.client, "fetch", "1:*", "(FLAGS)")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    client.works()
    assert "LimitNOFILE" in server.log.read_text()
    ended_well(server, workers)


# --- a clock that jumps


@pytest.mark.parametrize("store", STORES)
def test_a_clock_that_jumps_loses_nothing(started: Start, store: str, tmp_path: Path) -> None:
    if FAKETIME is None:
        cannot_run("libfaketime is not installed")
    now = tmp_path / "now"
    now.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(now),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    server = started(Alone(tmp_path, store, workers=1, environment=environment))
    workers = children(server)
    client = Client(server)
    validities: list[int] = []
    for jump in ("+0", "-400d", "+400d", "-3h", "+0"):
        now.write_text(jump)
        client.works()
        answered(client.client, "create", "again")
        told = answered(client.client, "status", "again", "(UIDVALIDITY)")[0]
        found = re.search(rb"UIDVALIDITY (\d+)", told)
        assert found
        validities.append(int(found.group(1)))
        answered(client.client, "delete", "again")
    assert validities == sorted(set(validities))
    world = seen_world(server, "ana")
    assert world["INBOX"].total() == len(client.kept)
    with contextlib.suppress(imaplib.IMAP4.abort):
        client.client.logout()
    ended_well(server, workers)
