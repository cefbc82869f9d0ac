"""A backend without a master, as its own processes: started, killed as a power-off would, checked."""

import contextlib
import imaplib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.demo import ROOT, deliver, free_port_base

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


class Alone:
    """One backend in a folder of its own. Everybody's password is `secret`; INBOXes come with the first login."""

    def __init__(
        self,
        folder: Path,
        store: str = "store_spool",
        workers: int = 2,
        settings: str = "",
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        data: Path | None = None,
        command_timeout_s: float = 60.0,
        with_master: bool = False,
    ) -> None:
        self.folder = folder
        self.prefix = prefix
        self.environment = {**os.environ, **(environment or {})}
        self.data = data or folder / "data"
        self.imap_port = free_port_base(4)
        self.lmtp_port = self.imap_port + 1
        self.master_port = self.imap_port + 2 if with_master else 0
        self.master: subprocess.Popen[bytes] | None = None
        if with_master:
            at = f"127.0.0.1:{self.master_port}"
            settings += (
                f'[mupdate]\nmaster = "{at}"\nmaster_tls = "none"\nmaster_auth = "plain"\n'
                'master_user = "admin"\nmaster_password = "secret"\nretry_max_s = 0.5\n'
            )
            (folder / "master.toml").write_text(
                f'[node]\nname = "master.test"\ndata = "{folder}/master"\nroles = ["mupdate"]\n'
                f'[mupdate]\nlisten = ["{at}"]\nallow_plaintext = true\nadmins = ["admin"]\n'
                '[auth]\nplugin = "auth_anyone"\n[plugins]\npath = ["site"]\n',
                encoding="utf-8",
            )
        self.config = folder / "murder.toml"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "site").mkdir(parents=True, exist_ok=True)
        (folder / "site" / "auth_anyone.py").write_text(ANYONE, encoding="utf-8")
        self.config.write_text(
            f'[node]\nname = "be1.test"\ndata = "{self.data}"\nroles = ["backend"]\ndrain_timeout_s = 1.0\n'
            f'[backend]\nimap = ["127.0.0.1:{self.imap_port}"]\nlmtp = ["127.0.0.1:{self.lmtp_port}"]\n'
            f'imaps = []\npop3 = []\npop3s = []\nworkers = {workers}\nstore = "{store}"\n'
            f'allow_plaintext = true\ncreate_inbox = true\nadmins = ["admin"]\n'
            f"command_timeout_s = {command_timeout_s}\n"
            '[auth]\nplugin = "auth_anyone"\n[plugins]\npath = ["site"]\n'
            "[namespace]\nalternative = true\n"
            f'[log]\nformat = "text"\n{settings}',
            encoding="utf-8",
        )

    def _serve(self, config: Path) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "murder", "serve", "--config", str(config)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=self.environment,
                start_new_session=True,
            )

    def start(self) -> None:
        """Returns when it serves (its master: soon)."""
        if self.master_port and self.master is None:
            self.master = self._serve(self.folder / "master.toml")
        self.process = self._serve(self.config)
        end = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(OSError):
                with socket.create_connection(("127.0.0.1", self.imap_port), 5) as sock:
                    if sock.recv(4) == b"* OK":
                        return
            assert self.process.poll() is None and time.monotonic() < end, self.said()
            time.sleep(0.05)  # nothing outside tells when it serves

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def __enter__(self) -> "Alone":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever has happened: nothing is left running."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.kill_master()

    def kill(self) -> None:
        """Supervisor and workers, at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def kill_master(self) -> None:
        """`start` starts another."""
        if self.master is not None:
            os.killpg(self.master.pid, signal.SIGKILL)
            self.master.wait(30)
            self.master = None

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def worker(self) -> int:
        """The process id of one worker."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def imap(self, user: str) -> imaplib.IMAP4:
        client = imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=30)
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
