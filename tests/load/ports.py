"""Waiting for a server that has just been started."""

import socket
import time

READY_S = 30.0


def wait_for_port(host: str, port: int, timeout_s: float = READY_S) -> None:
    """Until somebody accepts there. Raises OSError after the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
