"""Nodes of ours for benchmarks, as processes of `murder serve` at the addresses that the Cyrus lab uses.

So a Cyrus frontend, and every other proxy, finds our backends where it would find Cyrus'.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from plugins.auth_file import Settings, format_record, make_record
from tests.load.ports import wait_for_port

PROJECT: Final = Path(__file__).parent.parent.parent
ARCHIVE: Final = PROJECT / "dist" / "murder.pyz"
DOMAIN: Final = "murder.test"
MASTER: Final = ("127.0.0.10", 3905)
BACKENDS: Final = {f"be1.{DOMAIN}": "127.0.0.11", f"be2.{DOMAIN}": "127.0.0.12"}
FRONTEND: Final = "127.0.0.30"
PASSWORD: Final = "secret"
SYSTEM_PYTHON: Final = "/usr/bin/python3"

NODE: Final = """\
[node]
name = "{name}"
data = "data"
roles = ["{role}"]
drain_timeout_s = 1.0
[tls]
ca = "{authority}/ca.pem"
certificate = "{name}.pem"
key = "{name}.key"
[plugins.auth_file]
file = "{users}"
log2_cost = 1
scram_iterations = 4096
"""
MASTER_SECTION: Final = """\
[mupdate]
listen = ["{host}:{port}"]
users = ["murder"]
admins = ["cyrus"]
allow_plaintext = true
"""
FOLLOWING: Final = """\
[mupdate]
master = "{host}:{port}"
master_auth = "plain"
master_user = "murder"
master_password = "secret"
master_tls = "none"
"""
CLIENTS: Final = """\
[{role}]
imap = ["{host}:143"]
imaps = ["{host}:993"]
lmtp = ["{host}:24"]
workers = {workers}
admins = ["cyrus"]
allow_plaintext = true
lmtp_trusted = ["127.0.0.0/8"]
"""
UPSTREAM: Final = """\
upstream_tls = "{tls}"
upstream_auth = "{auth}"
proxy_user = "murder"
proxy_password = "secret"
"""


def python() -> str:
    """What an operator would run it with: the system's Python, which is built for speed, where it is new enough; `PYTHON`
    names another. (Python as pyenv builds it takes half as long again.)"""
    if given := os.environ.get("PYTHON"):
        return given
    asked = [SYSTEM_PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    is_new = Path(SYSTEM_PYTHON).exists() and subprocess.call(asked) == 0
    return SYSTEM_PYTHON if is_new else sys.executable


@dataclass
class Murder:
    """A folder of nodes with one authority and one file of users."""

    folder: Path
    users: int = 20
    command: list[str] = field(default_factory=lambda: [python(), str(ARCHIVE)])

    @property
    def user_file(self) -> Path:
        return self.folder / "users"

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._run("ca", "init", "--dir", str(self.folder / "ca"))
        names = ["murder", "cyrus", *(f"user{number}" for number in range(1, self.users + 1))]
        settings = Settings(log2_cost=1, scram_iterations=4096)
        lines = [format_record(make_record(user, PASSWORD.encode(), settings)) for user in names]
        self.user_file.write_text("".join(line + "\n" for line in lines))
        for name, role in (
            (f"mupdate.{DOMAIN}", "mupdate"),
            *((name, "backend") for name in BACKENDS),
            (f"fe.{DOMAIN}", "frontend"),
        ):
            node = self.folder / name
            (node / "data").mkdir(parents=True)
            words = ["ca", "issue", name, "--role", role, "--dir", str(self.folder / "ca")]
            self._run(*words, "--address", "127.0.0.1", "--out", str(node))

    def _run(self, *words: str) -> None:
        subprocess.run(
            [*self.command, *words],
            check=True,
            cwd=PROJECT,
            timeout=120,
            stdout=subprocess.DEVNULL,
        )

    def write(self, name: str, role: str, more: str) -> Path:
        """A node's configuration; its folder."""
        node = self.folder / name
        text = NODE.format(name=name, role=role, authority=self.folder / "ca", users=self.user_file)
        file = node / "murder.toml"
        file.write_text(text + more)
        file.chmod(0o600)
        return node

    @contextmanager
    def serving(self, node: Path, host: str, port: int, timeout_s: float = 60) -> Iterator[int]:
        """Start a node; its process. It is up when somebody accepts at the port."""
        with (node / "log").open("ab") as log:
            process = subprocess.Popen(
                [*self.command, "serve", "--config", str(node / "murder.toml")],
                stdout=log,
                stderr=log,
                cwd=PROJECT,
            )
        try:
            wait_for_port(host, port, timeout_s)
            yield process.pid
        finally:
            process.terminate()
            process.wait(30)

    @property
    def master_folder(self) -> Path:
        return self.folder / f"mupdate.{DOMAIN}"

    @contextmanager
    def master(self) -> Iterator[int]:
        more = MASTER_SECTION.format(host=MASTER[0], port=MASTER[1])
        with self.serving(self.write(f"mupdate.{DOMAIN}", "mupdate", more), *MASTER) as process:
            yield process

    @contextmanager
    def backends(self, workers: int = 1) -> Iterator[list[int]]:
        """Both, with PLAIN for the proxy user and certificates for our frontend."""
        with ExitStack() as stack:
            processes = []
            for name, host in BACKENDS.items():
                more = FOLLOWING.format(host=MASTER[0], port=MASTER[1])
                more += CLIENTS.format(role="backend", host=host, workers=workers)
                more += 'proxies = ["murder"]\ncreate_inbox = false\n'
                node = self.write(name, "backend", more)
                processes.append(stack.enter_context(self.serving(node, host, 143)))
            yield processes

    @contextmanager
    def frontend(
        self, *, tls: str = "none", auth: str = "plain", workers: int = 0, keep_list: bool = False
    ) -> Iterator[int]:
        """Ours at FRONTEND, beside whatever master and backends there are. Its list is made anew, or kept."""
        name = f"fe.{DOMAIN}"
        if not keep_list:
            shutil.rmtree(self.folder / name / "data", ignore_errors=True)
            (self.folder / name / "data").mkdir()
        more = FOLLOWING.format(host=MASTER[0], port=MASTER[1])
        more += CLIENTS.format(role="frontend", host=FRONTEND, workers=workers)
        more += UPSTREAM.format(tls=tls, auth=auth)
        for server, host in BACKENDS.items():
            more += f'[servers."{server}"]\naddress = "{host}"\n'
        with self.serving(self.write(name, "frontend", more), FRONTEND, 143) as process:
            yield process
