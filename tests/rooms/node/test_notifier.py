"""Whoever has started a node and wants to know how it is: told, and never waited for."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from murder.node.process.host import Notifier
from tests.kit.waiting import LIMIT_S


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def heard(listener: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(listener.recv(4096))
        except BlockingIOError:
            return found


def test_who_has_stopped_reading_stops_no_node_and_hears_the_last_when_they_read_on(
    listener: socket.socket,
) -> None:
    notifier = Notifier()

    def tell() -> None:
        for number in range(1000):
            notifier.tell(f"STATUS={number}")
        notifier.tell("READY=1", "MAINPID=7")

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    telling.join(LIMIT_S)
    assert not telling.is_alive()
    assert heard(listener)[0] == b"STATUS=0"
    notifier.pulse()
    assert heard(listener)[-1] == b"READY=1\nMAINPID=7"
    notifier.pulse()
    assert heard(listener) == []


@pytest.mark.parametrize(("usec", "told"), [("", []), ("4000000", [b"WATCHDOG=1"])])
def test_the_watchdog_is_told_where_there_is_one(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, usec: str, told: list[bytes]
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    notifier = Notifier()
    assert notifier.watchdog_s == (2 if usec else None)
    notifier.pulse()
    assert heard(listener) == told


def test_nobody_to_tell_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in ("", str(tmp_path / "gone"), "@murder-test-nobody"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notifier = Notifier()
        notifier.tell("READY=1")
        notifier.pulse()
