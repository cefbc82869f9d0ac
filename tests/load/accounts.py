"""Answers nginx's mail module which backend a user has (its `auth_http` protocol), in a process of its own."""

import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kit.process import until_open

POP3_PORT = 110


@contextmanager
def answering(host: str, port: int, backend: tuple[str, int]) -> Iterator[None]:
    process = multiprocessing.get_context("fork").Process(
        target=_serve, args=(host, port, backend), daemon=True
    )
    process.start()
    try:
        until_open(host, port)
        yield
    finally:
        process.kill()
        process.join()


def _serve(host: str, port: int, backend: tuple[str, int]) -> None:
    head = f"HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: {backend[0]}\r\n"
    said = f"{head}Auth-Port: {backend[1]}\r\n\r\n".encode()
    said_to_pop3 = f"{head}Auth-Port: {POP3_PORT}\r\n\r\n".encode()
    with socket.create_server((host, port), backlog=512) as listening:
        while True:
            client, _ = listening.accept()
            with client:
                asked = b""
                while not asked.endswith(b"\r\n\r\n"):
                    octets = client.recv(4096)
                    if not octets:
                        break
                    asked += octets
                client.sendall(said_to_pop3 if b"Auth-Protocol: pop3" in asked else said)
