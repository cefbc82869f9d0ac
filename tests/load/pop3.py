"""POP3 load from one thread: sessions one after the other."""

import socket
import time

from tests.load.imap import TIMEOUT_S, Server

STEPS = ("USER {user}", "PASS {password}", "STAT", "QUIT")


def sessions(server: Server, duration_s: float) -> int:
    """USER, PASS, STAT, QUIT on a connection of its own each; how many."""
    done = 0
    end = time.perf_counter() + duration_s
    while time.perf_counter() < end:
        with socket.create_connection((server.host, server.port), TIMEOUT_S) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _line(sock)
            for step in STEPS:
                text = step.format(user=server.user(done), password=server.password)
                sock.sendall(text.encode() + b"\r\n")
                _line(sock)
        done += 1
    return done


def _line(sock: socket.socket) -> None:
    said = b""
    while not said.endswith(b"\r\n"):
        octets = sock.recv(4096)
        if not octets:
            raise EOFError(said)
        said += octets
    if not said.startswith(b"+OK"):
        raise RuntimeError(said)
