"""A backend without a master, as its own processes: started, killed as a power-off would, checked."""

import contextlib
import imaplib
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kit.demo import deliver
from tests.kit.ports import free_ports
from tests.kit.process import ROOT, Program
from tests.kit.toml import write_config
from tests.kit.waiting import until

READY_S = 60
ANYONE = """
from murder.api import Identity, hookimpl

class Anyone:
    async def verify(self, user, password):
        return Identity(user) if password == b"secret" else None

    async def lookup(self, user):
        return Identity(user)

@hookimpl
def make_auth_backend(settings, data_dir):
    return Anyone()
"""


PLUGIN: Mapping[str, dict[str, object]] = {
    "auth": {"plugin": "auth_anyone"},
    "plugins": {"path": ["site"]},
}


class Alone:
    """One backend in a folder of its own. Everybody's password is `secret`; INBOXes come with the first login."""

    def __init__(
        self,
        folder: Path,
        store: str = "store_spool",
        workers: int = 2,
        settings: str = "",
        environment: Mapping[str, str] | None = None,
        data: Path | None = None,
        command_timeout_s: float = 60.0,
        with_master: bool = False,
    ) -> None:
        self.folder = folder
        self.data = data or folder / "data"
        self.imap_port, self.lmtp_port, master_port = free_ports(3)
        self.master_port = master_port if with_master else 0
        self.config = folder / "murder.toml"
        self.log = folder / "log"
        (folder / "site").mkdir(parents=True, exist_ok=True)
        (folder / "site" / "auth_anyone.py").write_text(ANYONE, encoding="utf-8")
        write_config(self.config, self._sections(store, workers, command_timeout_s), settings)
        if with_master:
            write_config(folder / "master.toml", self._sections_of_master())
        command = [sys.executable, "-m", "murder", "serve", "--config"]
        self.node = Program([*command, self.config], self.log, environment=environment)
        self.master = Program([*command, folder / "master.toml"], self.log, environment=environment)

    def _sections(
        self, store: str, workers: int, command_timeout_s: float
    ) -> dict[str, dict[str, object]]:
        following: dict[str, object] = {
            "master": f"127.0.0.1:{self.master_port}",
            "master_tls": "none",
            "master_auth": "plain",
            "master_user": "admin",
            "master_password": "secret",
            "retry_max_s": 0.5,
        }
        return {
            "node": {
                "name": "be1.test",
                "data": self.data,
                "roles": ["backend"],
                "drain_timeout_s": 1.0,
            },
            "backend": {
                "imap": [f"127.0.0.1:{self.imap_port}"],
                "lmtp": [f"127.0.0.1:{self.lmtp_port}"],
                "imaps": [],
                "pop3": [],
                "pop3s": [],
                "workers": workers,
                "store": store,
                "allow_plaintext": True,
                "create_inbox": True,
                "admins": ["admin"],
                "command_timeout_s": command_timeout_s,
            },
            **PLUGIN,
            "namespace": {"alternative": True},
            "log": {"format": "text"},
            **({"mupdate": following} if self.master_port else {}),
        }

    def _sections_of_master(self) -> dict[str, dict[str, object]]:
        return {
            "node": {
                "name": "master.test",
                "data": self.folder / "master",
                "roles": ["mupdate"],
            },
            "mupdate": {
                "listen": [f"127.0.0.1:{self.master_port}"],
                "allow_plaintext": True,
                "admins": ["admin"],
            },
            **PLUGIN,
        }

    def start(self) -> None:
        """Returns when it serves (its master: soon)."""
        if self.master_port and not self.master.lives:
            self.master.start()
        self.node.start()
        until(self._greets, self.said, READY_S)

    def _greets(self) -> bool:
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self.imap_port), 5) as sock:
                if sock.recv(4) == b"* OK":
                    return True
        assert self.node.lives, self.said()
        return False

    def said(self) -> str:
        return self.node.tail()

    def __enter__(self) -> "Alone":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever has happened: nothing is left running."""
        self.kill()
        self.kill_master()

    def kill(self) -> None:
        """Supervisor and workers, at once."""
        self.node.kill()

    def kill_master(self) -> None:
        """`start` starts another."""
        self.master.kill()

    def stop(self) -> int:
        return self.node.stop()

    def worker(self) -> int:
        """The process id of one worker."""
        return self.node.children()[0]

    def imap(self, user: str) -> imaplib.IMAP4:
        client = imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=60)
        client.login(user, "secret")
        return client

    def deliver(self, user: str, octets: bytes) -> str:
        """The reply to the message's end; "" where the connection was lost."""
        try:
            return deliver("127.0.0.1", self.lmtp_port, user, octets)
        except (OSError, EOFError):
            return ""

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`murder ctl …`."""
        return subprocess.run(
            [sys.executable, "-m", "murder", "ctl", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=120,
        )


def answered(client: imaplib.IMAP4, name: str, *arguments: Any) -> list[Any]:
    """What a command gave; imaplib.IMAP4.error where it was refused."""
    kind, data = getattr(client, name)(*arguments)
    if kind != "OK":
        raise Refused(f"{name} {arguments[:2]}: {data}")
    return list(data)


class Refused(imaplib.IMAP4.error):
    """The server said NO: nothing has changed."""
