"""What the system's resolver says, as a test wants it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Zone:
    """What the system's resolver says. Names of `silent` are not answered until `released`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent: set[str] = set()
        self.said: dict[str, Any] = {}
        self.released = threading.Event()

    def getaddrinfo(self, host: str, port: object, *, type: int) -> list[Any]:
        self.asked.append(host)
        if host in self.silent:
            self.released.wait()
        said = self.said.get(host, ["127.0.0.1"])
        if isinstance(said, Exception):
            raise said
        return [(socket.AF_INET, type, 6, "", (address, 0)) for address in said]


@contextmanager
def zone_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    made = Zone()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.released.set()
