"""`serve` with real processes: workers share the ports, come back when they die, drain, and end with their supervisor."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import murder.pki.authority
from murder.pki.authority import init_authority, issue, read_certificate, serial_text
from murder.pki.trust import revoke
from tests.kit.ports import free_port
from tests.kit.process import Program, descendants
from tests.kit.waiting import until
from tests.rooms.node.fake_roles import SAID

ROOT = Path(__file__).parent.parent.parent.parent
LIMIT_S = 60.0
PROGRAM = """
import asyncio, sys
from pathlib import Path
import uvloop
from murder import log
from murder.admin.cli.program import explain
from murder.config import ConfigError, load_config
from murder.node.process.workers import serve

config = load_config(Path(sys.argv[1]))
log.set_up("info", "json", node=config.node.name)
targets = dict.fromkeys(("frontend", "mupdate"), "fake_roles:FakeRole")
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    try:
        code = runner.run(serve(config, config.node.roles, targets))
    except ConfigError as error:
        code = explain(error)
sys.exit(code)
"""


class Node:
    """A supervisor under test."""

    def __init__(
        self,
        folder: Path,
        workers: int,
        name: str = "fe1.example.org",
        more: str = "",
        node: str = "",
    ) -> None:
        self.port = free_port()
        self.folder = folder
        file = folder / "murder.toml"
        file.write_text(
            f'[node]\nname = "{name}"\ndata = "data"\nroles = ["frontend"]\ndrain_timeout_s = 3\n{node}\n'
            f'[frontend]\nimap = ["127.0.0.1:{self.port}"]\nworkers = {workers}\n{more}'
        )
        self.ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ready.settimeout(LIMIT_S)
        address = f"murder-test-{os.getpid()}-{self.port}"
        self.ready.bind("\0" + address)
        path = f"{ROOT}{os.pathsep}{Path(__file__).parent}"
        environment = {"PYTHONPATH": path, "NOTIFY_SOCKET": "@" + address}
        command = [sys.executable, "-c", PROGRAM, str(file)]
        self.program = Program(command, folder / "log", environment=environment).start()
        assert self.program.process is not None
        self.process = self.program.process

    def client(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)

    def greeting(self) -> tuple[int, int]:
        """The process and the worker that answer now."""
        with self.client() as client, client.makefile("rb") as lines:
            pid, worker, _ = lines.readline().split()
        return int(pid), int(worker)

    def until_ready(self) -> None:
        while b"READY=1" not in self.ready.recv(4096):
            pass

    def log(self) -> str:
        return self.program.said()


@contextmanager
def running(folder: Path, workers: int, more: str = "", settings: str = "") -> Iterator[Node]:
    node = Node(folder, workers, more=more, node=settings)
    try:
        node.until_ready()
        yield node
    finally:
        node.program.stop(LIMIT_S)


def test_one_worker_is_the_process_itself(tmp_path: Path) -> None:
    with running(tmp_path, workers=1) as node:
        assert node.greeting() == (node.process.pid, 0)
        assert descendants(node.process.pid) == []


def test_workers_share_the_port_and_a_follower_serves_nobody(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as node:
        seen = {node.greeting() for _ in range(50)}
        assert {worker for _, worker in seen} == {1, 2}
        assert len(descendants(node.process.pid)) == 3


def test_a_worker_that_dies_comes_back_and_its_queue_is_served(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as node:
        before = set(descendants(node.process.pid))
        with socket.create_connection(("127.0.0.1", node.port), timeout=LIMIT_S) as client:
            victim = int(client.recv(100).split()[0])
            client.sendall(b"die\r\n")
            assert client.recv(100) == b""
        answered = {node.greeting()[0] for _ in range(30)}  # none of these is refused
        assert victim not in answered
        until(lambda: len(descendants(node.process.pid)) == 3, "a third process")
        assert len(set(descendants(node.process.pid)) & before) == 2
        assert "worker.died" in node.log()


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_drains_and_leaves_nothing(tmp_path: Path, workers: int) -> None:
    with running(tmp_path, workers) as node:
        children = descendants(node.process.pid)
        client = socket.create_connection(("127.0.0.1", node.port), timeout=LIMIT_S)
        client.recv(100)
        node.process.send_signal(signal.SIGTERM)
        assert client.recv(100) == b"bye\r\n"
        assert node.process.wait(LIMIT_S) == 0
        assert not any(Path(f"/proc/{child}").exists() for child in children)
        client.close()


def test_who_is_ended_while_its_workers_start_says_nothing_of_it(tmp_path: Path) -> None:
    """asyncio had been left with their cancelled starts, and told it as an error."""
    node = Node(tmp_path, 2, "starts-for-ever.example.org")
    try:
        until((tmp_path / "starting0").exists, "the start of a worker")
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(LIMIT_S) == 0
        assert "never retrieved" not in node.log() and "Traceback" not in node.log()
    finally:
        node.program.stop(LIMIT_S)


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as node:
        children = descendants(node.process.pid)
        node.process.kill()
        node.process.wait()
        until(
            lambda: not any(Path(f"/proc/{child}").exists() for child in children),
            "the end of the workers",
        )


def test_a_second_server_on_the_port_is_refused_in_one_line(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as node:
        second = tmp_path / "second"
        second.mkdir()
        (second / "murder.toml").write_text((tmp_path / "murder.toml").read_text())
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(second / "murder.toml")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert ran.returncode == 2
        assert ran.stderr.splitlines() == [
            f"murder: {second / 'murder.toml'}: frontend.imap: cannot listen on "
            f"127.0.0.1:{node.port}: the port is in use; stop the other program (`ss -ltnp` shows "
            "it) or choose another port"
        ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_role_that_refuses_its_configuration_ends_the_start(tmp_path: Path, workers: int) -> None:
    node = Node(tmp_path, workers, name="refuses.example.org")
    assert node.process.wait(LIMIT_S) == 2
    assert "node.name: is not welcome" in node.log()
    assert "Traceback" not in node.log()


def test_sighup_takes_a_renewed_certificate_and_refuses_a_bad_file(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    ca.mkdir()
    init_authority(ca)
    issue(ca, "fe1.example.org", ["frontend"], out=tmp_path)
    port = free_port()
    more = (
        f'imaps = ["127.0.0.1:{port}"]\n[tls]\nca = "ca/ca.pem"\n'
        'certificate = "fe1.example.org.pem"\nkey = "fe1.example.org.key"\n'
    )

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", port))

    with running(tmp_path, workers=1, more=more) as node:
        before = shown()
        file = tmp_path / "murder.toml"
        good = file.read_text()
        issue(ca, "fe1.example.org", ["frontend"], out=tmp_path)
        file.write_text(good + "[nonsense]\n")
        node.process.send_signal(signal.SIGHUP)
        until(lambda: "config.refused" in node.log(), "the refusal")
        assert shown() == before
        file.write_text(good)
        node.process.send_signal(signal.SIGHUP)
        until(lambda: "role.reloaded" in node.log(), "the reload")
        assert shown() != before


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_takes_new_limits_and_says_what_needs_a_restart(
    tmp_path: Path, workers: int
) -> None:
    with running(tmp_path, workers) as node:
        file = tmp_path / "murder.toml"
        text = file.read_text()
        assert text.count("[frontend]\n") == 1
        text = text.replace("[frontend]\n", "[frontend]\nmax_connections = 1\n")
        file.write_text(text.replace(f"workers = {workers}", "workers = 7"))
        node.process.send_signal(signal.SIGHUP)
        until(lambda: node.log().count('"role.reloaded"') >= workers, "the reload")
        assert '"changed": ["frontend.max_connections"]' in node.log()
        assert '"key": "frontend.workers"' in node.log()


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_leaves_who_listens_for_operators_alive(tmp_path: Path, workers: int) -> None:
    ca = tmp_path / "ca"
    ca.mkdir()
    init_authority(ca)
    issue(ca, "fe1.example.org", ["frontend"], out=tmp_path)
    more = '[tls]\nca = "ca/ca.pem"\ncertificate = "fe1.example.org.pem"\nkey = "fe1.example.org.key"\n'
    control = f'control = ["127.0.0.1:{free_port()}"]'
    with running(tmp_path, workers, more=more, settings=control) as node:
        before = descendants(node.process.pid)
        node.process.send_signal(signal.SIGHUP)
        until(lambda: node.log().count('"role.reloaded"') >= workers, "the reload")
        assert descendants(node.process.pid) == before
        assert "Traceback" not in node.log()


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, workers=2, settings="worker_timeout_s = 1.5") as node:
        pid, _ = node.greeting()
        os.kill(pid, signal.SIGSTOP)
        until(lambda: '"worker.stuck"' in node.log(), "that it is noticed")
        until(lambda: pid not in descendants(node.process.pid), "its end")
        until(lambda: node.log().count('"worker.ready"') > 3, "its successor")
        assert {worker for _, worker in (node.greeting() for _ in range(50))} == {1, 2}


def test_a_worker_that_is_killed_has_said_where_it_was(tmp_path: Path) -> None:
    with running(tmp_path, workers=2, settings="worker_timeout_s = 1.5") as node:
        with node.client() as client:
            client.recv(100)
            client.sendall(b"spin\r\n")
            until(lambda: '"worker.died"' in node.log(), "its end")
    told = next(line for line in node.log().splitlines() if '"worker.stuck"' in line)
    assert "in spin_for_ever" in json.loads(told)["stack"]
    assert node.log().count('"login.succeeded"') == SAID  # before it


def test_a_node_in_one_process_says_where_it_is_stuck(tmp_path: Path) -> None:
    with running(tmp_path, workers=1, settings="worker_timeout_s = 1.5") as node:
        with node.client() as client:
            client.recv(100)
            client.sendall(b"spin\r\n")
            until(lambda: '"worker.stuck"' in node.log(), "that it is told")
        node.process.kill()
    told = next(line for line in node.log().splitlines() if '"worker.stuck"' in line)
    assert "in spin_for_ever" in json.loads(told)["stack"]
    assert node.log().count('"login.succeeded"') == SAID  # before it


@pytest.mark.parametrize("workers", [1, 2])
def test_murder_reload_waits_for_the_answer_of_all(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = tmp_path / "ca"
    ca.mkdir()
    init_authority(ca)
    issue(ca, "fe1.example.org", ["frontend"], out=tmp_path)
    more = '[tls]\nca = "ca/ca.pem"\ncertificate = "fe1.example.org.pem"\nkey = "fe1.example.org.key"\n'
    file = tmp_path / "murder.toml"

    def reload() -> tuple[int, str]:
        """Exit code and all that was said."""
        done = subprocess.run(
            [sys.executable, "-m", "murder", "reload", "--config", str(file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    with running(tmp_path, workers, more=more) as node:
        checked = subprocess.run(
            [sys.executable, "-m", "murder", "config", "check", "--config", str(file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert "in use" not in checked.stderr  # by this very node
        good = file.read_text()
        file.write_text(good.replace("[frontend]\n", "[frontend]\nmax_connections = 1\n"))
        assert reload() == (0, "taken: frontend.max_connections\n")
        assert node.log().count('"role.reloaded"') == workers + (workers > 1)
        file.write_text(good.replace("[frontend]\n", "[frontend]\nmax_conections = 1\n"))
        code, said = reload()
        assert code == 2
        assert "frontend.max_conections: unknown key; did you mean `max_connections`?" in said
        file.write_text(good)
        monkeypatch.setattr(murder.pki.authority, "BACKDATED", timedelta(days=9))
        late = issue(ca, "fe1.example.org", ["frontend"], out=tmp_path, days=-2)
        assert late.expires < datetime.now(UTC)
        code, said = reload()
        assert code == 2
        assert "tls.certificate" in said
        assert "expired on" in said
        assert node.log().count('"role.reloaded"') == workers + (workers > 1)
    code, said = reload()
    assert (code, "no node runs" in said) == (3, True)


def test_clients_come_evenly_to_all_workers(tmp_path: Path) -> None:
    """Where each goes is the kernel's hash of the four numbers: 400 throws of a coin, six standard deviations."""
    with running(tmp_path, workers=2) as node:
        seen = Counter(worker for _, worker in (node.greeting() for _ in range(400)))
        assert seen.keys() == {1, 2}
        assert min(seen.values()) > 140, seen


