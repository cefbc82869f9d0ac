"""Servers of Python's library beside a test, in its own process."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

S = TypeVar("S", bound=socketserver.BaseServer)

LOOK_S = 0.02  # how soon one sees that it is to end


@contextmanager
def in_a_thread(server: S) -> Iterator[S]:
    """It serves until the end of the block, and is closed."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(LOOK_S,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
