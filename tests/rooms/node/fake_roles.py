"""Roles that speak a line and echo, for tests of the supervisor: small, and real processes all the same."""

import asyncio
import os
from collections.abc import Mapping
from typing import Final

from murder.config import Config, ConfigError, Problem
from murder.hooks import Plugins
from murder.log import plain_log
from murder.model.protocol import IMAP, ProtocolSpec
from murder.net.connection import Connection, Receiver
from murder.net.listener import Service

SAID: Final = 3  # logins that `spin` tells of


class Echo:
    """Greets with its process id and worker, then echoes; `die` kills the process, `spin` holds its loop."""

    def __init__(self, connection: Connection, role: "FakeRole") -> None:
        self.connection = connection
        self.role = role

    def begin(self) -> None:
        tls = "tls" if self.connection.is_tls else "plain"
        self.connection.write(f"{os.getpid()} {self.role.worker} {tls}\r\n".encode())

    def received(self, data: bytes) -> None:
        octets = bytes(data)
        if octets == b"die\r\n":
            os._exit(9)
        if octets == b"spin\r\n":
            for number in range(SAID):
                plain_log.info("login.succeeded", {"number": number})
            spin_for_ever()
        self.connection.write(octets)

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        self.role.echoes.discard(self)


def spin_for_ever() -> None:
    while True:
        pass


class FakeRole:
    """A frontend or backend that serves `imap` by echoing."""

    def __init__(self, config: Config, plugins: Plugins, worker: int) -> None:
        self.config = config
        self.worker = worker
        self.echoes: set[Echo] = set()

    async def start(self) -> None:
        if self.config.node.name == "refuses.example.org":
            raise ConfigError([Problem(self.config.file, "node.name", "is not welcome")])
        if self.config.node.name == "starts-for-ever.example.org":
            (self.config.file.parent / f"starting{self.worker}").touch()
            await asyncio.Event().wait()

    async def stop(self) -> None:
        for echo in list(self.echoes):
            echo.connection.write(b"bye\r\n")
            echo.connection.close()

    def services(self) -> Mapping[ProtocolSpec, Service]:
        return {IMAP: self._serve}

    def _serve(self, connection: Connection) -> Receiver:
        echo = Echo(connection, self)
        self.echoes.add(echo)
        return echo
