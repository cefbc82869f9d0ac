"""A toy protocol for test_toy_protocol.py, which lays this file beside murder's: what comes goes back (RFC 862)."""

from murder.net.connection import Connection
from murder.roles.backend.shared import Backend
from murder.serve.service import ClientService


class Echo:
    """Its service at a backend."""

    def __init__(self, connection: Connection, service: ClientService, backend: Backend) -> None:
        self.connection = connection
        self.greeting = f"echo at {service.server_name}\r\n"

    def begin(self) -> None:
        self.connection.write(self.greeting.encode())

    def received(self, data: bytes) -> None:
        self.connection.write(data)

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        pass
