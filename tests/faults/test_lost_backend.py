"""A backend dies under a frontend's session: what was in flight is refused, the session and all else live on."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demo import Demo, running_demo


@pytest.fixture(scope="module")
def demo(archive: Path) -> Iterator[Demo]:
    with running_demo("--users", "20", "--no-tls-required") as running:
        yield running


class Client:
    """IMAP by hand."""

    def __init__(self, demo: Demo, number: int) -> None:
        where = (demo.frontend["host"], demo.frontend["imap"])
        self.sock = socket.create_connection(where, timeout=30)
        self.stream: Any = self.sock.makefile("rwb", 0)
        self.line()
        assert self.ask(f"LOGIN {demo.user(number)} {demo.password}")[-1].startswith("t OK")

    def line(self) -> str:
        return str(self.stream.readline().decode())

    def ask(self, command: str) -> list[str]:
        """A command's answers, up to and with its tagged line."""
        self.stream.write(f"t {command}\r\n".encode())
        lines = [self.line()]
        while lines[-1] and not lines[-1].startswith("t "):
            lines.append(self.line())
        return lines


def test_an_append_is_refused_whose_backend_dies_in_the_middle(demo: Demo) -> None:
    other = next(n for n in range(2, 20) if demo.home(n) != demo.home(1))
    with demo.imap(demo.frontend, demo.user(other)) as sharer:
        assert sharer.create("INBOX/shared")[0] == "OK"
        assert sharer.setacl("INBOX/shared", demo.user(1), "lrs")[0] == "OK"
    shared = f"user/{demo.user(other)}/shared"
    client = Client(demo, 1)
    client.stream.write(b"t APPEND INBOX {300000}\r\n")
    assert client.line().startswith("+ ")
    client.stream.write(b"x" * 100_000)
    demo.node("kill", demo.home(1)["node"])
    client.stream.write(b"x" * 200_000 + b"\r\n")
    assert client.line().startswith("t NO [UNAVAILABLE]")
    assert client.ask("STATUS INBOX (MESSAGES)")[-1].startswith("t NO [UNAVAILABLE]")
    assert client.ask('LSUB "" *')[-1].startswith("t NO [UNAVAILABLE]")
    assert client.ask(f"STATUS {shared} (MESSAGES)")[0] == f"* STATUS {shared} (MESSAGES 0)\r\n"
    listed = client.ask('LIST "" * RETURN (STATUS (MESSAGES))')
    assert f"* STATUS {shared} (MESSAGES 0)\r\n" in listed and listed[-1].startswith("t OK")
    assert any(line.startswith("* NO [UNAVAILABLE]") for line in listed)
    demo.node("start", demo.home(1)["node"])
    end = time.monotonic() + 30
    while not (answer := client.ask("STATUS INBOX (MESSAGES)"))[-1].startswith("t OK"):
        assert time.monotonic() < end, answer
        time.sleep(0.1)  # the breaker may be open for a moment; it tells nobody when it closes
    assert answer[0] == "* STATUS INBOX (MESSAGES 0)\r\n"
