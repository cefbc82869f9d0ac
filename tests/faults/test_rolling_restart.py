"""Frontends are restarted one after the other under load: every command gets its answer, or has not happened; every client
hears BYE before the end."""

import imaplib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.demo import Demo, running_demo
from tests.kit.waiting import pause

CLIENTS = 8
ROUNDS = 2


@pytest.fixture
def demo(archive: Path) -> Iterator[Demo]:
    options = ("--users", str(CLIENTS), "--frontends", "2", "--workers", "2", "--no-tls-required")
    with running_demo(*options) as running:
        yield running


class Client:
    """Appends and reads, at whichever frontend takes it."""

    def __init__(self, demo: Demo, user: int, stopping: threading.Event) -> None:
        self.demo = demo
        self.user = user
        self.stopping = stopping
        self.answered: set[str] = set()
        self.unanswered: set[str] = set()
        self.wrong: list[str] = []
        self.ends = 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            frontend = self.demo.info["frontends"][self.ends % 2]
            try:
                sock = socket.create_connection((frontend["host"], frontend["imap"]), 30)
            except OSError:
                self.ends += 1
                continue  # it is down: the other
            with sock, sock.makefile("rb") as stream:
                number = self.work(sock, stream, number)
            self.ends += 1

    def work(self, sock: socket.socket, stream: "object", number: int) -> int:
        """Until told to stop, or the connection ends; with or without a command under way."""
        tag, under_way = 0, ""
        greeted = False
        commands = [f"LOGIN {self.demo.user(self.user)} {self.demo.password}", "SELECT INBOX"]
        try:
            while True:
                line = stream.readline()  # type: ignore[attr-defined]
                if line.startswith(b"* BYE"):
                    self.note(under_way, False)
                    return number
                if not line:
                    if greeted:
                        self.wrong.append(f"no BYE; under way: {under_way or tag}")
                    return number
                if greeted and not line.startswith(b"t%d " % tag):
                    continue
                if greeted and not line.startswith(b"t%d OK" % tag):
                    self.wrong.append(f"{line!r}")
                greeted = True
                self.note(under_way, True)
                under_way = ""
                if self.stopping.is_set() and not commands:
                    return number
                tag += 1
                if commands:
                    sock.sendall(f"t{tag} {commands.pop(0)}\r\n".encode())
                    continue
                number += 1
                under_way = f"m{self.user}x{number}"
                text = f"Subject: {under_way}\r\n\r\n" + "x" * 3000 + "\r\n"
                sock.sendall(f"t{tag} APPEND INBOX {{{len(text)}+}}\r\n{text}\r\n".encode())
        except OSError as error:
            if greeted:
                self.wrong.append(f"{error!r}; under way: {under_way or tag}")
            return number

    def note(self, identifier: str, is_answered: bool) -> None:
        if identifier:
            (self.answered if is_answered else self.unanswered).add(identifier)


def test_a_rolling_restart_loses_no_accepted_command(demo: Demo) -> None:
    stopping = threading.Event()
    clients = [Client(demo, user, stopping) for user in range(1, CLIENTS + 1)]
    try:
        for node in ("fe1", "fe2") * ROUNDS:
            pause(1, "of load on both")
            demo.node("stop", node)
            demo.node("start", node)
    finally:
        stopping.set()
        for client in clients:
            client.thread.join(60)
    for client in clients:
        assert not client.wrong, client.wrong
        with demo.imap(demo.info["frontends"][0], demo.user(client.user)) as reader:
            reader.select("INBOX", readonly=True)
            found = subjects(reader)
        assert sorted(found) == sorted(set(found)), "twice"
        assert client.answered <= set(found), "an acknowledged message is missing"
        assert not client.unanswered & set(found), "what was never answered has happened"
        assert client.ends >= 2, "nobody was restarted under it"


def subjects(reader: imaplib.IMAP4) -> list[str]:
    parts = reader.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
    return [part[1].split()[1].decode() for part in parts if isinstance(part, tuple)]
