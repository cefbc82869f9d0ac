"""A whole murder for tests: `murder demo --json` as a child process, from the archive where it has been built."""

import imaplib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit.peer import LIMIT_S, BlockingPeer
from tests.kit.ports import free_port_base as free_port_base
from tests.kit.ports import ports_held
from tests.kit.process import ROOT, murder_command, run_murder
from tests.kit.waiting import until

IS_CI = os.environ.get("CI") == "true"
READY_S = 120


@dataclass
class Demo:
    """A running demo. `info` is its JSON line."""

    folder: Path
    process: subprocess.Popen[str]
    info: dict[str, Any]
    homes: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def frontend(self) -> dict[str, Any]:
        return dict(self.info["frontends"][0])

    @property
    def backends(self) -> list[dict[str, Any]]:
        return list(self.info["backends"])

    @property
    def password(self) -> str:
        return str(self.info["password"])

    def user(self, number: int) -> str:
        return str(self.info["user_format"]) % number

    def home(self, number: int) -> dict[str, Any]:
        """The backend where this user's INBOX is."""
        if number not in self.homes:
            for backend in self.backends:
                with self.imap(backend, self.user(number)) as client:
                    if client.select("INBOX")[0] == "OK":
                        self.homes[number] = backend
                        break
        return self.homes[number]

    def server(self, kind: str, number: int) -> dict[str, Any]:
        """The server under test for a user: `frontend`, or `backend` for the one they live on."""
        return self.frontend if kind == "frontend" else self.home(number)

    def imap(self, server: dict[str, Any], user: str, password: str | None = None) -> imaplib.IMAP4:
        client = imaplib.IMAP4(server["host"], server["imap"], timeout=LIMIT_S)
        client.login(user, password or self.password)
        return client

    def peer(
        self, server: dict[str, Any], kind: str = "imap", user: str = "", limit_s: float = LIMIT_S
    ) -> BlockingPeer:
        """A peer by hand that has been greeted, and is logged in as the user if there is one (IMAP)."""
        peer = BlockingPeer(server["host"], server[kind], limit_s)
        peer.reply()
        if user:
            peer.ok(f"LOGIN {user} {self.password}")
        return peer

    def node(self, action: str, name: str) -> None:
        """`murder demo node ACTION NAME`."""
        run_murder("demo", "node", action, name, "--dir", self.folder, timeout_s=READY_S)

    def deliver(self, server: dict[str, Any], user: str, octets: bytes) -> str:
        """One message by LMTP, in one go; the reply to its DATA, "" if the connection was lost on the way."""
        try:
            return deliver(server["host"], server["lmtp"], user, octets)
        except (OSError, EOFError):
            return ""

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(READY_S)


def deliver(host: str, port: int, user: str, octets: bytes, timeout_s: float = LIMIT_S) -> str:
    """One LMTP transaction; the last reply. Raises OSError, EOFError where the connection is lost."""
    with socket.create_connection((host, port), timeout=timeout_s) as sock:
        stream = sock.makefile("rb")

        def reply() -> str:
            while True:
                line = stream.readline()
                if not line.endswith(b"\r\n"):
                    raise EOFError
                if line[3:4] != b"-":
                    return line.decode()

        said = reply()
        for line in ("LHLO test", "MAIL FROM:<sender@example.org>", f"RCPT TO:<{user}>", "DATA"):
            sock.sendall(line.encode() + b"\r\n")
            said = reply()
            if said[0] not in "23":
                return said
        body = octets.replace(b"\r\n.", b"\r\n..")
        sock.sendall(body + b"\r\n.\r\n" if not body.endswith(b"\r\n") else body + b".\r\n")
        return reply()


@contextmanager
def running_demo(*options: str, folder: Path | None = None, keep: bool = False) -> Iterator[Demo]:
    """Start a demo and wait until it is ready; stop it and check that it ended well."""
    where = folder or Path(tempfile.mkdtemp(prefix="murder-test-"))
    with ports_held(80) as base, (where.parent / f"{where.name}.log").open("w") as log:
        command = [*murder_command(), "demo", "--json", "--dir", str(where)]
        process = subprocess.Popen(
            [*command, "--port-base", str(base), *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the demo ended: " + Path(log.name).read_text()[-3000:]
            demo = Demo(where, process, json.loads(line))
            assert demo.info["ready"] is True
            yield demo
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(READY_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode == 0, Path(log.name).read_text()[-3000:]
    if not keep:
        shutil.rmtree(where, ignore_errors=True)
        Path(log.name).unlink()


def message(subject: str, body: str = "Hello.", message_id: str = "") -> bytes:
    """A small message with CRLF line ends."""
    identifier = message_id or f"{time.time_ns()}@test.example"
    return (
        f"From: Ana <ana@example.org>\r\nTo: bob@example.org\r\nSubject: {subject}\r\n"
        f"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{identifier}>\r\n\r\n{body}\r\n"
    ).encode()


def wanted(*programs: str) -> str:
    """Why a test of these programs cannot run here; "" if it can. In CI a missing one is a failure, not a reason."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and IS_CI:
        raise AssertionError(f"CI lacks {', '.join(missing)}")
    return f"{', '.join(missing)} not installed" if missing else ""


def reconfigure(demo: Demo, node: str, old: str, new: str) -> None:
    """Change a node's murder.toml, and wait until it has taken that. Its process may be another than at the start."""
    file, log = demo.folder / node / "murder.toml", demo.folder / node / "log"
    text = file.read_text()
    assert old in text
    taken = log.read_text().count("role.reloaded")
    file.write_text(text.replace(old, new))
    run_murder("reload", "--config", file)
    until(lambda: log.read_text().count("role.reloaded") > taken, f"{node} reloads", READY_S)
