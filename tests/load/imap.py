"""IMAP load from one thread that costs a few microseconds a command: closed loops, latencies, idle sessions.

Rates on a small machine mostly show the generator; what tests/load/processes.py tells of the servers does not.
"""

import select
import socket
import ssl
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

READ_OCTETS: Final = 1 << 20
TAIL_OCTETS: Final = 4096  # longer than any tagged line, capabilities and all
TIMEOUT_S: Final = 30.0
IN_A_TURN: Final = 20


@dataclass(frozen=True)
class Server:
    """Where to log in, and as whom: users `user1` and so on, `step` apart."""

    host: str
    port: int
    tls: bool = False
    password: str = "secret"
    first: int = 1
    step: int = 1
    users: int = 10

    def user(self, number: int) -> str:
        return f"user{self.first + number % self.users * self.step}"


_buffer = memoryview(bytearray(READ_OCTETS))
_context = ssl.create_default_context()
_context.check_hostname = False
_context.verify_mode = ssl.CERT_NONE


def connect(server: Server) -> socket.socket:
    """A connection that has been greeted."""
    sock = socket.create_connection((server.host, server.port), TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if server.tls:
        sock = _context.wrap_socket(sock)
    while not sock.recv(65536).endswith(b"\r\n"):
        pass
    return sock


def ask(sock: socket.socket, octets: bytes, tag: bytes) -> int:
    """Send, and read until the tagged OK with which what came ends; how many octets that were."""
    sock.sendall(octets)
    total, tail = 0, b""
    while True:
        count = sock.recv_into(_buffer)
        if not count:
            raise EOFError(tail)
        total += count
        tail = (tail + bytes(_buffer[max(0, count - TAIL_OCTETS) : count]))[-TAIL_OCTETS:]
        if tail.endswith(b"\r\n") and (b"\r\n" + tail).rfind(b"\r\n" + tag + b" ") >= 0:
            line = last_line(tail)
            if line.startswith(tag + b" "):
                if not line.startswith(tag + b" OK"):
                    raise RuntimeError(line)
                return total


def last_line(data: bytes) -> bytes:
    """The last complete line, or b"" if the data does not end with one."""
    if not data.endswith(b"\r\n"):
        return b""
    data = b"\r\n" + data
    return data[data.rfind(b"\r\n", 0, -2) + 2 :]


def open_session(server: Server, number: int = 0, mailbox: str = "INBOX") -> socket.socket:
    """Logged in, with the mailbox selected."""
    sock = connect(server)
    user = server.user(number)
    ask(sock, f"a LOGIN {user} {server.password}\r\n".encode(), b"a")
    ask(sock, f"b SELECT {mailbox}\r\n".encode(), b"b")
    return sock


def loop(
    sockets: Sequence[socket.socket], command: bytes | Iterator[bytes], duration_s: float
) -> int:
    """One command at a time on each connection, without a pause; how many were answered. An iterator gives each of them."""
    poll = select.epoll()
    by_descriptor = {sock.fileno(): sock for sock in sockets}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    commands = repeat(command) if isinstance(command, bytes) else command
    done = 0
    tails = dict.fromkeys(by_descriptor, b"")
    end = time.perf_counter() + duration_s
    for sock in sockets:
        sock.sendall(b"t " + next(commands) + b"\r\n")
    open_commands = len(sockets)
    while open_commands:
        for descriptor, _ in poll.poll(TIMEOUT_S):
            sock = by_descriptor[descriptor]
            data = sock.recv(1 << 18)
            if not data:
                raise EOFError("the server closed")
            tail = tails[descriptor] + data[-512:]
            # only the end can be the tagged line of a closed loop with one command in flight
            if not last_line(tail).startswith(b"t "):
                tails[descriptor] = tail[-512:]
                continue
            if not last_line(tail).startswith(b"t OK"):
                raise RuntimeError(last_line(tail))
            done += 1
            tails[descriptor] = b""
            if time.perf_counter() < end:
                sock.sendall(b"t " + next(commands) + b"\r\n")
            else:
                open_commands -= 1
    poll.close()
    return done


def logins(server: Server, duration_s: float) -> int:
    """LOGIN, SELECT INBOX, LOGOUT on a connection of its own each, one after the other; how many."""
    done = 0
    end = time.perf_counter() + duration_s
    while time.perf_counter() < end:
        with open_session(server, done) as sock:
            ask(sock, b"z LOGOUT\r\n", b"z")
        done += 1
    return done


def transfer(sock: socket.socket, command: bytes, duration_s: float) -> int:
    """The same command again and again on one connection; octets that came."""
    octets = 0
    end = time.perf_counter() + duration_s
    while time.perf_counter() < end:
        octets += ask(sock, b"f " + command + b"\r\n", b"f")
    return octets


def latencies_ms(
    sockets: dict[str, socket.socket], octets: bytes, tag: bytes, rounds: int
) -> dict[str, float]:
    """The median time of one exchange on each of the connections, which take turns of `IN_A_TURN`; the first of each,
    for which everything is cold, does not count."""
    taken: dict[str, list[float]] = {name: [] for name in sockets}
    for _ in range(max(1, rounds // IN_A_TURN)):
        for name, sock in sockets.items():
            ask(sock, octets, tag)
            for _ in range(IN_A_TURN):
                began = time.perf_counter()
                ask(sock, octets, tag)
                taken[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(times) for name, times in taken.items()}
