"""Commands sent in one go, however they are cut into packets: a frontend answers as the backend itself does."""

import socket
from typing import Any

import pytest

from tests.kit.demo import Demo

COMMANDS = [
    b"NOOP",
    b"UID FETCH 1:* (FLAGS)",
    b"SEARCH SUBJECT {5}\r\nhello ALL",
    b"STATUS INBOX (MESSAGES)",
    b"uid store 1 +FLAGS (\\Flagged)",
    b"FETCH 1 (BODY.PEEK[])",
    b"NOSUCH",
    b"CHECK",
    b"SEARCH TEXT {3+}\r\nabc",
    b"NOOP",
    b"UNSELECT",
    b"FETCH 1 FLAGS",
    b"SELECT INBOX",
    b"SORT (DATE) UTF-8 ALL",
    b"FETCH 1 (FLAGS)",
    b"LOGOUT",
]


def dialogue(demo: Demo, number: int, server: dict[str, Any], piece: int) -> list[bytes]:
    """All answers to all commands, sent in pieces of so many octets without waiting for any."""
    stream = b"".join(b"t%d %s\r\n" % pair for pair in enumerate(COMMANDS)).replace(b"{5}", b"{5+}")
    with socket.create_connection((server["host"], server["imap"]), timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        file = sock.makefile("rb")
        file.readline()
        sock.sendall(f"a LOGIN {demo.user(number)} {demo.password}\r\nb SELECT INBOX\r\n".encode())
        while not file.readline().startswith(b"b OK"):
            pass
        for at in range(0, len(stream), piece):
            sock.sendall(stream[at : at + piece])
        lines = file.readlines()
    return [line for line in lines if not line.startswith((b"* BYE", b"* OK [HIGHESTMODSEQ"))]


def words(lines: list[bytes]) -> list[bytes]:
    """Untagged answers as they are; of tagged ones tag and OK, NO or BAD."""
    return [line if line[:1] == b"*" else b" ".join(line.split()[:2]) for line in lines]


@pytest.mark.parametrize("piece", [1, 7, 50, 10_000])
def test_pipelined_commands_are_answered_as_by_the_backend(
    demo: Demo, number: int, piece: int
) -> None:
    with demo.imap(demo.frontend, demo.user(number)) as client:
        client.select("INBOX")
        if client.search(None, "ALL")[1] == [b""]:
            client.append(
                "INBOX", "(\\Flagged)", "", b"Subject: hello\r\n\r\nbody {5}\r\nt3 OK\r\n"
            )
    expected = words(dialogue(demo, number, demo.home(number), 10_000))
    assert words(dialogue(demo, number, demo.frontend, piece)) == expected
