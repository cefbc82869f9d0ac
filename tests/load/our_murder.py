"""Nodes of ours for benchmarks, as processes of `murder serve` at the addresses that the Cyrus lab uses.

So a Cyrus frontend, and every other proxy, finds our backends where it would find Cyrus'.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from plugins.auth_file import Settings, format_record, make_record
from tests.kit.process import Program
from tests.kit.toml import Sections, write_config

PROJECT: Final = Path(__file__).parent.parent.parent
ARCHIVE: Final = PROJECT / "dist" / "murder.pyz"
DOMAIN: Final = "murder.test"
MASTER: Final = ("127.0.0.10", 3905)
BACKENDS: Final = {f"be1.{DOMAIN}": "127.0.0.11", f"be2.{DOMAIN}": "127.0.0.12"}
FRONTEND: Final = "127.0.0.30"
MULTIPLEXOR: Final = "127.0.0.31"
FRONTEND_WITH_TLS: Final = "127.0.0.32"  # to backends
PASSWORD: Final = "secret"
SYSTEM_PYTHON: Final = "/usr/bin/python3"

AUTH: Final = {"log2_cost": 1, "scram_iterations": 4096}


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
            (f"mux.{DOMAIN}", "frontend"),
        ):
            self.issue(name, role)

    def issue(self, name: str, role: str) -> None:
        """A folder for one more node, with its certificate."""
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

    def write(self, name: str, role: str, sections: Sections) -> Path:
        """A node's configuration; its folder."""
        folder = self.folder / name
        node = {"name": name, "data": "data", "roles": [role], "drain_timeout_s": 1.0}
        tls = {
            "ca": self.folder / "ca" / "ca.pem",
            "certificate": f"{name}.pem",
            "key": f"{name}.key",
        }
        auth = {"file": self.user_file, **AUTH}
        whole = {"node": node, "tls": tls, "plugins.auth_file": auth, **sections}
        write_config(folder / "murder.toml", whole)
        return folder

    @contextmanager
    def serving(self, node: Path, host: str, port: int, timeout_s: float = 60) -> Iterator[int]:
        """Start a node; its process. It is up when somebody accepts at the port."""
        command = [*self.command, "serve", "--config", str(node / "murder.toml")]
        with Program(command, node / "log") as program:
            yield program.until_open(host, port, timeout_s).pid

    @property
    def master_folder(self) -> Path:
        return self.folder / f"mupdate.{DOMAIN}"

    @contextmanager
    def master(self) -> Iterator[int]:
        node = self.write(f"mupdate.{DOMAIN}", "mupdate", {"mupdate": listening_at(*MASTER)})
        with self.serving(node, *MASTER) as process:
            yield process

    @contextmanager
    def backends(self, workers: int = 1) -> Iterator[list[int]]:
        """Both, with PLAIN for the proxy user and certificates for our frontend."""
        with ExitStack() as stack:
            processes = []
            for name, host in BACKENDS.items():
                own = {"proxies": ["murder"], "create_inbox": False}
                section = {**clients_at(host, workers), **own}
                node = self.write(
                    name, "backend", {"mupdate": following(*MASTER), "backend": section}
                )
                processes.append(stack.enter_context(self.serving(node, host, 143)))
            yield processes

    @contextmanager
    def multiplexor(
        self, *, tls: str = "none", auth: str = "plain", workers: int = 0
    ) -> Iterator[int]:
        """One more, at MULTIPLEXOR, that passes whole sessions on."""
        name = f"mux.{DOMAIN}"
        own = {**clients_at(MULTIPLEXOR, workers), **upstream(tls, auth), "mode": "multiplexor"}
        sections: dict[str, Mapping[str, object]] = {
            "mupdate": following(*MASTER),
            "frontend": own,
            **{f'servers."{server}"': {"address": host} for server, host in BACKENDS.items()},
        }
        with self.serving(self.write(name, "frontend", sections), MULTIPLEXOR, 143) as process:
            yield process

    @contextmanager
    def frontend(
        self,
        *,
        tls: str = "none",
        auth: str = "plain",
        workers: int = 0,
        keep_list: bool = False,
        host: str = FRONTEND,
    ) -> Iterator[int]:
        """Ours at FRONTEND, or another `host`, beside whatever master and backends there are. Its list is made anew, or
        kept."""
        name = f"fe.{DOMAIN}"
        if not keep_list:
            shutil.rmtree(self.folder / name / "data", ignore_errors=True)
            (self.folder / name / "data").mkdir()
        sections: dict[str, Mapping[str, object]] = {
            "mupdate": following(*MASTER),
            "frontend": {**clients_at(host, workers), **upstream(tls, auth)},
            **{f'servers."{server}"': {"address": host} for server, host in BACKENDS.items()},
        }
        node = self.write(name, "frontend", sections)
        if host != FRONTEND:
            node = Path(shutil.copytree(node, self.folder / host))
        with self.serving(node, host, 143) as process:
            yield process


def listening_at(host: str, port: int) -> Mapping[str, object]:
    """[mupdate] of a master."""
    return {
        "listen": [f"{host}:{port}"],
        "users": ["murder"],
        "admins": ["cyrus"],
        "allow_plaintext": True,
    }


def following(host: str, port: int) -> Mapping[str, object]:
    """[mupdate] of a node of this master."""
    return {
        "master": f"{host}:{port}",
        "master_auth": "plain",
        "master_user": "murder",
        "master_password": "secret",
        "master_tls": "none",
    }


def upstream(tls: str, auth: str) -> Mapping[str, object]:
    """How a frontend logs in."""
    return {
        "upstream_tls": tls,
        "upstream_auth": auth,
        "proxy_user": "murder",
        "proxy_password": "secret",
    }


def clients_at(host: str, workers: int) -> Mapping[str, object]:
    """What a node that serves clients has in its section."""
    return {
        "imap": [f"{host}:143"],
        "imaps": [f"{host}:993"],
        "lmtp": [f"{host}:24"],
        "sieve": [f"{host}:4190"],
        "pop3": [f"{host}:110"],
        "workers": workers,
        "admins": ["cyrus"],
        "allow_plaintext": True,
        "lmtp_trusted": ["127.0.0.0/8"],
    }