def test_nobody_waits_for_a_worker_that_is_frozen(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as node:
        frozen, worker = node.greeting()
        os.kill(frozen, signal.SIGSTOP)
        try:
            seen = {node.greeting()[1] for _ in range(30)}  # some of them came to its queue
            assert seen == {3 - worker}
            assert '"worker.failover_started"' in node.log()
        finally:
            os.kill(frozen, signal.SIGCONT)
        until(lambda: node.greeting()[0] == frozen, "that it serves again")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_has_its_limit_over_all_workers(tmp_path: Path, workers: int) -> None:
    with running(tmp_path, workers, more="max_connections_per_address = 12\n") as node:

        def as_many_as_may() -> bool:
            """Whether it is twelve, over all workers; those before may not have left yet."""
            with ExitStack() as stack:
                greetings = [stack.enter_context(node.client()).recv(100) for _ in range(20)]
            welcome = [one for one in greetings if b"BYE" not in one]
            assert len(welcome) <= 12, greetings
            return len(welcome) == 12 and len({one.split()[1] for one in welcome}) == workers

        until(as_many_as_may, "twelve connections, to all workers, again and again")
        until(as_many_as_may, "twelve again, when those have left")


def knock(port: int, ca: Path, name: Path) -> bytes:
    """What a node hears that shows this certificate; b"" where it is not let in."""
    return shake(socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S), ca, name)


