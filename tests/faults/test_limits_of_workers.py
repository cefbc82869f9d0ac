"""A user's limit holds over all workers of a role, and what a killed worker counted is gone with it."""

import contextlib
import imaplib
import os
import signal
from pathlib import Path

from tests.faults.alone import Alone
from tests.kit.waiting import until

MOST = 5
TRIES = 12
LIMIT_S = 60.0


def attempt(node: Alone) -> imaplib.IMAP4 | None:
    """A session of ana's, if they may have one more."""
    client = imaplib.IMAP4("127.0.0.1", node.imap_port, timeout=LIMIT_S)
    try:
        client.login("ana", "secret")
    except imaplib.IMAP4.error as error:
        assert "[LIMIT]" in str(error), error
        client.shutdown()
        return None
    return client


def attempts(node: Alone) -> list[imaplib.IMAP4]:
    return [client for client in (attempt(node) for _ in range(TRIES)) if client is not None]


def is_alive(client: imaplib.IMAP4) -> bool:
    with contextlib.suppress(imaplib.IMAP4.abort, OSError):
        return client.noop()[0] == "OK"
    return False


def test_a_user_has_one_limit_over_all_workers(tmp_path: Path) -> None:
    node = Alone(tmp_path, store="store_memory")
    text = node.config.read_text()
    assert text.count("create_inbox = true\n") == 1
    limit = f"create_inbox = true\nmax_connections_per_user = {MOST}\n"
    node.config.write_text(text.replace("create_inbox = true\n", limit))
    with node:
        clients = attempts(node)
        assert len(clients) == MOST, node.said()
        os.kill(node.worker(), signal.SIGKILL)
        survivors = [client for client in clients if is_alive(client)]

        def another() -> bool:
            with contextlib.suppress(OSError, imaplib.IMAP4.abort):
                survivors.extend(client for client in [attempt(node)] if client is not None)
            return len(survivors) == MOST

        until(another, node.said, LIMIT_S)
        assert all(is_alive(client) for client in survivors)
        assert attempts(node) == []
        survivors.pop().logout()
        client = until(lambda: attempt(node), node.said, LIMIT_S)
        assert client is not None
        client.shutdown()
