"""Our own MUPDATE nodes beside the Cyrus lab, as processes of `murder serve`, and a raw MUPDATE peer to ask both kinds."""

import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

READY_S = 20.0
PROJECT = Path(__file__).parent.parent.parent

MURDER = [sys.executable, "-m", "murder"]

CONFIG = """\
[node]
name = "{name}"
data = "data"
[mupdate]
listen = ["{host}:{port}"]
users = ["murder"]
admins = ["cyrus"]
allow_plaintext = true
{more}
"""
FOLLOWING = """\
master = "{host}:{port}"
master_auth = "plain"
master_user = "murder"
master_password = "secret"
master_tls = "none"
"""


def murder(folder: Path, *words: str, said: str = "") -> None:
    """Run a `murder` command with the folder's configuration."""
    command = [*MURDER, *words, "--config", str(folder / "murder.toml")]
    subprocess.run(command, input=said, text=True, check=True, cwd=PROJECT, timeout=60)


@contextmanager
def our_node(
    folder: Path, name: str, host: str, port: int, master: tuple[str, int] | None = None
) -> Iterator[Path]:
    """A master of ours, or (with `master`) a replica that listens. The log is in `log`."""
    folder.mkdir(parents=True, exist_ok=True)
    more = FOLLOWING.format(host=master[0], port=master[1]) if master else ""
    config = CONFIG.format(name=name, host=host, port=port, more=more)
    config_file = folder / "murder.toml"
    if not config_file.exists():
        config_file.write_text(config)
        config_file.chmod(0o600)
        (folder / "data").mkdir(exist_ok=True)
        for user in ("murder", "cyrus"):
            murder(folder, "auth", "add", user, said="secret\n")
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*MURDER, "serve", "--role", "mupdate", "--config", str(config_file)],
            stderr=log,
            stdout=log,
            cwd=PROJECT,
        )
    try:
        wait_for_port(host, port)
        yield folder
    finally:
        process.terminate()
        process.wait(30)


def wait_for_port(host: str, port: int) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


class Peer:
    """A raw MUPDATE client, logged in as the murder's account."""

    def __init__(self, host: str, port: int = 3905) -> None:
        self._socket = socket.create_connection((host, port), 10)
        self._file: BinaryIO = self._socket.makefile("rb")
        while not self._message()[0].startswith(b"* OK"):
            pass
        self.ask('AUTHENTICATE "PLAIN" "' + b64encode(b"\0murder\0secret").decode() + '"')

    def _message(self) -> tuple[bytes, ...]:
        """The line with its strings taken out: `(keywords, string, …)`."""
        keywords, strings = b"", []
        while True:
            line = self._file.readline()
            assert line, "the server has closed"
            pieces = line.rstrip(b"\r\n").split(b'"')
            keywords += b" ".join(pieces[::2])
            strings += pieces[1::2]
            if not line.endswith(b"}\r\n"):
                return (keywords, *strings)
            size = int(line[line.rindex(b"{") + 1 : -3].rstrip(b"+"))
            keywords = keywords[: keywords.rindex(b"{")]
            strings.append(self._file.read(size))

    def ask(self, command: str) -> list[tuple[bytes, ...]]:
        """The data of a command, `(keyword, string, …)` each; an answer that is not OK fails."""
        self._socket.sendall(b"T " + command.encode() + b"\r\n")
        found: list[tuple[bytes, ...]] = []
        while True:
            keywords, *strings = self._message()
            words = keywords.split()
            if words and words[0] in (b"T", b"*") and words[1] in (b"OK", b"NO", b"BAD", b"BYE"):
                assert words[1] == b"OK", (command, keywords, strings)
                return found
            found.append((words[1], *strings))

    def rows(self) -> list[tuple[bytes, ...]]:
        """The whole list, in the server's order."""
        return self.ask("LIST")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def rows_at(host: str, port: int = 3905) -> list[tuple[bytes, ...]]:
    peer = Peer(host, port)
    try:
        return peer.rows()
    finally:
        peer.close()
