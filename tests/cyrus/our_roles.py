"""Frontends and backends of ours in a Cyrus murder, as processes of `murder serve`; and clients to drive any server."""

import imaplib
import poplib
import re
import smtplib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.cyrus.our_nodes import following, serving
from tests.kit.process import Program

FRONTEND = "127.0.0.21"  # of ours, beside the lab's
DOMAIN = "murder.test"
T = TypeVar("T")
NOTHING: Mapping[str, object] = {}
NO_SECTIONS: Mapping[str, Mapping[str, object]] = {}
PROXY = {
    "upstream_auth": "plain",
    "upstream_tls": "none",
    "proxy_user": "murder",
    "proxy_password": "secret",
}
CYRUS = {"auth": "plain", "tls": "none", "proxy_user": "murder", "proxy_password": "secret"}


@contextmanager
def our_backend(
    folder: Path,
    name: str,
    host: str,
    master: str,
    more: Mapping[str, object] = NOTHING,
    also: Mapping[str, Mapping[str, object]] = NO_SECTIONS,
) -> Iterator[Program]:
    """With more keys for its section, and other sections. Started again where it has been before."""
    sections = {
        **also,
        "mupdate": following(master),
        "backend": {**clients_at(host), "proxies": ["murder"], **more},
        **{f'servers."{other}.{DOMAIN}"': CYRUS for other in ("be1", "be2") if other != name},
    }
    with serving(folder, f"{name}.{DOMAIN}", "backend", sections) as program:
        yield program.until_open(host, 143)


@contextmanager
def our_frontend(
    folder: Path,
    master: str,
    host: str = FRONTEND,
    users: Sequence[str] = ("user1", "user2"),
    more: Mapping[str, object] = NOTHING,
) -> Iterator[Program]:
    """With more keys for its section."""
    sections = {"mupdate": following(master), "frontend": {**clients_at(host), **PROXY, **more}}
    with serving(folder, f"fe9.{DOMAIN}", "frontend", sections, users) as program:
        yield program.until_open(host, 143).until_said("replica.synchronised")


@contextmanager
def our_unified(
    folder: Path, name: str, host: str, master: str, users: Sequence[str] = ("user1", "user2")
) -> Iterator[Program]:
    """Frontend and backend in one, in the place of a Cyrus backend."""
    sections = {
        "mupdate": following(master),
        "frontend": {**clients_at(host), **PROXY},
        "backend": {"admins": ["cyrus"], "allow_plaintext": True, "proxies": ["murder"]},
        **{f'servers."{other}.{DOMAIN}"': CYRUS for other in ("be1", "be2") if other != name},
    }
    with serving(folder, f"{name}.{DOMAIN}", "unified", sections, users) as program:
        yield program.until_open(host, 143).until_said("replica.synchronised")


def clients_at(host: str) -> dict[str, object]:
    """What a node that serves clients has in its section."""
    return {
        "imap": [f"{host}:143"],
        "pop3": [f"{host}:110"],
        "lmtp": [f"{host}:24"],
        "sieve": [f"{host}:4190"],
        "admins": ["cyrus"],
        "allow_plaintext": True,
        "workers": 1,
    }


def ok(answer: tuple[str, T]) -> T:
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
        tag = self._new_tag()
        self.send(tag + b" " + command.encode() + b"\r\n")
        lines: list[str] = []
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
