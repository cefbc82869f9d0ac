"""Frontends and backends of ours in a Cyrus murder, as processes of `murder serve`; and clients to drive any server."""

import imaplib
import poplib
import re
import smtplib
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.cyrus.our_nodes import MURDER, PROJECT, murder, wait_for_port

FRONTEND = "127.0.0.21"  # of ours, beside the lab's
DOMAIN = "murder.test"
CONFIG = """\
[node]
name = "{name}"
data = "data"
[mupdate]
master = "{master}:3905"
master_auth = "plain"
master_user = "murder"
master_password = "secret"
master_tls = "none"
[{role}]
imap = ["{host}:143"]
pop3 = ["{host}:110"]
lmtp = ["{host}:24"]
admins = ["cyrus"]
allow_plaintext = true
workers = 1
{more}
[plugins.auth_file]
log2_cost = 8
"""
CYRUS = """\
[servers."{name}.murder.test"]
auth = "plain"
tls = "none"
proxy_user = "murder"
proxy_password = "secret"
"""
PROXY = """\
upstream_auth = "plain"
upstream_tls = "none"
proxy_user = "murder"
proxy_password = "secret"
"""


Process = AbstractContextManager["subprocess.Popen[bytes]"]


def our_backend(folder: Path, name: str, host: str, master: str, more: str = "") -> Process:
    """With more lines for its section. Started again where it has been before."""
    servers = "".join(CYRUS.format(name=other) for other in ("be1", "be2") if other != name)
    more = 'proxies = ["murder"]\n' + more + "\n" + servers
    return _running(folder, f"{name}.{DOMAIN}", "backend", host, master, more)


def our_frontend(
    folder: Path, master: str, host: str = FRONTEND, users: Sequence[str] = ("user1", "user2")
) -> Process:
    return _running(folder, f"fe9.{DOMAIN}", "frontend", host, master, PROXY, users)


@contextmanager
def _process(folder: Path, role: str, host: str) -> Iterator["subprocess.Popen[bytes]"]:
    config_file = folder / "murder.toml"
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*MURDER, "serve", "--role", role, "--config", str(config_file)],
            stderr=log,
            stdout=log,
            cwd=PROJECT,
        )
    try:
        wait_for_port(host, 143)
        while role == "frontend" and "replica.synchronised" not in (folder / "log").read_text():
            assert process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _running(
    folder: Path,
    name: str,
    role: str,
    host: str,
    master: str,
    more: str,
    users: Sequence[str] = (),
) -> Process:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    config_file = folder / "murder.toml"
    if config_file.exists():
        return _process(folder, role, host)
    text = CONFIG.format(name=name, role=role, host=host, master=master, more=more)
    config_file.write_text(text)
    config_file.chmod(0o600)
    for user in ("murder", "cyrus", *users):
        murder(folder, "auth", "add", user, said="secret\n")
    return _process(folder, role, host)


def ok(answer: tuple[str, list[object]]) -> list[object]:
    status, said = answer
    assert status == "OK", said
    return said


class Imap(imaplib.IMAP4):
    """imaplib, and a command of any kind."""

    def ask(self, command: str) -> str:
        """All untagged lines and the tagged one, as one text. Fails where it is not OK."""
        text = self.attempt(command)
        assert re.search(r"^\S+ OK", text.splitlines()[-1]), (command, text)
        return text

    def attempt(self, command: str, literal: bytes | None = None) -> str:
        tag = self._new_tag()  # type: ignore[attr-defined]
        self.send(tag + b" " + command.encode() + b"\r\n")
        lines = []
        while not lines or not lines[-1].startswith(tag.decode() + " "):
            line = self.readline()
            assert line, (command, lines)
            while (found := re.search(rb"\{([0-9]+)\}\r\n$", line)) is not None:
                line += self.read(int(found[1])) + self.readline()
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
        return "\n".join(lines)


def logged_in(host: str, user: str) -> Imap:
    client = Imap(host, timeout=30)
    client.login(user, "secret")
    return client


def message(subject: str) -> bytes:
    return f"Subject: {subject}\r\nFrom: ana@example.org\r\n\r\nHello {subject}\r\n".encode()


def deliver(
    host: str, subject: str, *users: str, as_murder: bool = False
) -> dict[str, tuple[int, bytes]]:
    """By LMTP in one transaction, one reply for each. A Cyrus wants a login first."""
    with smtplib.LMTP(host, 24, local_hostname="mta.test", timeout=60) as client:
        client.ehlo_or_helo_if_needed()
        if as_murder:
            client.login("murder", "secret")
        client.mail("sender@example.org")
        answers = {user: client.rcpt(f"{user}@example.org") for user in users}
        accepted = [user for user in users if answers[user][0] == 250]
        if accepted:
            client.putcmd("data")
            assert client.getreply()[0] == 354
            client.send(message(subject) + b".\r\n")
            for user in accepted:
                answers[user] = client.getreply()
        return answers


def popped(host: str, user: str) -> list[bytes]:
    """The subjects in a user's INBOX, by POP3."""
    client = poplib.POP3(host, timeout=60)
    client.user(user)
    client.pass_("secret")
    subjects = []
    for number in range(1, client.stat()[0] + 1):
        for line in client.retr(number)[1]:
            if line.startswith(b"Subject: "):
                subjects.append(line[9:])
    client.quit()
    return subjects


def subjects(client: Imap, mailbox: str) -> list[str]:
    """In the order of the mailbox, which is left unselected."""
    client.ask(f"EXAMINE {mailbox}")
    text = client.ask("UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    client.ask("UNSELECT")
    return re.findall(r"Subject: (\S+)", text)