def shake(plain: socket.socket, ca: Path, name: Path) -> bytes:
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    context.load_cert_chain(f"{name}.pem", f"{name}.key")
    try:
        with plain, context.wrap_socket(plain) as client:
            return client.recv(100)
    except (ssl.SSLError, ConnectionResetError):
        return b""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_ends_whom_it_believes_no_longer(tmp_path: Path, workers: int) -> None:
    first, second = tmp_path / "ca1", tmp_path / "ca2"
    for ca in (first, second):
        ca.mkdir()
        init_authority(ca)
        issue(ca, "be1.example.org", ["backend"], out=ca)
    (tmp_path / "trust.pem").write_bytes((first / "ca.pem").read_bytes())
    issue(first, "fe1.example.org", ["frontend"], out=tmp_path)
    port = free_port()
    more = (
        f'imaps = ["127.0.0.1:{port}"]\n[tls]\nca = "trust.pem"\n'
        'certificate = "fe1.example.org.pem"\nkey = "fe1.example.org.key"\n'
    )
    with running(tmp_path, workers, more=more) as node:
        assert knock(port, first / "ca.pem", first / "be1.example.org")
        context = ssl.create_default_context(cafile=str(first / "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(first / "be1.example.org.pem", first / "be1.example.org.key")
        plain = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
        with context.wrap_socket(plain) as standing:
            assert standing.recv(100)
            (tmp_path / "trust.pem").write_bytes((second / "ca.pem").read_bytes())
            issue(second, "fe1.example.org", ["frontend"], out=tmp_path)
            node.process.send_signal(signal.SIGHUP)
            try:
                assert standing.recv(100) == b""  # who stood is put out
            except OSError:
                pass
        processes = workers + (workers > 1)
        until(lambda: node.log().count('"role.reloaded"') >= processes, "the reload")
        assert '"tls.distrusted"' in node.log()
        for _ in range(8):
            assert knock(port, second / "ca.pem", first / "be1.example.org") == b""
            assert knock(port, second / "ca.pem", second / "be1.example.org")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_taken_back_is_refused_after_a_reload(tmp_path: Path, workers: int) -> None:
    ca = tmp_path / "ca"
    ca.mkdir()
    init_authority(ca)
    issue(ca, "fe1.example.org", ["frontend"], out=tmp_path)
    for name in ("lost", "denied", "good"):
        issue(ca, name, ["operator"], out=tmp_path)
    denied = serial_text(read_certificate(tmp_path / "denied.pem").serial_number)
    port = free_port()
    tls = (
        '[tls]\nca = "ca/ca.pem"\ncertificate = "fe1.example.org.pem"\n'
        'key = "fe1.example.org.key"\n'
    )
    more = f'imaps = ["127.0.0.1:{port}"]\n{tls}'
    with running(tmp_path, workers, more=more) as node:
        for name in ("lost", "denied", "good"):
            assert knock(port, ca / "ca.pem", tmp_path / name)
        early = [socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) for _ in range(4)]
        assert knock(port, ca / "ca.pem", tmp_path / "good")  # so those are accepted too
        revoke(ca, "lost", datetime.now(UTC))
        file = tmp_path / "murder.toml"
        file.write_text(file.read_text() + f'crl = "ca/crl.pem"\nrevoked = ["{denied}"]\n')
        node.process.send_signal(signal.SIGHUP)
        processes = workers + (workers > 1)
        until(lambda: node.log().count('"role.reloaded"') >= processes, "the reload")
        first, *others = early  # TLS begins behind the reload
        assert shake(first, ca / "ca.pem", tmp_path / "good")
        for plain in others:
            assert shake(plain, ca / "ca.pem", tmp_path / "lost") == b""
        for _ in range(4):
            assert knock(port, ca / "ca.pem", tmp_path / "lost") == b""
            assert knock(port, ca / "ca.pem", tmp_path / "denied") == b""
            assert knock(port, ca / "ca.pem", tmp_path / "good")
        assert '"tls.revoked"' in node.log()
