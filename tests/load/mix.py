"""Many clients that do what mail clients do: sessions of mixed commands, one after the other, on connections of their own.

One epoll loop plays all of them. What is counted is commands; an answer that is not OK ends it with an error.
"""

import imaplib
import select
import socket
import time
from collections.abc import Iterator
from typing import Final

from tests.load.imap import TAIL_OCTETS, TIMEOUT_S, Server, last_line

HEADER: Final = (
    b"From: Ana <ana@example.org>\r\nTo: bob@example.org\r\nSubject: mixed load\r\n"
    b"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <mix@test.example>\r\n\r\n"
)
AT_ONCE: Final = 100  # appends in one burst


def message(octets: int) -> bytes:
    """A message of about so many octets."""
    return HEADER + (b"x" * 70 + b"\r\n") * ((octets - len(HEADER)) // 72)


MESSAGE: Final = message(1200)
KEPT: Final = 20  # messages left in a mailbox: each session adds one and removes the first


def commands_of(user: str, password: str) -> Iterator[bytes]:
    """One session, from login to logout."""
    yield f"LOGIN {user} {password}".encode()
    yield b'LIST "" *'
    yield b"STATUS INBOX (MESSAGES UNSEEN UIDNEXT)"
    yield b"SELECT INBOX"
    yield b"FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"
    yield b"UID FETCH * (BODYSTRUCTURE BODY.PEEK[])"
    yield b"FETCH 1 (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT FROM DATE)])"
    yield rb"STORE 1:2 +FLAGS (\Seen)"
    yield rb"STORE 2 -FLAGS (\Seen)"
    yield b"APPEND INBOX {%d+}\r\n%s" % (len(MESSAGE), MESSAGE)
    yield b"SEARCH UNSEEN"
    yield rb"STORE 1 +FLAGS.SILENT (\Deleted)"
    yield b"EXPUNGE"
    yield b"LOGOUT"


class _Client:
    """One user's sessions, one after the other."""

    def __init__(self, server: Server, number: int) -> None:
        self._server = server
        self._user = server.user(number)
        self.open()

    def open(self) -> None:
        server = self._server
        self.sock = socket.create_connection((server.host, server.port), TIMEOUT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._commands = commands_of(self._user, server.password)
        self._sent = b""
        self._tail = b""

    def go_on(self) -> tuple[int, bool]:
        """Something has come: how many commands that ended, and whether the session is over."""
        octets = self.sock.recv(1 << 18)
        if not octets:
            raise EOFError(f"{self._sent[:60]!r}: the server closed")
        tail = self._tail + octets[-TAIL_OCTETS:]
        line = last_line(tail)
        if not line.startswith(b"t " if self._sent else b"* "):
            self._tail = tail[-TAIL_OCTETS:]
            return 0, False
        if not line.startswith((b"t OK", b"* OK")):
            raise RuntimeError(f"{self._sent[:60]!r}: {line!r}")
        done = 1 if self._sent else 0
        self._tail = b""
        self._sent = next(self._commands, b"")
        if not self._sent:
            self.sock.close()
            return done, True
        self.sock.sendall(b"t " + self._sent + b"\r\n")
        return done, False


def append_many(client: imaplib.IMAP4, mailbox: str, count: int) -> None:
    """So many small messages, a third of them with flags."""
    octets = message(400)
    for first in range(0, count, AT_ONCE):
        tags = [b"m%d" % number for number in range(first, min(first + AT_ONCE, count))]
        burst = b""
        for number, tag in enumerate(tags):
            flags = rb"(\Seen \Answered)" if number % 3 == 0 else b"()"
            burst += b"%s APPEND %s %s {%d+}\r\n%s\r\n" % (
                *(tag, mailbox.encode(), flags),
                *(len(octets), octets),
            )
        client.send(burst)
        for tag in tags:
            while not (line := client.readline()).startswith(tag + b" "):
                pass
            if not line.startswith(tag + b" OK"):
                raise RuntimeError(line)


def fill(server: Server, clients: int) -> None:
    """`KEPT` messages for each of the users."""
    for number in range(clients):
        sock = socket.create_connection((server.host, server.port), TIMEOUT_S)
        stream = sock.makefile("rb")
        stream.readline()
        lines = [b"LOGIN %s %s" % (server.user(number).encode(), server.password.encode())]
        lines += [b"APPEND INBOX {%d+}\r\n%s" % (len(MESSAGE), MESSAGE)] * KEPT
        for line in lines:
            sock.sendall(b"t " + line + b"\r\n")
            while not (said := stream.readline()).startswith(b"t "):
                pass
            if not said.startswith(b"t OK"):
                raise RuntimeError(said)
        sock.close()


def run(server: Server, clients: int, duration_s: float) -> float:
    """Commands a second of so many clients."""
    players = [_Client(server, number) for number in range(clients)]
    poll = select.epoll()
    by_descriptor = {}
    for player in players:
        by_descriptor[player.sock.fileno()] = player
        poll.register(player.sock, select.EPOLLIN)
    began = time.perf_counter()
    done = 0
    while by_descriptor:
        ready = poll.poll(TIMEOUT_S)
        if not ready:
            raise TimeoutError(f"no answer in {TIMEOUT_S:g} s")
        for descriptor, _ in ready:
            player = by_descriptor[descriptor]
            ended, is_over = player.go_on()
            done += ended
            if not is_over:
                continue
            del by_descriptor[descriptor]
            if time.perf_counter() - began < duration_s:
                player.open()
                by_descriptor[player.sock.fileno()] = player
                poll.register(player.sock, select.EPOLLIN)
    poll.close()
    return done / (time.perf_counter() - began)
