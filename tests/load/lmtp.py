"""LMTP load: one small message for one recipient at a time on each of several connections."""

import select
import socket
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

from tests.load.imap import TIMEOUT_S

BODY: Final = b"From: a@x.test\r\nTo: b@x.test\r\nSubject: load\r\n\r\n" + b"x" * 950 + b"\r\n.\r\n"


class _Connection:
    """The dialogue of one connection: what to send when a reply has come."""

    def __init__(self, address: tuple[str, int], users: Sequence[str], number: int) -> None:
        self.sock = socket.create_connection(address, TIMEOUT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._users = users
        self._next = number
        self._step = 0
        self._got = b""
        self._ask(b"")
        if b" PLAIN" in self._ask(b"LHLO load.test\r\n"):
            self._ask(b"AUTH PLAIN " + b64encode(b"\0murder\0secret") + b"\r\n")

    def _ask(self, octets: bytes) -> bytes:
        self.sock.sendall(octets)
        self._got = b""
        while not self._whole():
            self._got += self.sock.recv(65536)
        said, self._got = self._got, b""
        return said

    def _whole(self) -> bool:
        line = self._got[self._got.rfind(b"\n", 0, -1) + 1 :]
        return self._got.endswith(b"\r\n") and line[3:4] == b" "

    def step(self) -> bool:
        """Something has come; whether a message has been taken."""
        octets = self.sock.recv(65536)
        if not octets:
            raise EOFError("the server closed")
        self._got += octets
        if not self._whole():
            return False
        if self._got[:1] not in b"23":
            raise RuntimeError(self._got)
        self._got = b""
        self._step = (self._step + 1) % 4
        return self._step == 0

    def send(self) -> None:
        if self._step == 0:
            octets = b"MAIL FROM:<a@x.test>\r\n"
        elif self._step == 1:
            self._next += 1
            octets = b"RCPT TO:<%s>\r\n" % self._users[self._next % len(self._users)].encode()
        elif self._step == 2:
            octets = b"DATA\r\n"
        else:
            octets = BODY
        self.sock.sendall(octets)


def deliver_for(
    address: tuple[str, int], users: Sequence[str], connections: int, duration_s: float
) -> float:
    """Messages taken a second."""
    done, elapsed_s = delivered(address, users, connections, duration_s)
    return done / elapsed_s


def delivered(
    address: tuple[str, int], users: Sequence[str], connections: int, duration_s: float
) -> tuple[int, float]:
    """How many messages were taken, and how long that took."""
    opened = [_Connection(address, users, number) for number in range(connections)]
    by_descriptor = {one.sock.fileno(): one for one in opened}
    poll = select.epoll()
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    began = time.perf_counter()
    for one in opened:
        one.send()
    done, left = 0, len(opened)
    while left:
        for descriptor, _ in poll.poll(TIMEOUT_S):
            one = by_descriptor[descriptor]
            if one.step():
                done += 1
                if time.perf_counter() - began >= duration_s:
                    left -= 1
                    continue
            one.send()
    elapsed_s = time.perf_counter() - began
    for one in opened:
        one.sock.close()
    poll.close()
    return done, elapsed_s
